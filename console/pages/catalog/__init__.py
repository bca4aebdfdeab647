"""Pages: the catalog, the policies and the policy simulator."""
