"""The command line's access to console and Vault: profiles, tokens, addresses."""
