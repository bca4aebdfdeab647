"""The job's process: sandbox, user, limits, output."""
