"""Rebuilds the paper's tables and figures from results tables only."""
