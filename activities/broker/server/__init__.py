"""The broker's listeners and REST API."""
