"""The REST API under `/api/v1`. Reads come from the store; changes go to the job's workflow, and the worker verifies them again."""
