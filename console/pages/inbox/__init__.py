"""Pages: the approver's inbox and its decisions."""
