"""Weights of a model: how they are masked, computed from others, tied and counted."""
