"""A job's process: sandbox, user, limits, output."""
