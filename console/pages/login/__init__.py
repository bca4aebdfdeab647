"""Pages: login and the user's own sessions."""
