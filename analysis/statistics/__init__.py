"""Statistics as pure functions of numbers; they know nothing of cells or tables."""
