"""The systems that credentials are for: finds and ends their users."""
