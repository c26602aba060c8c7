"""Which words are transferred, one model's view of texts, and where the words of two views lie."""
