"""What a study costs, what it will cost, and what it would cost elsewhere."""
