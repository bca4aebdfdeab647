"""What every other domain package builds on: ids, errors, durations, canonical JSON, redaction. Pure."""
