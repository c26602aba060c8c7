"""The headroom check: what the teachers' states tell of the labels beyond the text."""
