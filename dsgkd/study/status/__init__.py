"""How a study stands, for people: read from the ledger, needing neither torch nor Ray."""
