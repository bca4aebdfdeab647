"""Revokes a job's access and proves that none of it is alive."""
