"""Recurrent nets over padded sequences, as plain loops over time."""

import jax
import jax.numpy as jnp

__all__ = ["bidirectional", "gru_reset_after", "recurrence", "stacked"]


def recurrence(x, state, weights, *, cell="lstm", lengths=None, reverse=False, truncate=None):
    """All hidden states, zero past the end of a sequence, and the state at its end."""
    batch, time, _ = x.shape
    ends = jnp.full(batch, time) if lengths is None else jnp.asarray(lengths)
    outputs = [None] * time
    order = range(time - 1, -1, -1) if reverse else range(time)
    for count, t in enumerate(order):
        if truncate and count and count % truncate == 0:
            state = jax.lax.stop_gradient(state)
        going = (ends > t)[:, None]
        after = _CELLS[cell](state, jnp.where(going, x[:, t], 0), *weights)
        outputs[t] = jnp.where(going, after[0], jnp.zeros_like(after[0]))
        state = tuple(jnp.where(going, a, s) for a, s in zip(after, state, strict=True))
    return jnp.stack(outputs, axis=1), tuple(state)


def gru_reset_after(x, h0, wx, wh, b, bn):
    return recurrence(x, (h0,), (wx, wh, b, bn), cell="gru_reset_after")[0]


def bidirectional(x, states, weights, *, cell="lstm", lengths=None):
    """Two nets, side by side."""
    options = {"cell": cell, "lengths": lengths}
    ahead, end = recurrence(x, states[0], weights[0], **options)
    back, start = recurrence(x, states[1], weights[1], **options, reverse=True)
    return jnp.concatenate([ahead, back], axis=-1), (end, start)


def stacked(x, states, weights, *, cell="lstm", lengths=None, both_ways=False):
    """One layer after the other."""
    ends = []
    for state, w in zip(states, weights, strict=True):
        net = bidirectional if both_ways else recurrence
        x, end = net(x, state, w, cell=cell, lengths=lengths)
        ends.append(end)
    return x, ends


def _elman(g):
    def step(state, x, wx, wh, b):
        return (g(x @ wx + state[0] @ wh + b[None]),)

    return step


def _lstm(state, x, wx, wh, b):
    h, c = state
    i, f, g, o = jnp.split(x @ wx + h @ wh + b[None], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(state, x, wx, wh, b):
    (h,) = state
    xr, xz, xn = jnp.split(x @ wx + b[None], 3, axis=-1)
    ur, uz, un = jnp.split(wh, 3, axis=-1)
    r, z = jax.nn.sigmoid(xr + h @ ur), jax.nn.sigmoid(xz + h @ uz)
    n = jnp.tanh(xn + (r * h) @ un)
    return (z * h + (1 - z) * n,)


def _gru_reset_after(state, x, wx, wh, b, bn):
    (h,) = state
    xr, xz, xn = jnp.split(x @ wx + b[None], 3, axis=-1)
    hr, hz, hn = jnp.split(h @ wh, 3, axis=-1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + r * (hn + bn[None]))
    return (z * h + (1 - z) * n,)


_CELLS = {
    "tanh": _elman(jnp.tanh),
    "relu": _elman(jax.nn.relu),
    "lstm": _lstm,
    "gru": _gru,
    "gru_reset_after": _gru_reset_after,
}
