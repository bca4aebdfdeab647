"""The REST API (FastAPI) under `/api/v1`. Reads come from the store; changes go to the job's workflow, and the worker verifies them again.

`/openapi.json` is the contract; docs/reference/rest-api.md describes it. Authentication, errors and paging are in `console.http` and
`console.api.dependencies`.
"""
