"""What runs: the Temporal worker, the embedded servers and Vault's provisioning."""
