"""Writes new configuration folders, and what a new resource needs in one, from the templates of this package."""
