"""The command line: a client of the API alone, which signs locally. Starts nothing but `console`, and never imports worker."""
