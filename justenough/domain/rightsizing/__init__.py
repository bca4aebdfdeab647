"""What jobs used of what they were granted, and specs that ask for less. Pure."""
