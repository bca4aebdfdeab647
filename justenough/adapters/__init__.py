"""I/O: one package per system. Decides nothing."""
