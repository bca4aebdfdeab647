"""Live events: the feed, server-sent events, and the checks of open streams."""
