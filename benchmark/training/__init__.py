"""How one cell trains: from its spec to its result."""
