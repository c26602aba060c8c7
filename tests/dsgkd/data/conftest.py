"""Fixtures of the texts and tokenizers that these tests read."""

from text_fixtures import *  # noqa: F403
