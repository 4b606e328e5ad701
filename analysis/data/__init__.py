"""What was measured: results tables from disk, their cells by condition, and the choice of
conditions to show.
"""
