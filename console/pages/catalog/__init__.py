"""Pages: the catalog, and why policy decides as it does."""
