"""Notes in, batches of token ids and word spans out."""
