"""The target systems of credentials: finds and deletes their users."""
