"""Recurrent nets over padded sequences, in one direction or two, in layers, with final states.

The cells and their own backward are in `cells`, what goes on in time in `through_time`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.manual import through_time
from handgrad.manual.cells import CELLS
from handgrad.manual.masks import check_lengths
from handgrad.manual.op import op
from handgrad.manual.shapes import inside, one_of, whole

__all__ = ["bidirectional", "gru_reset_after", "recurrence", "stacked"]


@op
def recurrence(x, state, weights, *, cell="lstm", lengths=None, reverse=False, truncate=None):
    r"""stateₜ = cell(stateₜ₋₁, xₜ Wx + b):  all hₜ, and the state after the last step.

    x: (batch, time, in). state: a tuple of arrays (batch, hidden), what the cell starts from:
    (h,), or (h, c) for "lstm". weights: a tuple (wx, wh, b) of shapes (in, gates hidden),
    (hidden, gates hidden) and (gates hidden,). cell:
        "tanh", "relu"      one gate: h = g(a + h Wh), the Elman net
        "lstm"              four, i, f, g, o (see `lstm`)
        "gru"               three, r, z, n, the reset before the product (see `gru`)
        "gru_reset_after"   three, and bn (hidden,) as a fourth weight (see `gru_reset_after`)
    Returns (h, state): (batch, time, hidden), and a tuple like the one given.
    lengths: integers (batch,), each in [0, time]; a sequence ends there: from then on its h is
    zero, its state stays and its x is not looked at. reverse: from the last step to the first, so
    that a padded sequence begins at its own last step. truncate: a number of steps, or None; the
    gradient does not flow back from a block of so many steps into the one before (truncated
    backpropagation through time; it is then not the derivative of the output).
    Backward, against the order of the forward, with s̄ₜ the cotangent of stateₜ:
        s̄ₜ += h̄ₜ in its part h,   (s̄ₜ₋₁, δₜ) = the backward of the cell,   where it is alive at t;
        else s̄ₜ₋₁ = s̄ₜ and δₜ = 0.   s̄ₜ₋₁ = 0 between two blocks.   Then
        W̄x = Σₜ xₜᵀ δₜ,   W̄h = Σₜ hₜ₋₁ᵀ δₜ,   b̄ = Σₜ δₜ,   x̄ₜ = δₜ Wxᵀ
    (each cell in `cells` says what it multiplies by Wh). float16 and bfloat16 are carried in
    float32 from step to step.
    Raises ValueError for an unknown cell, shapes that do not fit, no step at all, and a length
    outside [0, time] that is known when the function is traced.
    Source: Elman (1990); Hochreiter and Schmidhuber (1997); Cho et al. (2014); Williams and Peng,
    "An efficient gradient-based algorithm for on-line training of recurrent network trajectories"
    (1990) for the truncation.
    """
    rules = _check(x, state, weights, cell, truncate)
    dtype, alive = x.dtype, _alive(x, lengths)
    cuts = _cuts(x.shape[1], truncate, reverse)
    if alive is not None:  # what is there past the end would come into W̄x, times zero
        x = jnp.where(jnp.broadcast_to(alive[..., None], x.shape), x, 0)
    x, state, weights = through_time.carried(x, state, weights)
    (h, *_), state, kept = through_time.forward(rules, x, state, weights, alive, cuts, reverse)
    h = h if alive is None else jnp.where(jnp.broadcast_to(alive[..., None], h.shape), h, 0)
    return (h.astype(dtype), tuple(s.astype(dtype) for s in state)), (kept, alive)


@recurrence.backward
def _(residuals, cotangents, *, cell, reverse, truncate):
    kept, alive = residuals
    dh, dstate = jax.tree.map(lambda d: d.astype(kept[0].dtype), cotangents)
    cuts = _cuts(dh.shape[1], truncate, reverse)
    return through_time.backward(CELLS[cell], kept, (dh,), dstate, alive, cuts, reverse)


@op
def gru_reset_after(x, h0, wx, wh, b, bn):
    r"""r, z = σ(·);  n = tanh(xₜ Wₙ + bₙ + r ∘ (hₜ₋₁ Uₙ + b′ₙ));  hₜ = z ∘ hₜ₋₁ + (1 − z) ∘ n.

    The reset gate acts after the product, so that all three gates share one: what cuDNN, and with
    it most libraries, calls a GRU; `gru` resets before, as the paper does.
    x: (batch, time, in). h0: (batch, hidden). wx: (in, 3 hidden). wh: (hidden, 3 hidden).
    b: (3 hidden,), in blocks r, z, n. bn: (hidden,), the b′ₙ inside. Returns all hₜ:
    (batch, time, hidden).
    Backward, from the last step to the first, with m = hₜ₋₁ Uₙ + b′ₙ:
        δₙ = h̄ₜ ∘ (1 − z) ∘ (1 − n²),   δ_z = h̄ₜ ∘ (hₜ₋₁ − n) ∘ z(1 − z),   m̄ = δₙ ∘ r,
        δᵣ = δₙ ∘ m ∘ r(1 − r),   h̄ₜ₋₁ += h̄ₜ ∘ z + δᵣ Uᵣᵀ + δ_z U_zᵀ + m̄ Uₙᵀ,
        then the weights as in `rnn`, save that Ūₙ = Σₜ hₜ₋₁ᵀ m̄ and b̄′ₙ = Σₜ m̄
    Raises ValueError for shapes that do not fit, and where there is no step at all.
    Source: Cho et al. (2014), version 1 of the preprint; Appleyard, Kociský and Blunsom,
    "Optimizing performance of recurrent neural networks on GPUs" (2016).
    """
    weights, cell = (wx, wh, b, bn), "gru_reset_after"
    through_time.check(cell, cell, CELLS[cell], x, (h0,), weights, ["h0"])
    (h, _), kept = recurrence.forward(x, (h0,), weights, cell=cell)
    return h, (kept, h0)


@gru_reset_after.backward
def _(residuals, dh):
    kept, h0 = residuals
    unused = (jnp.zeros_like(h0),)  # the final state is not given out, but as the last h
    dx, (dh0,), dweights = recurrence.pullback(kept, (dh, unused), cell="gru_reset_after")
    return dx, dh0, *dweights


@op
def bidirectional(x, states, weights, *, cell="lstm", lengths=None):
    r"""[h→ₜ, h←ₜ]: one net reads the sequence forwards, the other backwards, side by side.

    x: (batch, time, in). states, weights: pairs, of the net forwards and of the one backwards, each
    a tuple as `recurrence` takes it. cell, lengths: as there; the net backwards begins at the last
    step of each sequence. Returns (h, states): (batch, time, 2 hidden), and the pair of
    final states: forwards after its last step, backwards after the first.
    Backward: each net's own, of its half of h̄; x̄ is the sum of both.
    Raises ValueError as `recurrence` does, and if there are not two of each.
    Source: Schuster and Paliwal, "Bidirectional recurrent neural networks" (1997).
    """
    _two("bidirectional", "states", states)
    _two("bidirectional", "weights", weights)
    nets = []
    for k, way in enumerate(["forwards", "backwards"]):
        with inside(f"bidirectional: the net {way}"):
            net = x, states[k], weights[k]
            nets.append(recurrence.forward(*net, cell=cell, lengths=lengths, reverse=k == 1))
    ((ahead, end), kept), ((back, start), kept_back) = nets
    return (jnp.concatenate([ahead, back], -1), (end, start)), (kept, kept_back)


@bidirectional.backward
def _(residuals, cotangents, *, cell):
    dh, dends = cotangents
    halves = jnp.split(dh, [dends[0][0].shape[-1]], -1)
    (dx, dstate, dweights), (dx_back, dstate_back, dweights_back) = (
        recurrence.pullback(residuals[k], (halves[k], dends[k]), cell=cell, reverse=k == 1)
        for k in (0, 1)
    )
    return dx + dx_back, (dstate, dstate_back), (dweights, dweights_back)


@op
def stacked(x, states, weights, *, cell="lstm", lengths=None, both_ways=False):
    r"""h⁽ˡ⁾ = recurrence(h⁽ˡ⁻¹⁾),  h⁽⁰⁾ = x: each layer reads what the one below it gives out.

    x: (batch, time, in). states, weights: lists, of each layer what `recurrence` takes, or, with
    both_ways=True, what `bidirectional` takes; the `in` of a layer is the width of the h below.
    cell, lengths: as for `recurrence`. Returns (h, states): the h of the last layer,
    (batch, time, hidden or twice that), and the final states of all, a list.
    Backward: from the last layer to the first; the x̄ of each is the h̄ of the one below.
    Raises ValueError as those do, and where there are not as many states as weights.
    Source: Graves, Mohamed and Hinton, "Speech recognition with deep recurrent neural networks"
    (2013).
    """
    lists = isinstance(states, list) and isinstance(weights, list)
    if not lists or not weights or len(states) != len(weights):
        raise ValueError(
            "stacked: states and weights must be lists of at least one layer, one for each; "
            f"there came {_count(states)} states and {_count(weights)} weights"
        )
    layer, kept, ends = bidirectional if both_ways else recurrence, [], []
    for k, (state, w) in enumerate(zip(states, weights, strict=True)):
        with inside(f"stacked: layer {k}"):
            (x, end), of_layer = layer.forward(x, state, w, cell=cell, lengths=lengths)
        kept.append(of_layer)
        ends.append(end)
    return (x, ends), kept


@stacked.backward
def _(kept, cotangents, *, cell, both_ways):
    dh, dends = cotangents
    layer, dstates, dweights = bidirectional if both_ways else recurrence, [], []
    for of_layer, dend in zip(reversed(kept), reversed(dends), strict=True):
        dh, dstate, dw = layer.pullback(of_layer, (dh, dend), cell=cell)
        dstates.append(dstate)
        dweights.append(dw)
    return dh, dstates[::-1], dweights[::-1]


def _alive(x, lengths):
    """(batch, time): whether the sequence is still going on; None if all always are."""
    if lengths is None:
        return None
    batch, time = x.shape[:2]
    lengths = check_lengths("recurrence", lengths, (batch,), time)
    steps = lax.broadcasted_iota(jnp.int32, (batch, time), 1)
    return steps < jnp.broadcast_to(lengths[:, None], steps.shape)


def _cuts(time, truncate, reverse):
    """(time,): whether a new block begins at that step, whose past is not looked back into."""
    if truncate is None:
        return None
    order = np.arange(time)[::-1] if reverse else np.arange(time)
    return jnp.asarray((order % truncate == 0) & (order > 0))


def _count(given):
    return len(given) if isinstance(given, list) else f"a {type(given).__name__} of"


def _two(name, argument, given):
    if not isinstance(given, tuple) or len(given) != 2:
        of = f" of {len(given)}" if isinstance(given, tuple | list) else ""
        raise ValueError(
            f"{name}: {argument} must be a pair, of the net forwards and of the one backwards; "
            f"a {type(given).__name__}{of} came"
        )


def _check(x, state, weights, cell, truncate):
    """The rules of the cell."""
    one_of("recurrence", CELLS, cell=cell)
    rules = CELLS[cell]
    for argument, given, names in (
        ("state", state, rules.states),
        ("weights", weights, rules.weights),
    ):
        if not isinstance(given, tuple) or len(given) != len(names):
            raise ValueError(
                f"recurrence: {argument} must be a tuple ({', '.join(names)}) for the cell "
                f"{cell!r}; a {type(given).__name__} came, of {len(jax.tree.leaves(given))}"
            )
    through_time.check("recurrence", cell, rules, x, state, weights)
    if truncate is not None:
        whole("recurrence", truncate=truncate)
    return rules
