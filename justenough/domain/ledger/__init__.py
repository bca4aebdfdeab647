"""The ledger's events, their hash chain, and exports of it. Pure."""
