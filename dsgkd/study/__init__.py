"""Studies: stages, the search, the dispatcher, the backends that run trials, the callbacks."""
