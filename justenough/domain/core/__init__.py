"""The base of every other domain package: ids, errors, durations, canonical JSON, redaction. Pure."""
