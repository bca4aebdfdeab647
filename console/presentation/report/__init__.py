"""Renders the evidence report of `justenough.domain.evidence` as one HTML page or as Markdown."""
