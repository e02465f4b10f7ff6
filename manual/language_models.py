"""A recurrent language model whose whole gradient is written by hand, operation by operation."""

import jax
import jax.numpy as jnp

from handgrad.manual.embedding import embedding
from handgrad.manual.fused_losses import check_classes, linear_softmax_cross_entropy
from handgrad.manual.op import op
from handgrad.manual.sequences import stacked
from handgrad.manual.shapes import indices_below, inside
from handgrad.manual.trees import fit, found, listed, matrix, parts

__all__ = ["check_tokens", "recurrent_lm_loss"]


@op
def recurrent_lm_loss(params, states, tokens, targets, *, cell="lstm", ignore_index=None):
    r"""J = mean over all places of −ln p(target | the tokens so far), of layers of recurrent cells.

    params: a dictionary of table (characters, features), layers, a list of weights as `stacked`
    takes them, and w (hidden, characters) and b (characters,), or None, of the last layer.
    states: what each layer starts from, a list as `stacked` takes it. tokens, targets:
    (batch, time), integers in [0, characters); targets are usually the tokens one place later.
    Outside, a traced token is clamped as in `embedding`, and a traced target makes J NaN.
    cell: "lstm", "tanh" or another of `recurrence`. ignore_index: as `linear_softmax_cross_entropy`
    has it, a target, such as −100, whose places do not count in the mean. Returns a scalar.
    `recurrent_lm_loss.value_and_gradient(params, states, tokens, targets)` gives the loss and all
    gradients, by hand, in one call.
    Backward: that of the loss with the last layer, of the recurrent layers, last to first and back
    through time, and of the table, into which the cotangents of a character's places are added up.
    Raises ValueError for a missing part, for shapes that do not fit and for tokens and targets
    outside that are known when the function is traced, TypeError for those that are not integers.
    Source: Mikolov et al., "Recurrent neural network based language model" (2010); Karpathy,
    "The unreasonable effectiveness of recurrent neural networks" (2015).
    """
    table, layers, w, b = parts("recurrent_lm_loss: params", params, "table", "layers", "w", "b")
    name = "recurrent_lm_loss"
    check_tokens(name, table, tokens, targets, ignore_index)
    listed(f"{name}: states", states, "states that layers start from", least=1)
    listed(f"{name}: layers", layers, "weights of layers", least=1)
    characters, beside = len(table), f"a table of shape {table.shape}"
    fit(name, beside, {"w": (w, (matrix(name, "w", w)[0], characters))})
    fit(name, beside, {"b": (b, (characters,))}, or_none=True)
    x, kept_table = embedding.forward(tokens, table)  # (batch, time, features)
    with inside(name):
        (h, _), kept_layers = stacked.forward(x, states, layers, cell=cell)
    loss, kept_loss = linear_softmax_cross_entropy.forward(
        h, w, b, targets, ignore_index=ignore_index
    )
    return loss, (kept_table, kept_layers, kept_loss, states)


@recurrent_lm_loss.backward
def _(residuals, dy, *, cell):
    kept_table, kept_layers, kept_loss, states = residuals
    dh, dw, db, _ = linear_softmax_cross_entropy.pullback(kept_loss, dy)
    unused = jax.tree.map(jnp.zeros_like, states)  # nothing depends on the final states
    dx, dstates, dlayers = stacked.pullback(kept_layers, (dh, unused), cell=cell)
    _, dtable = embedding.pullback(kept_table, dx)
    return {"table": dtable, "layers": dlayers, "w": dw, "b": db}, dstates, None, None


def check_tokens(
    name: str, table: jax.Array, tokens: jax.Array, targets: jax.Array, ignore_index: int | None
) -> None:
    for argument, given in (("tokens", tokens), ("targets", targets)):
        if not hasattr(given, "dtype"):
            raise TypeError(f"{name}: {argument} {found(given)}, and must be an array of integers")
        if not jnp.issubdtype(given.dtype, jnp.integer):
            raise TypeError(f"{name}: {argument} are {given.dtype}, and must be integers")
    if jnp.ndim(tokens) != 2 or jnp.shape(targets) != tokens.shape or tokens.shape[1] == 0:
        raise ValueError(
            f"{name}: tokens have shape {jnp.shape(tokens)} and targets {jnp.shape(targets)}; both "
            "must be (batch, time) with at least one step of time"
        )
    characters, of = matrix(name, "table", table)[0], f"with a table of shape {table.shape}"
    indices_below(name, characters, of, tokens=tokens)
    check_classes(name, characters, of, ignore_index, targets=targets)
