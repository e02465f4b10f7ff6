"""Embedding, and positions: learned, sinusoidal, rotary."""

import jax.numpy as jnp
from jax import lax

__all__ = ["embedding", "learned_positions", "rotary", "sinusoidal_positions"]


def embedding(indices, table):
    """Rows of the table; indices outside it are clamped."""
    return jnp.take(table, indices, axis=0, mode="clip")


def learned_positions(x, table):
    """Row t of the table added at time t."""
    time = x.shape[-2]
    return x + table[:time].reshape((1,) * (x.ndim - 2) + (time, -1))


def sinusoidal_positions(x, *, base=10000.0, offset=0):
    """Sines and cosines of the position added, in turns."""
    time, features = x.shape[-2:]
    angles = _angles(jnp.arange(offset, offset + time), features, base)
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(time, features)
    return x + waves.astype(x.dtype).reshape((1,) * (x.ndim - 2) + (time, features))


def rotary(x, *, positions=None, base=10000.0, interleaved=False):
    """Pairs of features as complex numbers, turned by an angle proportional to the position."""
    time, features = x.shape[-2:]
    angles = _angles(jnp.arange(time) if positions is None else positions, features, base)
    shape = (*x.shape[:-1], features // 2, 2) if interleaved else (*x.shape[:-1], 2, features // 2)
    axis = -1 if interleaved else -2
    pairs = x.astype(angles.dtype).reshape(shape)
    real, imaginary = (jnp.take(pairs, k, axis) for k in (0, 1))
    turn = lax.complex(jnp.cos(angles), jnp.sin(angles))
    turned = lax.complex(real, imaginary) * turn.reshape((1,) * (x.ndim - 2) + turn.shape)
    return jnp.stack([turned.real, turned.imag], axis).reshape(x.shape).astype(x.dtype)


def _angles(positions, features, base):
    dtype = jnp.result_type(float)
    frequencies = base ** (-jnp.arange(0, features, 2, dtype=dtype) / features)
    return jnp.asarray(positions, dtype)[:, None] * frequencies[None]
