"""Recurrent nets, backpropagated through time: the reverse scan makes only the deltas.

Every weight gradient is one product of all inputs and all deltas after the scan. Inside, and in
what is kept for the backward, float16 and bfloat16 are carried in float32.
"""

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import widen
from handgrad.manual.op import op

__all__ = ["gru", "lstm", "rnn"]

_SLOPES = {  # activation and its derivative in terms of its value
    "tanh": (jnp.tanh, lambda h: (1 - h) * (1 + h)),
    "relu": (lambda a: jnp.maximum(a, 0), lambda h: (h > 0).astype(h.dtype)),
}


@op
def rnn(x, h0, wx, wh, b, *, activation="tanh"):
    r"""hₜ = g(xₜ Wx + hₜ₋₁ Wh + b), the Elman net.

    x: (batch, time, in). h0: (batch, hidden). wx: (in, hidden). wh: (hidden, hidden).
    b: (hidden,). activation: g, "tanh" or "relu". Returns all hₜ: (batch, time, hidden).
    Backward, from the last step to the first, with δₜ the cotangent of the argument of g:
        δₜ = (h̄ₜ + δₜ₊₁ Whᵀ) ∘ g′,   then   W̄x = Σₜ xₜᵀ δₜ,   W̄h = Σₜ hₜ₋₁ᵀ δₜ,   b̄ = Σₜ δₜ,
        x̄ₜ = δₜ Wxᵀ,   h̄₀ = δ₁ Whᵀ.   g′ is 1 − hₜ² for tanh, [hₜ > 0] for relu
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.175–14.185; Elman (1990).
    """
    g, _ = _activation(activation)
    dtype = x.dtype
    x, h0, wx, wh, b = map(widen, (x, h0, wx, wh, b))
    inputs = x @ wx + b[None, None, :]  # (batch, time, hidden)

    def step(h, a):
        h = g(a + h @ wh)
        return h, h

    _, h = lax.scan(step, h0, _swap(inputs))
    h = _swap(h)  # (batch, time, hidden)
    return h.astype(dtype), (x, h0, wx, wh, h)


@rnn.backward
def _(residuals, dh, *, activation):
    x, h0, wx, wh, h = residuals
    _, slope = _activation(activation)
    dh = widen(dh)

    def step(carried, now):
        dh, h = now
        delta = (dh + carried) * slope(h)
        return delta @ wh.T, delta

    dh0, delta = lax.scan(step, jnp.zeros_like(h0), (_swap(dh), _swap(h)), reverse=True)
    delta = _swap(delta)  # (batch, time, hidden)
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
        ō = h̄ₜ ∘ tanh cₜ,   δₒ = ō ∘ o(1 − o),   c̄ₜ += h̄ₜ ∘ o ∘ (1 − tanh² cₜ) + δₒ ∘ pₒ
        δᵢ = c̄ₜ ∘ g ∘ i(1 − i),   δ_f = c̄ₜ ∘ cₜ₋₁ ∘ f(1 − f),   δ_g = c̄ₜ ∘ i ∘ (1 − g²)
        c̄ₜ₋₁ += c̄ₜ ∘ f + δᵢ ∘ pᵢ + δ_f ∘ p_f,   h̄ₜ₋₁ += δ Whᵀ,   then the weights as in `rnn`
    Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    dtype = x.dtype
    x, h0, c0, wx, wh, b = map(widen, (x, h0, c0, wx, wh, b))
    p = _peepholes(peepholes, h0)
    inputs = x @ wx + b[None, None, :]  # (batch, time, 4 hidden)

    def step(state, a):
        h, c = state
        i, f, g, o = jnp.split(a + h @ wh, 4, -1)
        i, f, g = jax.nn.sigmoid(i + p[:1] * c), jax.nn.sigmoid(f + p[1:2] * c), jnp.tanh(g)
        c = f * c + i * g
        o = jax.nn.sigmoid(o + p[2:] * c)
        h = o * jnp.tanh(c)
        return (h, c), (h, c, i, f, g, o)

    _, kept = lax.scan(step, (h0, c0), _swap(inputs))
    h, c, *gates = map(_swap, kept)
    return (h.astype(dtype), c.astype(dtype)), (x, h0, c0, wx, wh, peepholes, h, c, gates)


@lstm.backward
def _(residuals, dy):
    x, h0, c0, wx, wh, peepholes, h, c, (i, f, g, o) = residuals
    p = _peepholes(peepholes, h0)
    dh, dc = map(widen, dy)
    c_before = _delayed(c0, c)

    def step(carried, now):
        dh, dc, c, c_before, i, f, g, o = now
        dh, dc = dh + carried[0], dc + carried[1]
        t = jnp.tanh(c)
        do = dh * t * o * (1 - o)
        dc = dc + dh * o * (1 - t * t) + do * p[2:]
        di = dc * g * i * (1 - i)
        df = dc * c_before * f * (1 - f)
        dg = dc * i * (1 - g * g)
        delta = jnp.concatenate([di, df, dg, do], -1)
        return (delta @ wh.T, dc * f + di * p[:1] + df * p[1:2]), delta

    start = jnp.zeros_like(h0), jnp.zeros_like(c0)
    steps = tuple(map(_swap, (dh, dc, c, c_before, i, f, g, o)))
    (dh0, dc0), delta = lax.scan(step, start, steps, reverse=True)
    delta = _swap(delta)
    dx, dh0, dwx, dwh, db = _gradients(x, _delayed(h0, h), delta, wx, dh0)
    if peepholes is None:
        return dx, dh0, dc0, dwx, dwh, db, None
    di, df, _, do = jnp.split(delta, 4, -1)
    dp = [(d * seen).sum((0, 1)) for d, seen in ((di, c_before), (df, c_before), (do, c))]
    return dx, dh0, dc0, dwx, dwh, db, jnp.stack(dp)


@op
def gru(x, h0, wx, wh, b):
    r"""r, z = σ(·);  n = tanh(xₜ Wₙ + (r ∘ hₜ₋₁) Uₙ + bₙ);  hₜ = z ∘ hₜ₋₁ + (1 − z) ∘ n.

    x: (batch, time, in). h0: (batch, hidden). wx: (in, 3 hidden). wh: (hidden, 3 hidden).
    b: (3 hidden,), in blocks r, z, n; the reset gate acts before the product, as in the paper.
    Returns all hₜ: (batch, time, hidden).
    Backward, from the last step to the first:
        δₙ = h̄ₜ ∘ (1 − z) ∘ (1 − n²),   δ_z = h̄ₜ ∘ (hₜ₋₁ − n) ∘ z(1 − z)
        q = δₙ Uₙᵀ, the cotangent of r ∘ hₜ₋₁,   δᵣ = q ∘ hₜ₋₁ ∘ r(1 − r)
        h̄ₜ₋₁ += h̄ₜ ∘ z + q ∘ r + δᵣ Uᵣᵀ + δ_z U_zᵀ,   then the weights as in `rnn`, save that
        Ūₙ = Σₜ (r ∘ hₜ₋₁)ᵀ δₙ
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014).
    """
    dtype = x.dtype
    x, h0, wx, wh, b = map(widen, (x, h0, wx, wh, b))
    hidden = h0.shape[-1]
    u_gates, u_n = wh[:, : 2 * hidden], wh[:, 2 * hidden :]
    inputs = x @ wx + b[None, None, :]  # (batch, time, 3 hidden)

    def step(h, a):
        r, z = jnp.split(jax.nn.sigmoid(a[:, : 2 * hidden] + h @ u_gates), 2, -1)
        n = jnp.tanh(a[:, 2 * hidden :] + (r * h) @ u_n)
        h = z * h + (1 - z) * n
        return h, (h, r, z, n)

    _, kept = lax.scan(step, h0, _swap(inputs))
    h, *gates = map(_swap, kept)
    return h.astype(dtype), (x, h0, wx, wh, h, gates)


@gru.backward
def _(residuals, dh):
    x, h0, wx, wh, h, (r, z, n) = residuals
    dh = widen(dh)
    hidden = h0.shape[-1]
    u_gates, u_n = wh[:, : 2 * hidden], wh[:, 2 * hidden :]
    h_before = _delayed(h0, h)

    def step(carried, now):
        dh, h, r, z, n = now
        dh = dh + carried
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h - n) * z * (1 - z)
        q = dn @ u_n.T
        dr = q * h * r * (1 - r)
        back = dh * z + q * r + jnp.concatenate([dr, dz], -1) @ u_gates.T
        return back, jnp.concatenate([dr, dz, dn], -1)

    steps = tuple(map(_swap, (dh, h_before, r, z, n)))
    dh0, delta = lax.scan(step, jnp.zeros_like(h0), steps, reverse=True)
    delta = _swap(delta)
    dx, dh0, dwx, _, db = _gradients(x, h_before, delta, wx, dh0)
    d_gates, dn = delta[..., : 2 * hidden], delta[..., 2 * hidden :]
    dwh = jnp.concatenate([_outer(h_before, d_gates), _outer(r * h_before, dn)], -1)
    return dx, dh0, dwx, dwh, db


def _gradients(x, h_before, delta, wx, dh0):
    """The cotangents of x, h0, wx, wh and b, out of all deltas (batch, time, gates)."""
    return delta @ wx.T, dh0, _outer(x, delta), _outer(h_before, delta), delta.sum((0, 1))


def _peepholes(given, h0):
    """(3, hidden), zero where there are none."""
    return jnp.zeros((3, h0.shape[-1]), h0.dtype) if given is None else widen(given)


def _outer(x, delta):
    """Σ over batch and time of xᵀ δ: (in, gates)."""
    return jnp.einsum("bti,btj->ij", x, delta)


def _delayed(first, sequence):
    """(batch, time, ·) one step later: `first`, then all but the last."""
    return jnp.concatenate([first[:, None], sequence[:, :-1]], 1)


def _swap(x):
    return jnp.swapaxes(x, 0, 1)


def _activation(name: str):
    if name not in _SLOPES:
        raise ValueError(f"activation must be one of {', '.join(_SLOPES)}; got {name!r}")
    return _SLOPES[name]
