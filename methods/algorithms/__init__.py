"""The methods, one paper per file. `methods.registry` finds each method by its file name."""
