"""Recurrent nets as plain loops over time."""

import jax
import jax.numpy as jnp

__all__ = ["gru", "lstm", "rnn"]


def rnn(x, h0, wx, wh, b, *, activation="tanh"):
    """Elman net: all hidden states, (batch, time, hidden)."""
    g = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]
    h, states = h0, []
    for t in range(x.shape[1]):
        h = g(x[:, t] @ wx + h @ wh + b[None])
        states.append(h)
    return jnp.stack(states, 1)


def lstm(x, h0, c0, wx, wh, b, peepholes=None):
    """LSTM with gates i, f, g, o: all hidden and all cell states."""
    h, c, hs, cs = h0, c0, [], []
    to_i, to_f, to_o = (0.0, 0.0, 0.0) if peepholes is None else peepholes[:, None]
    for t in range(x.shape[1]):
        i, f, g, o = jnp.split(x[:, t] @ wx + h @ wh + b[None], 4, axis=-1)
        i, f = jax.nn.sigmoid(i + to_i * c), jax.nn.sigmoid(f + to_f * c)
        c = f * c + i * jnp.tanh(g)
        h = jax.nn.sigmoid(o + to_o * c) * jnp.tanh(c)
        hs.append(h)
        cs.append(c)
    return jnp.stack(hs, 1), jnp.stack(cs, 1)


def gru(x, h0, wx, wh, b):
    """GRU with gates r, z, n, the reset gate before the product: all hidden states."""
    h, states = h0, []
    ur, uz, un = jnp.split(wh, 3, axis=-1)
    for t in range(x.shape[1]):
        ar, az, an = jnp.split(x[:, t] @ wx + b[None], 3, axis=-1)
        r, z = jax.nn.sigmoid(ar + h @ ur), jax.nn.sigmoid(az + h @ uz)
        n = jnp.tanh(an + (r * h) @ un)
        h = z * h + (1 - z) * n
        states.append(h)
    return jnp.stack(states, 1)
