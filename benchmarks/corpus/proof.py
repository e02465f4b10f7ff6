"""How far a backward pass is from autodiff in float64: the measure that decides right or wrong."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Entry


def pullback(reference: Callable, args: tuple, dy) -> tuple:
    """Autodiff's cotangents; None for an integer argument."""
    floats = floating(args)

    def of_floats(*values):
        return reference(*with_floats(args, values))

    grads = jax.vjp(of_floats, *(args[i] for i in floats))[1](dy)
    known = dict(zip(floats, grads, strict=True))
    return tuple(known.get(i) for i in range(len(args)))


def floating(args: tuple) -> list[int]:
    """The positions of the arguments that have a derivative."""
    return [i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)]


def with_floats(args: tuple, values) -> tuple:
    """`args` with `values` in the place of the floating ones."""
    full = list(args)
    for i, value in zip(floating(args), values, strict=True):
        full[i] = value
    return tuple(full)


def cotangent(entry: Entry, seed: int = 0) -> np.ndarray:
    """A random cotangent of the entry's output."""
    out = jax.eval_shape(entry.reference, *entry.args)
    return np.random.default_rng(seed).standard_normal(out.shape)


def distance(hand: tuple, truth: tuple) -> float:
    """The largest distance of an element, relative to the larger of it and its array's RMS.

    The number of cotangents, their shapes and dtypes must agree, and all must be finite.
    """
    if not isinstance(hand, tuple) or len(hand) != len(truth):
        raise ValueError(f"{len(truth)} cotangents are due, got {hand}")
    worst = 0.0
    for h, t in zip(hand, truth, strict=True):
        if h is None and t is None:
            continue
        h, t = np.asarray(h), np.asarray(t)
        if (h.shape, h.dtype) != (t.shape, t.dtype) or not np.isfinite([h, t]).all():
            raise ValueError(f"a finite {t.dtype}{t.shape} is due, got {h}")
        error = abs(h - t)
        scale = np.maximum(abs(t), np.sqrt(np.mean(t**2)))
        worst = max(worst, np.divide(error, scale, out=error.copy(), where=scale > 0).max())
    return float(worst)
