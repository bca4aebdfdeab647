"""Definitions of language models, and budgets for their use. Pure."""
