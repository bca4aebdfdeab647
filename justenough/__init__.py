"""JustEnough's library: the domain (pure), the adapters (I/O), and the services that combine both."""
