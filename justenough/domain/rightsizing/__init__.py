"""What past runs of a job used of their grants, and specs that request less. Pure."""
