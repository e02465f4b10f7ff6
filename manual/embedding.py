"""Embedding: a gather, whose backward is a scatter that adds."""

import jax.numpy as jnp

from handgrad.manual.numerics import widen
from handgrad.manual.op import op

__all__ = ["embedding"]


@op
def embedding(indices, table):
    r"""y[…, :] = table[indices[…], :].

    indices: integers of any shape (*batch). table: (rows, features).
    Returns (*batch, features). An index outside [0, rows) is clamped to the nearest row.
    Backward: table̅[r] = Σ ȳ over all places whose index is r: repeated indices accumulate, in
    float32 at least. The indices have no cotangent.
    Source: "The Math Behind Deep Learning" (ch. 14), summary (embedding layers).
    """
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"indices must be integers; they are {indices.dtype}")
    indices = jnp.clip(indices, 0, table.shape[0] - 1)
    return table[indices], (indices, table)


@embedding.backward
def _(residuals, dy):
    indices, table = residuals
    dy = widen(dy)
    return None, jnp.zeros(table.shape, dy.dtype).at[indices].add(dy).astype(table.dtype)
