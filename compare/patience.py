"""An end to loops that may have none: of rewritten code, or at numbers that nobody has chosen."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator


class _Patience(threading.local):
    until = math.inf  # of this thread's own time


_PATIENCE = _Patience()


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """A loop raises after so long, or as soon as one around this would."""
    before = _PATIENCE.until
    _PATIENCE.until = min(before, time.thread_time() + seconds)
    try:
        yield
    finally:
        _PATIENCE.until = before


_INTERRUPTED = threading.Event()


def interrupt(*_: object) -> None:
    """What the signal of Ctrl-C does: it is heard even where JAX, asked then, swallows it."""
    _INTERRUPTED.set()
    raise KeyboardInterrupt


def look_up() -> None:
    """What work that is done in steps begins each with."""
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


def limited() -> bool:
    return _PATIENCE.until < math.inf


def a_round() -> None:
    """What each round of a loop begins with."""
    if limited() and time.thread_time() > _PATIENCE.until:
        raise TimeoutError("the loop goes on and on")
