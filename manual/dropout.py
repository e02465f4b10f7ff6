"""Dropout: the backward draws the forward's mask again."""

import jax
import jax.numpy as jnp

from handgrad.manual.numerics import wide, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import known, number, random_key

__all__ = ["dropout"]


@op
def dropout(x, *, key, rate=0.5, scaled=True):
    r"""y = m ∘ x / (1 − rate), each m one with probability 1 − rate and else zero.

    x: any shape. key: a `jax.random.key`, of which float32 numbers are drawn whatever the dtype
    of x, so that every precision drops the same elements. Returns the shape of x. scaled=False
    leaves out the division, as some texts print it; the expectation of y is then (1 − rate) x
    instead of x.
    Backward: x̄ = m ∘ ȳ / (1 − rate), the same mask, drawn again from the key: nothing is kept.
    Raises ValueError for a rate outside [0, 1) and for several keys, TypeError for what is no key.
    Source: Srivastava et al., "Dropout" (2014); "Backpropagation and optimisers" (blog, AI & the
    art of programming), section 6, prints scaled=False.
    """
    random_key("dropout", key)
    number("dropout", rate=rate)
    if (share := known(rate)) is not None and not 0 <= share < 1:
        raise ValueError(f"dropout: rate is {rate}; the share that is dropped must be in [0, 1)")
    return _masked(x, key, rate, scaled), None


@dropout.backward
def _(residuals, dy, *, key, rate, scaled):
    return (_masked(dy, key, rate, scaled),)


def _masked(x, key, rate, scaled):
    keep = jax.random.bernoulli(key, jnp.float32(1 - rate), x.shape)
    kept = (widen(x) / jnp.asarray(1 - rate, wide(x.dtype))).astype(x.dtype) if scaled else x
    return jnp.where(keep, kept, jnp.zeros((), x.dtype))
