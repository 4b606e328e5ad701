"""Lets the tests in the folders below import the made-up results of this one: `import synthetic`."""
