"""Compaction: cuts units that cannot affect the output out of a finalized network."""
