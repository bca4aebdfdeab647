"""The embedded stack: real Temporal, OpenBao and PostgreSQL on loopback, worker and console, under one supervisor. For evaluation and tests."""
