"""Cells in SLURM job arrays."""
