"""Authentication and authorization: tokens, page sessions, roles."""
