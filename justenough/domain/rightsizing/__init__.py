"""Right-sizing: how past runs of a job used their grants, and specs that request less. Pure."""
