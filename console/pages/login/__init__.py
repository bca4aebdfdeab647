"""Pages: logging in, and one's own sessions."""
