"""What each process sets up once: logging and garbage collection."""
