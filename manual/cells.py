"""One step of a recurrent net and its backward: what `sequences` runs over time.

A cell takes (state before, a, weights), where a = xₜ Wx + b is what the input has to say, to the
state after and what the backward needs; its backward takes the cotangent of the state after to
that of the state before, of a (the δ of the step), and of whatever else is multiplied by Wh.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.manual.numerics import outer

__all__ = ["CELLS", "Cell"]


class Cell(NamedTuple):
    gates: int  # columns of Wx, Wh and b, in units of hidden
    states: tuple[str, ...]  # h first
    weights: tuple[str, ...]
    step: Callable  # (state, a, weights) -> (state, kept)
    back: Callable  # (dstate, kept, state before, weights) -> (dstate before, δ of a, δ of h Wh)
    read: Callable  # (h before, kept, δ of h Wh) -> W̄h, over all steps at once


def _rnn(g: Callable, slope: Callable) -> Cell:
    """h = g(a + h₋ Wh);   δ = h̄ ∘ g′,   h̄₋ = δ Whᵀ;   g′ is known by h."""

    def step(state, a, weights):
        (h,), (_, wh, _) = state, weights
        h = g(a + h @ wh)
        return (h,), (h,)

    def back(dstate, kept, before, weights):
        (dh,), (h,), (_, wh, _) = dstate, kept, weights
        delta = dh * slope(h)
        return (delta @ wh.T,), delta, None

    return Cell(1, ("h",), ("wx", "wh", "b"), step, back, _read)


def _lstm_step(state, a, weights):
    """i, f, o = σ(·), g = tanh(·) of a + h₋ Wh;   c = f ∘ c₋ + i ∘ g,   h = o ∘ tanh c."""
    (h, c), (_, wh, _) = state, weights
    i, f, g, o = jnp.split(a + h @ wh, 4, -1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * c + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o)


def _lstm_back(dstate, kept, before, weights):
    """δₒ = h̄ ∘ tanh c ∘ o′,   c̄ += h̄ ∘ o ∘ tanh′ c,   and through c to the other gates."""
    (dh, dc), (i, f, g, o), (_, c_before), (_, wh, _) = dstate, kept, before, weights
    t = jnp.tanh(f * c_before + i * g)
    dc = dc + dh * o * (1 - t) * (1 + t)
    di, df = dc * g * i * (1 - i), dc * c_before * f * (1 - f)
    dg, do = dc * i * (1 - g) * (1 + g), dh * t * o * (1 - o)
    delta = jnp.concatenate([di, df, dg, do], -1)
    return (delta @ wh.T, dc * f), delta, None


def _gru_step(state, a, weights):
    """r, z = σ(·);   n = tanh(aₙ + (r ∘ h₋) Uₙ),   h = z ∘ h₋ + (1 − z) ∘ n."""
    (h,), (_, wh, _) = state, weights
    size = h.shape[-1]
    r, z = jnp.split(jax.nn.sigmoid(a[:, : 2 * size] + h @ wh[:, : 2 * size]), 2, -1)
    n = jnp.tanh(a[:, 2 * size :] + (r * h) @ wh[:, 2 * size :])
    return (z * h + (1 - z) * n,), (r, z, n)


def _gru_back(dstate, kept, before, weights):
    """q = δₙ Uₙᵀ is the cotangent of r ∘ h₋,   δᵣ = q ∘ h₋ ∘ r(1 − r),   h̄₋ = h̄ ∘ z + q ∘ r + …"""
    (dh,), (r, z, n), (h,), (_, wh, _) = dstate, kept, before, weights
    size = h.shape[-1]
    dn = dh * (1 - z) * (1 - n) * (1 + n)
    dz = dh * (h - n) * z * (1 - z)
    q = dn @ wh[:, 2 * size :].T
    gates = jnp.concatenate([q * h * r * (1 - r), dz], -1)
    delta = jnp.concatenate([gates, dn], -1)
    return (dh * z + q * r + gates @ wh[:, : 2 * size].T,), delta, None


def _gru_read(h_before, kept, delta):
    """Ūₙ reads r ∘ h₋, the others h₋."""
    size = h_before.shape[-1]
    dn = outer(kept[0] * h_before, delta[..., 2 * size :])
    return jnp.concatenate([outer(h_before, delta[..., : 2 * size]), dn], -1)


def _gru_after_step(state, a, weights):
    """r, z = σ(·);   m = h₋ Uₙ + bₙ,   n = tanh(aₙ + r ∘ m),   h = z ∘ h₋ + (1 − z) ∘ n."""
    (h,), (_, wh, _, bn) = state, weights
    size = h.shape[-1]
    u = h @ wh  # one product for all three: the point of resetting after it
    r, z = jnp.split(jax.nn.sigmoid(a[:, : 2 * size] + u[:, : 2 * size]), 2, -1)
    m = u[:, 2 * size :] + bn[None, :]
    n = jnp.tanh(a[:, 2 * size :] + r * m)
    return (z * h + (1 - z) * n,), (r, z, n, m)


def _gru_after_back(dstate, kept, before, weights):
    """δᵣ = δₙ ∘ m ∘ r(1 − r);   m has the cotangent δₙ ∘ r, and with it go Uₙ, bₙ and h₋."""
    (dh,), (r, z, n, m), (h,), (_, wh, _, _) = dstate, kept, before, weights
    dn = dh * (1 - z) * (1 - n) * (1 + n)
    dz = dh * (h - n) * z * (1 - z)
    gates = [dn * m * r * (1 - r), dz]
    inner = jnp.concatenate([*gates, dn * r], -1)  # of h Wh, with m in the last block
    return (dh * z + inner @ wh.T,), jnp.concatenate([*gates, dn], -1), inner


def _read(h_before, kept, delta):
    """W̄h = Σ h₋ᵀ δ."""
    return outer(h_before, delta)


CELLS: dict[str, Cell] = {
    "tanh": _rnn(jnp.tanh, lambda h: (1 - h) * (1 + h)),
    "relu": _rnn(lambda z: jnp.maximum(z, 0), lambda h: (h > 0).astype(h.dtype)),
    "lstm": Cell(4, ("h", "c"), ("wx", "wh", "b"), _lstm_step, _lstm_back, _read),
    "gru": Cell(3, ("h",), ("wx", "wh", "b"), _gru_step, _gru_back, _gru_read),
    "gru_reset_after": Cell(
        3, ("h",), ("wx", "wh", "b", "bn"), _gru_after_step, _gru_after_back, _read
    ),
}
