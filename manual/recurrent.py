"""Recurrent nets, backpropagated through time: the reverse scan makes only the deltas.

Every weight gradient is a product of many inputs and many deltas, of a block of steps at a time.
The steps are in `cells`, what goes on in time in `through_time`. Inside, and in what is kept,
float16 and bfloat16 are carried in float32.
"""

import jax.numpy as jnp

from handgrad.manual import through_time
from handgrad.manual.cells import CELLS, PEEPHOLES
from handgrad.manual.op import op
from handgrad.manual.sequences import recurrence
from handgrad.manual.shapes import one_of

__all__ = ["gru", "lstm", "rnn"]


@op
def rnn(x, h0, wx, wh, b, *, activation="tanh"):
    r"""hₜ = g(xₜ Wx + hₜ₋₁ Wh + b), the Elman net.

    x: (batch, time, in). h0: (batch, hidden). wx: (in, hidden). wh: (hidden, hidden).
    b: (hidden,). activation: g, "tanh" or "relu". Returns all hₜ: (batch, time, hidden).
    Backward, from the last step to the first, with δₜ the cotangent of the argument of g:
        δₜ = (h̄ₜ + δₜ₊₁ Whᵀ) ∘ g′,   then   W̄x = Σₜ xₜᵀ δₜ,   W̄h = Σₜ hₜ₋₁ᵀ δₜ,   b̄ = Σₜ δₜ,
        x̄ₜ = δₜ Wxᵀ,   h̄₀ = δ₁ Whᵀ.   g′ is that of `tanh` (1 − hₜ²) or of `relu` ([hₜ > 0])
    Raises ValueError for shapes that do not fit, where there is no step at all, and for another g.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.175–14.185; Elman (1990).
    """
    one_of("rnn", ("tanh", "relu"), activation=activation)
    through_time.check("rnn", activation, CELLS[activation], x, (h0,), (wx, wh, b), ["h0"])
    (h, _), kept = recurrence.forward(x, (h0,), (wx, wh, b), cell=activation)
    return h, (kept, h0)


@rnn.backward
def _(residuals, dh, *, activation):
    return _pullback(residuals, dh, activation)


@op
def lstm(x, h0, c0, wx, wh, b, peepholes=None):
    r"""cₜ = f ∘ cₜ₋₁ + i ∘ g,  hₜ = o ∘ tanh cₜ,  i, f, o = σ(a), g = tanh a.

    The arguments of the gates are a = xₜ Wx + hₜ₋₁ Wh + b, in blocks i, f, g, o.
    x: (batch, time, in). h0, c0: (batch, hidden). wx: (in, 4 hidden). wh: (hidden, 4 hidden).
    b: (4 hidden,). Returns (all hₜ, all cₜ), each (batch, time, hidden).
    peepholes: (3, hidden), or None for none: the rows pᵢ, p_f, pₒ let the gates see the cell,
    pᵢ ∘ cₜ₋₁, p_f ∘ cₜ₋₁ and pₒ ∘ cₜ (Gers and Schmidhuber 2000).
    Backward, from the last step to the first, with δ the cotangents of the gates' arguments:
        δₒ = h̄ₜ ∘ tanh cₜ ∘ σ′(aₒ),   c̄ₜ += h̄ₜ ∘ o ∘ tanh′(cₜ) + δₒ ∘ pₒ
        δᵢ = c̄ₜ ∘ g ∘ σ′(aᵢ),   δ_f = c̄ₜ ∘ cₜ₋₁ ∘ σ′(a_f),   δ_g = c̄ₜ ∘ i ∘ tanh′(a_g)
        c̄ₜ₋₁ += c̄ₜ ∘ f + δᵢ ∘ pᵢ + δ_f ∘ p_f,   h̄ₜ₋₁ += δ Whᵀ,   then the weights as in `rnn`
    Raises ValueError for shapes that do not fit, and where there is no step at all.
    Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """
    given = (x, (h0, c0), (wx, wh, b, *([] if peepholes is None else [peepholes])))
    cell = _lstm_cell(given[2])
    through_time.check("lstm", "lstm", cell, *given, ["h0", "c0"])
    states, _, kept = through_time.forward(cell, *through_time.carried(*given))
    return tuple(s.astype(x.dtype) for s in states), kept


@lstm.backward
def _(kept, dy):
    weights, nothing = kept[2], jnp.zeros_like(kept[1][0])
    dy = tuple(d.astype(nothing.dtype) for d in dy)
    dx, (dh0, dc0), dweights = through_time.backward(
        _lstm_cell(weights), kept, dy, (nothing, nothing)
    )
    return dx, dh0, dc0, *dweights, *([None] if len(weights) == 3 else [])


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
    Raises ValueError for shapes that do not fit, and where there is no step at all.
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014).
    """
    through_time.check("gru", "gru", CELLS["gru"], x, (h0,), (wx, wh, b), ["h0"])
    (h, _), kept = recurrence.forward(x, (h0,), (wx, wh, b), cell="gru")
    return h, (kept, h0)


@gru.backward
def _(residuals, dh):
    return _pullback(residuals, dh, "gru")


def _pullback(residuals, dh, cell):
    """The cotangents of x, h0, wx, wh and b; the final state is given out as the last h alone."""
    kept, h0 = residuals
    dx, (dh0,), dweights = recurrence.pullback(kept, (dh, (jnp.zeros_like(h0),)), cell=cell)
    return dx, dh0, *dweights


def _lstm_cell(weights):
    return CELLS["lstm"] if len(weights) == 3 else PEEPHOLES
