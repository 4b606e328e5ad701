"""Compaction: what cannot matter is cut out of a finalized network."""
