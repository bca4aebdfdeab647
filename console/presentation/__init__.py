"""Describes jobs, requests and events in words, for the command line and the pages alike. Pure: no I/O, no terminal, no HTML."""
