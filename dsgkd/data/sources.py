"""The readers of what a user gives: labelled notes, texts without labels, glossaries."""

from dsgkd.data.config import SEALED, SPLITS, DataConfig, check_open
from dsgkd.data.notes import Notes, read_notes
from dsgkd.data.texts import read_corpus, read_texts
from dsgkd.data.unlabelled import TextSource, read_glossary, read_unlabelled

__all__ = ["SEALED", "SPLITS", "DataConfig", "Notes", "TextSource", "check_open"]
__all__ += ["read_corpus", "read_glossary", "read_notes", "read_texts", "read_unlabelled"]
