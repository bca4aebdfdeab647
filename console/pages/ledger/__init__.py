"""Pages: the ledger and its verification."""
