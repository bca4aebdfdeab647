"""Revoking, and proving that nothing of a job is alive."""
