"""What was measured: results tables, their cells by condition, and which conditions to show."""
