"""The paper's tables and figures, and ours: one file each, named after what it draws."""
