"""Commands that follow a job or a request until it ends."""
