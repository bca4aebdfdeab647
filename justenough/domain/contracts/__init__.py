"""The messages between workflows and activities. Pure."""
