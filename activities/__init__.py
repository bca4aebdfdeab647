"""Every side effect: Vault, the store, processes, messages. Decides nothing."""
