"""The language-model gateway of a job's broker."""
