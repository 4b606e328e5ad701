"""How exhibits are written: tables, figures, the page with all of them, and the manifest."""
