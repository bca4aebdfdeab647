"""Right-sizing: the use that past runs of a job made of their grants, and specs that request less. Pure."""
