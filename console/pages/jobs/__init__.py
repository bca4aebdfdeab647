"""Pages: jobs, their timeline, launching and stopping them."""
