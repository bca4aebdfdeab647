"""The command line: a client that uses only the API and signs locally. Starts only `console`, and never imports worker."""
