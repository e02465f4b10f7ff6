"""Recurrent nets, backpropagated through time: the reverse scan makes only the deltas.

The arguments of the gates are kept rather than their values: σ′ and tanh′ have no digits left in
1 − σ and 1 − tanh² once a gate is shut, and they are computed for all steps at once before the
scan. Every weight gradient is one product of all inputs and all deltas after it. Inside, and in
what is kept for the backward, float16 and bfloat16 are carried in float32.
"""

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual import activations
from handgrad.manual.numerics import sigmoid_and_slope, tanh_slope, widen
from handgrad.manual.op import Op, op

__all__ = ["gru", "lstm", "rnn"]

_ACTIVATIONS: dict[str, Op] = {"tanh": activations.tanh, "relu": activations.relu}


@op
def rnn(x, h0, wx, wh, b, *, activation="tanh"):
    r"""hₜ = g(xₜ Wx + hₜ₋₁ Wh + b), the Elman net.

    x: (batch, time, in). h0: (batch, hidden). wx: (in, hidden). wh: (hidden, hidden).
    b: (hidden,). activation: g, "tanh" or "relu". Returns all hₜ: (batch, time, hidden).
    Backward, from the last step to the first, with δₜ the cotangent of the argument of g:
        δₜ = (h̄ₜ + δₜ₊₁ Whᵀ) ∘ g′,   then   W̄x = Σₜ xₜᵀ δₜ,   W̄h = Σₜ hₜ₋₁ᵀ δₜ,   b̄ = Σₜ δₜ,
        x̄ₜ = δₜ Wxᵀ,   h̄₀ = δ₁ Whᵀ.   g′ is that of `tanh` (1 − hₜ²) or of `relu` ([hₜ > 0])
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.175–14.185; Elman (1990).
    """
    g = _activation(activation)
    dtype = x.dtype
    x, h0, wx, wh, b = map(widen, (x, h0, wx, wh, b))
    inputs = _swap(x) @ wx + b[None, None, :]  # (time, batch, hidden)

    def step(h, a):
        h, kept = g.forward(a + h @ wh)
        return h, (h, kept)

    _, (h, kept) = lax.scan(step, h0, inputs)
    return _swap(h).astype(dtype), (x, h0, wx, wh, h, kept)


@rnn.backward
def _(residuals, dh, *, activation):
    x, h0, wx, wh, h, kept = residuals
    dh = _swap(widen(dh))
    (slope,) = _activation(activation).pullback(kept, jnp.ones_like(dh))  # g′ of all steps

    def step(carried, now):
        dh, slope = now
        delta = (dh + carried) * slope
        return delta @ wh.T, delta

    dh0, delta = lax.scan(step, jnp.zeros_like(h0), (dh, slope), reverse=True)
    return _gradients(x, _delayed(h0, h), delta, wx, dh0)


@op
def lstm(x, h0, c0, wx, wh, b, peepholes):
    r"""cₜ = f ∘ cₜ₋₁ + i ∘ g,  hₜ = o ∘ tanh cₜ,  i, f, o = σ(a), g = tanh a.

    The arguments of the gates are a = xₜ Wx + hₜ₋₁ Wh + b, in blocks i, f, g, o.
    x: (batch, time, in). h0, c0: (batch, hidden). wx: (in, 4 hidden). wh: (hidden, 4 hidden).
    b: (4 hidden,). Returns (all hₜ, all cₜ), each (batch, time, hidden).
    peepholes: (3, hidden) or None: the rows pᵢ, p_f, pₒ let the gates see the cell, pᵢ ∘ cₜ₋₁,
    p_f ∘ cₜ₋₁ and pₒ ∘ cₜ (Gers and Schmidhuber 2000).
    Backward, from the last step to the first, with δ the cotangents of the gates' arguments:
        δₒ = h̄ₜ ∘ tanh cₜ ∘ σ′(aₒ),   c̄ₜ += h̄ₜ ∘ o ∘ tanh′(cₜ) + δₒ ∘ pₒ
        δᵢ = c̄ₜ ∘ g ∘ σ′(aᵢ),   δ_f = c̄ₜ ∘ cₜ₋₁ ∘ σ′(a_f),   δ_g = c̄ₜ ∘ i ∘ tanh′(a_g)
        c̄ₜ₋₁ += c̄ₜ ∘ f + δᵢ ∘ pᵢ + δ_f ∘ p_f,   h̄ₜ₋₁ += δ Whᵀ,   then the weights as in `rnn`
    Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    dtype = x.dtype
    x, h0, c0, wx, wh, b = map(widen, (x, h0, c0, wx, wh, b))
    p = _peepholes(peepholes, h0)
    inputs = _swap(x) @ wx + b[None, None, :]  # (time, batch, 4 hidden)

    def step(state, a):
        h, c = state
        i, f, g, o = jnp.split(a + h @ wh, 4, -1)
        i, f = i + p[:1] * c, f + p[1:2] * c
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        o = o + p[2:] * c
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), (h, c, i, f, g, o)

    _, (h, c, *a) = lax.scan(step, (h0, c0), inputs)
    y = _swap(h).astype(dtype), _swap(c).astype(dtype)
    return y, (x, h0, c0, wx, wh, peepholes, h, c, a)


@lstm.backward
def _(residuals, dy):
    x, h0, c0, wx, wh, peepholes, h, c, (a_i, a_f, a_g, a_o) = residuals
    p = _peepholes(peepholes, h0)
    dh, dc = (_swap(widen(d)) for d in dy)
    c_before = _delayed(c0, c)
    (i, slope_i), (f, slope_f), (o, slope_o) = map(sigmoid_and_slope, (a_i, a_f, a_o))
    # what the cotangent of the cell is multiplied by on its way to i, f and g; that of h to o and c
    to_i, to_f, to_g = jnp.tanh(a_g) * slope_i, c_before * slope_f, i * tanh_slope(a_g)
    to_o, to_c = jnp.tanh(c) * slope_o, o * tanh_slope(c)

    def step(carried, now):
        dh, dc, to_i, to_f, to_g, to_o, to_c, f = now
        dh, dc = dh + carried[0], dc + carried[1]
        do = dh * to_o
        dc = dc + dh * to_c + do * p[2:]
        di, df = dc * to_i, dc * to_f
        delta = jnp.concatenate([di, df, dc * to_g, do], -1)
        return (delta @ wh.T, dc * f + di * p[:1] + df * p[1:2]), delta

    start = jnp.zeros_like(h0), jnp.zeros_like(c0)
    steps = dh, dc, to_i, to_f, to_g, to_o, to_c, f
    (dh0, dc0), delta = lax.scan(step, start, steps, reverse=True)
    dx, dh0, dwx, dwh, db = _gradients(x, _delayed(h0, h), delta, wx, dh0)
    if peepholes is None:
        return dx, dh0, dc0, dwx, dwh, db, None
    di, df, _, do = jnp.split(delta, 4, -1)
    dp = [(d * seen).sum((0, 1)) for d, seen in ((di, c_before), (df, c_before), (do, c))]
    return dx, dh0, dc0, dwx, dwh, db, jnp.stack(dp)


@op
def gru(x, h0, wx, wh, b):
    r"""r, z = σ(aᵣ), σ(a_z);  n = tanh aₙ;  hₜ = z ∘ hₜ₋₁ + (1 − z) ∘ n.

    The arguments are a = xₜ Wx + hₜ₋₁ Wh + b for r and z, and aₙ = xₜ Wₙ + (r ∘ hₜ₋₁) Uₙ + bₙ.
    x: (batch, time, in). h0: (batch, hidden). wx: (in, 3 hidden). wh: (hidden, 3 hidden).
    b: (3 hidden,), in blocks r, z, n; the reset gate acts before the product, as in the paper.
    Returns all hₜ: (batch, time, hidden).
    Backward, from the last step to the first:
        δₙ = h̄ₜ ∘ σ(−a_z) ∘ tanh′(aₙ),   δ_z = h̄ₜ ∘ (hₜ₋₁ − n) ∘ σ′(a_z)
        q = δₙ Uₙᵀ, the cotangent of r ∘ hₜ₋₁,   δᵣ = q ∘ hₜ₋₁ ∘ σ′(aᵣ)
        h̄ₜ₋₁ += h̄ₜ ∘ z + q ∘ r + δᵣ Uᵣᵀ + δ_z U_zᵀ,   then the weights as in `rnn`, save that
        Ūₙ = Σₜ (r ∘ hₜ₋₁)ᵀ δₙ
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014).
    """
    dtype = x.dtype
    x, h0, wx, wh, b = map(widen, (x, h0, wx, wh, b))
    hidden = h0.shape[-1]
    u_gates, u_n = wh[:, : 2 * hidden], wh[:, 2 * hidden :]
    inputs = _swap(x) @ wx + b[None, None, :]  # (time, batch, 3 hidden)

    def step(h, a):
        a_r, a_z = jnp.split(a[:, : 2 * hidden] + h @ u_gates, 2, -1)
        a_n = a[:, 2 * hidden :] + (jax.nn.sigmoid(a_r) * h) @ u_n
        z = jax.nn.sigmoid(a_z)
        h = z * h + (1 - z) * jnp.tanh(a_n)
        return h, (h, a_r, a_z, a_n)

    _, (h, *a) = lax.scan(step, h0, inputs)
    return _swap(h).astype(dtype), (x, h0, wx, wh, h, a)


@gru.backward
def _(residuals, dh):
    x, h0, wx, wh, h, (a_r, a_z, a_n) = residuals
    dh = _swap(widen(dh))
    hidden = h0.shape[-1]
    u_gates, u_n = wh[:, : 2 * hidden], wh[:, 2 * hidden :]
    h_before = _delayed(h0, h)
    (r, slope_r), (z, slope_z) = map(sigmoid_and_slope, (a_r, a_z))
    to_n = jax.nn.sigmoid(-a_z) * tanh_slope(a_n)
    to_z, to_r = (h_before - jnp.tanh(a_n)) * slope_z, h_before * slope_r

    def step(carried, now):
        dh, to_r, to_z, to_n, r, z = now
        dh = dh + carried
        dn, dz = dh * to_n, dh * to_z
        q = dn @ u_n.T
        dr = q * to_r
        back = dh * z + q * r + jnp.concatenate([dr, dz], -1) @ u_gates.T
        return back, jnp.concatenate([dr, dz, dn], -1)

    steps = dh, to_r, to_z, to_n, r, z
    dh0, delta = lax.scan(step, jnp.zeros_like(h0), steps, reverse=True)
    dx, dh0, dwx, _, db = _gradients(x, h_before, delta, wx, dh0)
    d_gates, dn = delta[..., : 2 * hidden], delta[..., 2 * hidden :]
    dwh = jnp.concatenate([_outer(h_before, d_gates), _outer(r * h_before, dn)], -1)
    return dx, dh0, dwx, dwh, db


def _gradients(x, h_before, delta, wx, dh0):
    """The cotangents of x, h0, wx, wh and b, out of all deltas (time, batch, gates)."""
    dx = _swap(delta @ wx.T)
    return dx, dh0, _outer(_swap(x), delta), _outer(h_before, delta), delta.sum((0, 1))


def _peepholes(given, h0):
    """(3, hidden), zero where there are none."""
    return jnp.zeros((3, h0.shape[-1]), h0.dtype) if given is None else widen(given)


def _outer(x, delta):
    """Σ over time and batch of xᵀ δ: (in, gates)."""
    return jnp.einsum("tbi,tbj->ij", x, delta)


def _delayed(first, sequence):
    """(time, batch, ·) one step later: `first`, then all but the last."""
    return jnp.concatenate([first[None], sequence[:-1]])


def _swap(x):
    """From (batch, time, ·) to (time, batch, ·), in which a scan runs, or back."""
    return jnp.swapaxes(x, 0, 1)


def _activation(name: str) -> Op:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}; got {name!r}")
    return _ACTIVATIONS[name]
