"""Writes new configuration folders, and the files that a new resource needs, from the templates of this package."""

from pathlib import Path

END_USERS_SQL_FILE = Path(__file__).with_name("end_users.sql")
"""What ends the users of jobs: every PostgreSQL target has a copy of it."""
