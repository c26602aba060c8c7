"""How a study stands, from its ledger: the status and its table."""
