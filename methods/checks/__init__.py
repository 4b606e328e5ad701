"""What a training loop of one's own is checked for: weights, processes, the optimizer, layers that cannot train."""
