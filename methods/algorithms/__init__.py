"""One paper, one file: `methods.registry` finds each by its file name."""
