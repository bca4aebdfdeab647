"""Set-up of each process: logging, garbage collection, private files."""
