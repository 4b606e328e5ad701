"""The run folder on disk: files that are whole or absent, attempts at cells, checkpoints."""
