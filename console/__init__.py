"""The console: REST API, pages, event delivery, its Temporal client, and the command line."""
