"""The payloads of workflows and activities. Pure."""
