"""`justenough vault setup`: sets up any Vault for a configuration. Idempotent. Knows nothing of the embedded servers."""
