"""Models of the data that the API, the pages and the command line show. Pure."""
