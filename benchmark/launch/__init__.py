"""Where cells execute: one interface, one module a place."""
