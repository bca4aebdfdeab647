"""What the API, the pages and the command line show. Pure."""
