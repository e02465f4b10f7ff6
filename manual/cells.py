"""One step of a recurrent net and its backward: what `sequences` runs over time.

A cell takes (state before, a, weights), where a = xₜ Wx + b is what the input has to say, to the
state after and what the backward needs; its backward takes the cotangent of the state after to
that of the state before, of a (the δ of the step), and of whatever else is multiplied by Wh.
What is kept is what the cotangents are multiplied by, slopes of σ and tanh out of their arguments:
the backward is then nothing but products, and 1 − σ and 1 − tanh² of a shut gate have their digits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from handgrad.manual.numerics import outer, sigmoid_and_slope, tanh_and_slope

__all__ = ["CELLS", "Cell"]


class Cell(NamedTuple):
    gates: int  # columns of Wx, Wh and b, in units of hidden
    states: tuple[str, ...]  # h first
    weights: tuple[str, ...]
    step: Callable  # (state, a, weights) -> (state, kept)
    back: Callable  # (dstate, kept, h before, weights) -> (dstate before, δ of a, δ of h Wh)
    read: Callable  # (h before, kept, δ of h Wh) -> W̄h, over all steps at once


def _rnn(g_and_slope: Callable) -> Cell:
    """h = g(a + h₋ Wh);   δ = h̄ ∘ g′,   h̄₋ = δ Whᵀ."""

    def step(state, a, weights):
        (h,), (_, wh, _) = state, weights
        g, slope = g_and_slope(a + h @ wh)
        return (g,), (slope,)

    def back(dstate, kept, before, weights):
        (dh,), (slope,), (_, wh, _) = dstate, kept, weights
        delta = dh * slope
        return (delta @ wh.T,), delta, None

    return Cell(1, ("h",), ("wx", "wh", "b"), step, back, _read)


def _lstm_step(state, a, weights):
    """i, f, o = σ(·), g = tanh(·) of a + h₋ Wh;   c = f ∘ c₋ + i ∘ g,   h = o ∘ tanh c."""
    (h, before), (_, wh, _) = state, weights
    i, f, g, o = jnp.split(a + h @ wh, 4, -1)
    (i, di), (f, df), (o, do) = map(sigmoid_and_slope, (i, f, o))
    g, dg = tanh_and_slope(g)
    c = f * before + i * g
    t, dt = tanh_and_slope(c)
    return (o * t, c), (g * di, before * df, i * dg, t * do, o * dt, f)


def _lstm_back(dstate, kept, before, weights):
    """δₒ = h̄ ∘ tanh c ∘ o′,   c̄ += h̄ ∘ o ∘ tanh′ c,   and through c to the other gates."""
    (dh, dc), (to_i, to_f, to_g, to_o, to_c, f), (_, wh, _) = dstate, kept, weights
    dc = dc + dh * to_c
    delta = jnp.concatenate([dc * to_i, dc * to_f, dc * to_g, dh * to_o], -1)
    return (delta @ wh.T, dc * f), delta, None


def _gru_step(state, a, weights):
    """r, z = σ(·);   n = tanh(aₙ + (r ∘ h₋) Uₙ),   h = z ∘ h₋ + (1 − z) ∘ n."""
    (h,), (_, wh, _) = state, weights
    size = h.shape[-1]
    a_r, a_z = jnp.split(a[:, : 2 * size] + h @ wh[:, : 2 * size], 2, -1)
    kept_r = _fold(a_r)
    (r, _), (z, shut) = _unfold(kept_r), _unfold(_fold(a_z))
    n, dn = tanh_and_slope(a[:, 2 * size :] + (r * h) @ wh[:, 2 * size :])
    return (z * h + shut * n,), (shut * dn, (h - n) * z * shut, z, kept_r)


def _gru_back(dstate, kept, h, weights):
    """q = δₙ Uₙᵀ is the cotangent of r ∘ h₋,   δᵣ = q ∘ h₋ ∘ r(1 − r),   h̄₋ = h̄ ∘ z + q ∘ r + …"""
    (dh,), (to_n, to_z, z, kept_r), (_, wh, _) = dstate, kept, weights
    size = h.shape[-1]
    r, not_r = _unfold(kept_r)
    dn = dh * to_n
    q = dn @ wh[:, 2 * size :].T
    gates = jnp.concatenate([q * h * r * not_r, dh * to_z], -1)
    delta = jnp.concatenate([gates, dn], -1)
    return (dh * z + q * r + gates @ wh[:, : 2 * size].T,), delta, None


def _gru_read(h, kept, delta):
    """Ūₙ reads r ∘ h₋, the others h₋."""
    size = h.shape[-1]
    r, _ = _unfold(kept[3])
    gates, dn = delta[..., : 2 * size], delta[..., 2 * size :]
    return jnp.concatenate([outer(h, gates), outer(r * h, dn)], -1)


def _gru_after_step(state, a, weights):
    """r, z = σ(·);   m = h₋ Uₙ + bₙ,   n = tanh(aₙ + r ∘ m),   h = z ∘ h₋ + (1 − z) ∘ n."""
    (h,), (_, wh, _, bn) = state, weights
    size = h.shape[-1]
    u = h @ wh  # one product for all three: the point of resetting after it
    a_r, a_z = jnp.split(a[:, : 2 * size] + u[:, : 2 * size], 2, -1)
    (r, not_r), (z, shut) = _unfold(_fold(a_r)), _unfold(_fold(a_z))
    m = u[:, 2 * size :] + bn[None, :]
    n, dn = tanh_and_slope(a[:, 2 * size :] + r * m)
    return (z * h + shut * n,), (shut * dn, (h - n) * z * shut, m * r * not_r, z, r)


def _gru_after_back(dstate, kept, before, weights):
    """δᵣ = δₙ ∘ m ∘ r(1 − r);   m has the cotangent δₙ ∘ r, and with it go Uₙ, bₙ and h₋."""
    (dh,), (to_n, to_z, to_r, z, r), (_, wh, _, _) = dstate, kept, weights
    dn = dh * to_n
    gates = [dn * to_r, dh * to_z]
    inner = jnp.concatenate([*gates, dn * r], -1)  # of h Wh, with m in the last block
    return (dh * z + inner @ wh.T,), jnp.concatenate([*gates, dn], -1), inner


def _fold(z):
    """The smaller of σ(z) and 1 − σ(z), negative where it is σ: one number for two to be kept."""
    e = jnp.exp(jnp.where(z < 0, z, -z))
    smaller = jnp.maximum(e / (1 + e), jnp.finfo(z.dtype).tiny)  # zero would have no sign
    return jnp.where(z < 0, -smaller, smaller)


def _unfold(kept):
    """σ and 1 − σ, both with all their digits."""
    smaller = jnp.abs(kept)
    larger = 1 - smaller
    return jnp.where(kept < 0, smaller, larger), jnp.where(kept < 0, larger, smaller)


def _read(h, kept, delta):
    """W̄h = Σ h₋ᵀ δ."""
    return outer(h, delta)


CELLS: dict[str, Cell] = {
    "tanh": _rnn(tanh_and_slope),
    "relu": _rnn(lambda z: (jnp.maximum(z, 0), (z > 0).astype(z.dtype))),
    "lstm": Cell(4, ("h", "c"), ("wx", "wh", "b"), _lstm_step, _lstm_back, _read),
    "gru": Cell(3, ("h",), ("wx", "wh", "b"), _gru_step, _gru_back, _gru_read),
    "gru_reset_after": Cell(
        3, ("h",), ("wx", "wh", "b", "bn"), _gru_after_step, _gru_after_back, _read
    ),
}
