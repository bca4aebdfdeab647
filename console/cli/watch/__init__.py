"""Commands that follow something until it ends."""
