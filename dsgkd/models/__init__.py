"""Encoders, students, what can be read from inside them, and how small ones are made."""
