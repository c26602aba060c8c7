"""Texts: files, columns, splits, identities, corpora, the transfer set, the synthetic world."""
