"""What things are in words, for the command line and the pages alike. Pure: no I/O, no terminal, no HTML."""
