"""What people touch: the API, its gateway to Temporal, and the command line."""
