"""The claims that the paper makes in words, by section; each stands beside its test."""
