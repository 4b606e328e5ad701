"""What the paper prints: its numbers, captions and names."""
