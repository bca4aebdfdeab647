"""Rules for pending requests, and what changed since the last approved run. Pure."""
