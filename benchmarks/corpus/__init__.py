"""A collection of backward passes, many wrong and many right, to measure gradient checkers by.

`ENTRIES` lists them all; `tests/test_corpus.py` proves each one wrong or right. With this
folder's parent on the path: `from corpus import ENTRIES`.
"""

import importlib

from corpus.tools import FORMS, MISTAKES, Entry

__all__ = ["ENTRIES", "FAMILIES", "FORMS", "MISTAKES", "Entry"]

FAMILIES = (
    "elementwise",
    "kinks",
    "softmaxes",
    "dense",
    "losses",
    "contrastive",
    "norms",
    "attention",
    "convolution",
    "recurrent",
    "structural",
    "linalg",
)
ENTRIES: list[Entry] = [
    entry
    for family in FAMILIES
    for function in importlib.import_module(f"corpus.{family}").FUNCTIONS
    for entry in function.entries
]
