"""Embedding: a gather, whose backward is a scatter that adds; and positions in a sequence."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual.numerics import as_index, wide, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import floating, indices_below, known, number, positive
from handgrad.manual.trees import found

__all__ = ["embedding", "learned_positions", "rotary", "sinusoidal_positions"]


@op
def embedding(indices, table):
    r"""y[…, :] = table[indices[…], :].

    indices: integers of any shape (*batch). table: (rows, features).
    Returns (*batch, features). A traced index outside [0, rows) is clamped to the nearest row.
    Backward: table̅[r] = Σ ȳ over all places whose index is r: repeated indices accumulate, in
    float32 at least. The indices have no cotangent.
    Raises ValueError for a table of another rank or without rows and for an index outside [0, rows)
    that is known when the function is traced, TypeError for indices that are not integers.
    Source: "The Math Behind Deep Learning" (ch. 14), summary (embedding layers).
    """
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"embedding: indices are {indices.dtype}, and must be integers")
    if getattr(table, "ndim", None) != 2 or not len(table):
        raise ValueError(
            f"embedding: table {found(table)}; it must be (rows, features), with at least one row"
        )
    floating("embedding", table=table)
    rows = f"with a table of shape {table.shape}"
    indices_below("embedding", len(table), rows, indices=indices)
    indices = jnp.clip(as_index(indices), 0, len(table) - 1)
    return table[indices], (indices, table)


@embedding.backward
def _(residuals, dy):
    indices, table = residuals
    dy = widen(dy)
    return None, jnp.zeros(table.shape, dy.dtype).at[indices].add(dy).astype(table.dtype)


@op
def learned_positions(x, table):
    r"""y[…, t, :] = x[…, t, :] + table[t, :].

    x: (*batch, time, features). table: (rows, features), time ≤ rows. Returns the shape of x.
    Backward: x̄ = ȳ,   table̅[t] = Σ ȳ[…, t, :] over the batch, and 0 for the rows from time on.
    Sums are accumulated in float32 at least. Raises ValueError where the shapes do not fit.
    Source: Gehring, Auli, Grangier, Yarats, Dauphin (2017), "Convolutional sequence to sequence
    learning".
    """
    _check_sequence("learned_positions", x)
    time, features = x.shape[-2:]
    if jnp.ndim(table) != 2 or table.shape[1] != features or table.shape[0] < time:
        raise ValueError(
            f"learned_positions: table has shape {jnp.shape(table)} and x {x.shape}; table must be "
            f"(rows, {features}) with at least {time} rows, one for each position"
        )
    rows = jnp.broadcast_to(widen(table[:time]), x.shape)
    return (widen(x) + rows).astype(x.dtype), table[:, :0]  # how many rows there are


@learned_positions.backward
def _(rows, dy):
    dtable = widen(dy).sum(tuple(range(dy.ndim - 2)))  # (time, features)
    unused = rows.shape[0] - dtable.shape[0]
    return dy, jnp.pad(dtable, [(0, unused), (0, 0)])


@op
def sinusoidal_positions(x, *, base=10000.0, offset=0):
    r"""y[…, t, :] = x[…, t, :] + (sin ω₀t, cos ω₀t, sin ω₁t, cos ω₁t, …), ωᵢ = base^{−2i/features}.

    x: (*batch, time, features), features even. base: a positive number. offset: the position of
    the first entry. Returns the shape of x.
    Backward: x̄ = ȳ. The waves are computed in float64, once, when the function is traced, but those
    of a base or an offset that is traced in x's dtype, float32 at least.
    Raises ValueError where the shape does not fit or the offset is not finite.
    Source: Vaswani et al. (2017), "Attention is all you need", section 3.5.
    """
    _check_sequence("sinusoidal_positions", x, pairs=True)
    positive("sinusoidal_positions", base=base)
    number("sinusoidal_positions", offset=offset)
    if (n := known(offset)) is not None and not np.isfinite(n):
        raise ValueError(f"sinusoidal_positions: offset is {offset}; it must be finite")
    waves = _waves(offset + _steps(x), x.shape[-1], base, x.dtype)
    waves = jnp.stack(waves, -1).reshape(x.shape[-2:])
    return (widen(x) + jnp.broadcast_to(waves, x.shape)).astype(x.dtype), ()


@sinusoidal_positions.backward
def _(_residuals, dy):
    return (dy,)


@op
def rotary(x, *, positions=None, base=10000.0, interleaved=False):
    r"""(a cos θ − b sin θ, b cos θ + a sin θ), θ = ωᵢ t, for each pair of features (a, b).

    x: (*batch, time, features), features even. positions: integers (time,), an array
    or a tuple, the t of each entry; 0, 1, 2, … if None. ωᵢ = base^{−2i/features}. interleaved:
    pair i is the features 2i and 2i + 1, as in the paper, else i and i + features/2, as in
    GPT-NeoX and Llama. Returns the shape of x.
    The product of a query turned by t and a key turned by t′ depends on t − t′ alone.
    Backward: x̄ is ȳ turned by −θ, since the transpose of a rotation is its inverse. x is not kept.
    Angles are computed in float64, but those of an array or of a traced base in x's dtype, float32
    at least.
    Raises ValueError where the shapes do not fit, TypeError for positions that are not integers.
    Source: Su, Lu, Pan, Murtadha, Wen, Liu (2021), "RoFormer: enhanced transformer with rotary
    position embedding".
    """
    _check_sequence("rotary", x, pairs=True)
    positive("rotary", base=base)
    if positions is not None:
        _check_positions(positions, x)
    return _turn(x, positions, base, interleaved, 1), ()


@rotary.backward
def _(_residuals, dy, *, positions, base, interleaved):
    return (_turn(dy, positions, base, interleaved, -1),)


def _turn(x, positions, base, interleaved, sense):
    """The pairs of x turned forwards (sense 1) or back (−1)."""
    positions = _steps(x) if positions is None else positions
    waves = _waves(positions, x.shape[-1], base, x.dtype)
    z, half = widen(x), x.shape[-1] // 2
    sin, cos = (jnp.broadcast_to(wave, (*x.shape[:-1], half)) for wave in waves)
    a, b = (z[..., ::2], z[..., 1::2]) if interleaved else (z[..., :half], z[..., half:])
    turned = [a * cos - sense * b * sin, b * cos + sense * a * sin]
    y = jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)
    return y.astype(x.dtype)


def _steps(x):
    """0, 1, 2, …: known, but where the time is symbolic, as `jax.export` has it."""
    time = x.shape[-2]
    return np.arange(time) if isinstance(time, int) else jnp.arange(time)


def _waves(positions, features, base, dtype):
    """sin ωᵢt and cos ωᵢt, (time, features / 2): in float64 first where the positions are known."""
    powers = -np.arange(0, features, 2) / features
    if isinstance(base, Tracer):
        frequencies = base.astype(wide(dtype)) ** jnp.asarray(powers, wide(dtype))
        positions = jnp.asarray(positions)
    else:
        frequencies = float(base) ** powers
    if isinstance(positions, jax.Array):
        angles = jnp.outer(positions.astype(wide(dtype)), jnp.asarray(frequencies, wide(dtype)))
        return jnp.sin(angles), jnp.cos(angles)
    angles = np.asarray(positions)[:, None] * frequencies
    return [jnp.asarray(wave(angles), wide(dtype)) for wave in (np.sin, np.cos)]


def _check_sequence(name, x, pairs=False):
    if jnp.ndim(x) < 2 or (pairs and x.shape[-1] % 2):
        even = ", features even" if pairs else ""
        raise ValueError(
            f"{name}: x has shape {jnp.shape(x)}; it must be (*batch, time, features){even}"
        )


def _check_positions(positions, x):
    positions = positions if isinstance(positions, jax.Array) else np.asarray(positions)
    shape, dtype = positions.shape, positions.dtype
    if shape != x.shape[-2:-1]:
        raise ValueError(
            f"rotary: positions have shape {shape} and x {x.shape}; positions must be "
            f"{x.shape[-2:-1]}, one for each entry of the axis before the last"
        )
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"rotary: positions are {dtype}, and must be integers")
