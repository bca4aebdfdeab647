"""How the command line reaches console and Vault: profiles, tokens, addresses."""
