"""The evidence report as people read it: one HTML page, or Markdown. What it holds is `justenough.domain.evidence`'s."""
