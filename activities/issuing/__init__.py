"""Authorizes, issues, renews and ends a job's credentials."""
