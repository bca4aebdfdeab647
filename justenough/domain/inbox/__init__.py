"""The approvals inbox: batches and deadlines of pending requests, and changes since the last approved run. Pure."""
