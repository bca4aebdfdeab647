"""How a job is handed its credentials: environment, files, identity tokens."""
