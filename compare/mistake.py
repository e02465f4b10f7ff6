"""What a wrong use of the command raises: one sentence that says what to do instead."""

import difflib
from collections.abc import Iterable

__all__ = ["Mistake", "nearest"]


class Mistake(Exception):
    """Shown without a traceback; the command then ends with exit code 2."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause that lists the names most like this one, to end a sentence with; may be empty."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=5, cutoff=0.5)
    if not close:
        return ""
    return f"; the nearest {'is' if len(close) == 1 else 'are'}: {', '.join(close)}"
