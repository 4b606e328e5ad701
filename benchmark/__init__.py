"""Runs grids of sparse-training cells and records what they measured."""
