"""A multilayer perceptron whose whole gradient is written by hand, layer by layer."""

import difflib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.manual import activations, losses
from handgrad.manual.dense import affine
from handgrad.manual.numerics import widen
from handgrad.manual.op import Op, op
from handgrad.manual.shapes import inside, random_key, whole
from handgrad.manual.trees import arrays, entries, fit, found, listed

__all__ = ["init_mlp", "mlp", "mlp_loss"]

ACTIVATIONS: dict[str, Op] = {
    name: getattr(activations, name)
    for name in activations.__all__
    if name != "log_sum_exp"  # of a whole row one number, and no layer's output
}
LOSSES: dict[str, Op] = {name: getattr(losses, name) for name in losses.__all__}
_AS_ONE = {  # the last activation, and the loss of the probabilities that it gives
    ("sigmoid", "binary_cross_entropy"): "binary_cross_entropy_with_logits",
    ("softmax", "categorical_cross_entropy"): "softmax_cross_entropy",
}


@op
def mlp(params, x, *, activation="tanh", output_activation="identity"):
    r"""z⁽ˡ⁾ = y⁽ˡ⁻¹⁾ w⁽ˡ⁾ + b⁽ˡ⁾,  y⁽ˡ⁾ = δ(z⁽ˡ⁾),  y⁽⁰⁾ = x: the forward pass of any depth.

    params: a list of layers (w, b), w: (in, out), b: (out,) or None, each layer's `in` the
    `out` of the one before. x: (*batch, in of the first). Returns (*batch, out of the last).
    activation, output_activation: names from `manual.activations`, used with their defaults;
    the latter for the last layer.
    Backward, with the upstream ȳ⁽ˡ⁾ at the output given and
        ν⁽ˡ⁾ = δ′(z⁽ˡ⁾) ∘ ȳ⁽ˡ⁾
    (case 1, the output: with the ½Σ(ŷ − t)² above it this is νₒ = (ŷₒ − tₒ)δ′(zₒ); case 2, a
    hidden layer: νⱼ = δ′(zⱼ) Σₒ νₒwⱼₒ):
        w̄⁽ˡ⁾ᵢⱼ = Σ yᵢ⁽ˡ⁻¹⁾ νⱼ⁽ˡ⁾,   b̄⁽ˡ⁾ = Σ ν⁽ˡ⁾,   ȳ⁽ˡ⁻¹⁾ = ν⁽ˡ⁾ w⁽ˡ⁾ᵀ
    Raises ValueError for an empty params, an unknown name, and layers that do not fit.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.83–14.150; "Fundamentals of deep
    learning" (ch. 3), eq. 3.4–3.7 and 3.19–3.27.
    """
    check_layers("mlp", "params", params, x)
    y, kept = x, []
    deltas = _activations(params, activation, output_activation)
    for (w, b), delta in zip(params, deltas, strict=True):
        z, kept_affine = affine.forward(y, w, b)
        y, kept_delta = delta.forward(z)
        kept.append((kept_affine, kept_delta))
    return y, kept


@mlp.backward
def _(kept, dy, *, activation, output_activation):
    deltas = _activations(kept, activation, output_activation)
    dparams = []
    for (kept_affine, kept_delta), delta in zip(reversed(kept), reversed(deltas), strict=True):
        (nu,) = delta.pullback(kept_delta, dy)  # ν = δ′(z) ∘ upstream
        dy, dw, db = affine.pullback(kept_affine, nu)  # Σₒ νₒwⱼₒ,  νⱼyᵢ,  νⱼ
        dparams.append((dw, db))
    return dparams[::-1], dy


@op
def mlp_loss(
    params,
    x,
    targets,
    *,
    activation="tanh",
    output_activation="identity",
    loss="half_squared_error",
    reduction="sum",
):
    r"""J = Σₙ l(ŷ⁽ⁿ⁾, t⁽ⁿ⁾) with ŷ = mlp(params, x): the total loss, a scalar.

    params, x, activation, output_activation: as for `mlp`. targets: what the loss takes beside
    the output of the net. loss: a name from `manual.losses`. reduction: "sum" over everything
    that the loss returns (the total loss of the books), or "mean". Returns a scalar.
    `mlp_loss.value_and_gradient(params, x, targets, ...)` gives the loss and all gradients, by
    hand, in one call.
    Backward: the loss's cotangents with J̄ (over the number of terms, for the mean) as the
    cotangent of every term, then those of `mlp`. A sigmoid below the binary cross entropy, and a
    softmax below the categorical one, are one with it: νₒ = ŷₒ − tₒ, of which nothing is lost or
    overflows where a probability is rounded to 1.
    Raises ValueError for unknown names.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.10 and 3.18; "The Math Behind Deep
    Learning" (ch. 14), eq. 14.145–14.167.
    """
    output_activation, loss = _as_one(output_activation, loss)
    check_layers("mlp_loss", "params", params, x)
    reduce = _named("reduction", reduction, {"sum": jnp.sum, "mean": jnp.mean})
    y, kept_mlp = mlp.forward(params, x, activation=activation, output_activation=output_activation)
    arrays("mlp_loss", targets=targets)
    with inside("mlp_loss: the loss, by the output of the net and the targets"):
        terms, kept_loss = LOSSES[loss].forward(y, targets)
    return reduce(widen(terms)).astype(terms.dtype), (kept_mlp, kept_loss, terms)


@mlp_loss.backward
def _(residuals, dy, *, activation, output_activation, loss, reduction):
    output_activation, loss = _as_one(output_activation, loss)
    kept_mlp, kept_loss, terms = residuals  # terms only for their shape and number
    share = dy / terms.size if reduction == "mean" else dy
    dterms = jnp.broadcast_to(share, terms.shape)
    doutput, dtargets = LOSSES[loss].pullback(kept_loss, dterms)
    dparams, dx = mlp.pullback(
        kept_mlp, doutput, activation=activation, output_activation=output_activation
    )
    return dparams, dx, dtargets


def init_mlp(sizes: Sequence[int], *, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> list:
    """Layers (w, b) for `mlp`: w uniform in ±√(6/(in + out)), b zero.

    sizes: the number of units of each layer, the input's first: (64, 32, 10).
    Raises ValueError for fewer than two sizes or one below 1, TypeError for what is no number.
    Source: Glorot, Bengio (2010), "Understanding the difficulty of training deep feedforward
    neural networks".
    """
    if not hasattr(sizes, "__len__"):
        raise TypeError(f"init_mlp: sizes are {sizes!r}; they must be a tuple of whole numbers")
    random_key("init_mlp", key)
    if len(sizes) < 2:
        raise ValueError(f"init_mlp: sizes are {sizes}; a net has an input and an output at least")
    sizes = [whole("init_mlp", **{f"size {k}": n}) for k, n in enumerate(sizes)]
    keys = jax.random.split(key, len(sizes) - 1)
    params = []
    for layer_key, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True):
        bound = math.sqrt(6 / (n + m))
        w = jax.random.uniform(layer_key, (n, m), dtype, -bound, bound)
        params.append((w, jnp.zeros(m, dtype)))
    return params


def check_layers(name: str, argument: str, params: Any, x: jax.Array) -> None:
    """A list of layers (w, b), each with as many inputs as come to it, x to the first."""
    arrays(name, x=x)
    listed(f"{name}: {argument}", params, "layers (w, b)", least=1)
    shape = jnp.shape(x)
    for k, layer in enumerate(params):
        of = f"of layer {k} of {argument}"
        w, b = entries(f"{name}: {of[3:]}", layer, "w", "b")
        if getattr(w, "ndim", None) != 2 or shape[-1:] != w.shape[:1]:
            raise ValueError(
                f"{name}: w {of} {found(w)}, and its input has shape {shape}; they must be "
                "(in, out) and (*batch, in)"
            )
        fit(name, f"w of shape {w.shape}", {f"b {of}": (b, w.shape[1:])}, or_none=True)
        shape = *shape[:-1], w.shape[1]


def _as_one(output_activation, loss):
    _named("output_activation", output_activation, ACTIVATIONS)
    _named("loss", loss, LOSSES)
    together = _AS_ONE.get((output_activation, loss))
    return (output_activation, loss) if together is None else ("identity", together)


def _activations(layers, activation, output_activation):
    """The activation of each layer: one for all hidden ones, another for the last."""
    hidden = _named("activation", activation, ACTIVATIONS)
    output = _named("output_activation", output_activation, ACTIVATIONS)
    return [hidden] * (len(layers) - 1) + [output]


def _named(argument, name, known):
    if not isinstance(name, str) or name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{argument} is {name!r}{hint}; it must be one of: {', '.join(known)}")
    return known[name]
