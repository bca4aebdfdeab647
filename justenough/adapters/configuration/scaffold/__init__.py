"""Writes new configuration folders, and the files that a new resource needs, from the templates of this package."""
