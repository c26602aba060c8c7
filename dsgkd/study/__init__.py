"""Many runs: the search space, the search, the ledger, the runner."""
