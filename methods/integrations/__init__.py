"""Callbacks for trainers of other libraries. `methods` imports none of them by itself."""
