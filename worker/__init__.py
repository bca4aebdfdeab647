"""The Temporal worker, the embedded stack and Vault's provisioning."""
