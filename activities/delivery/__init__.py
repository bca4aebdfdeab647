"""Hands credentials to a job: environment, files, identity tokens."""
