"""The last layer of a language model and its loss in one, so that its logits are never stored."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual.mesh import spread
from handgrad.manual.numerics import as_index, exp, wide, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import indices_below, one_of, whole

__all__ = ["check_classes", "linear_softmax_cross_entropy"]

_COLUMNS = 1024  # of the logits, that their products with x and w fit into a core's cache


@op
def linear_softmax_cross_entropy(
    x, w, b, labels, *, reduction="mean", block=384, ignore_index=None
):
    r"""L = Σₙ lₙ / N,  lₙ = −ln p_c with p = softmax(s), s = xₙ w + b and c the label of row n.

    x: (*batch, in), of N rows. w: (in, classes). b: (classes,), or None for no bias.
    labels: (*batch,), integers in [0, classes). Returns a scalar. reduction: "mean", or "sum" for
    L = Σₙ lₙ. block: at most so many rows are worked on at a time, and their (block, classes)
    logits are all that ever exists of them. ignore_index: a label, such as −100, whose rows have
    no loss and no gradient, and are not counted in N; None for no such label. With every row
    ignored the mean is NaN, as PyTorch's is, and its gradient 0.
    Backward, with s̄ᵢ = L̄ (pᵢ − δ_ic) / N:
        x̄ = s̄ wᵀ,   w̄ = Σ xᵀ s̄,   b̄ = Σ s̄
    L̄ is one number, by which all of it can be multiplied in the end: the forward makes the rest
    of it while it has the logits of a block, and nothing is computed twice. (Where no gradient is
    asked for, the compiler drops it.) With m the largest score and r = Σ_{i≠c} e^{sᵢ−m}:
        1 − p_c = r / (r + e^{s_c−m}),   l = ln(r + e^{s_c−m}) + m − s_c,  ln(1 + r) at s_c = m
    and so the gradient and the loss of an almost certain class keep their digits.
    float16 and bfloat16 are computed in float32; of several dtypes the widest is computed in, and
    L has that of x. A traced label outside [0, classes) makes the loss and the gradients that it
    reaches NaN.
    Raises ValueError where the shapes do not fit, the reduction is unknown or a label outside
    [0, classes) is known when the function is traced, TypeError for labels that are not integers;
    both for an ignore_index that is no number of their kind.
    Source: Hsu et al., "Liger kernel: efficient Triton kernels for LLM training" (2024), section
    3.2; Wijmans et al., "Cut your losses in large-vocabulary language models" (2024).
    """
    _check(x, w, b, labels, reduction, block, ignore_index)
    ignored = None if ignore_index is None else int(ignore_index)
    return _by_blocks(x, w, b, labels, reduction, int(block), ignored)


@linear_softmax_cross_entropy.backward
def _(residuals, dy):
    dx, dw, db, share = residuals
    dy = share * widen(dy)
    return dy * dx, dy * dw, None if db is None else dy * db, None


@functools.partial(jax.jit, static_argnames=("reduction", "block", "ignore_index"), inline=True)
def _by_blocks(x, w, b, labels, reduction, block, ignore_index):
    """The loss and the residuals, compiled once: a scan outside of `jit` is at every call."""
    size, classes = labels.size, w.shape[1]
    rows = _blocks(x.reshape(size, x.shape[-1]), block)
    dtype = jnp.result_type(*(wide(a.dtype) for a in (x, w, b) if a is not None))
    wide_w = w.astype(dtype)
    wide_b = jnp.zeros(classes, dtype) if b is None else b.astype(dtype)
    minus_b, width = -wide_b, min(_COLUMNS, classes)
    parts = -(-classes // width)

    def one(gradient, now):
        x, xt, c = now
        a = x.astype(dtype) @ wide_w  # (block, classes)

        # a + b by another name: under the same one, all of it would be stored for the maximum;
        # which maximum is taken off changes no result, so nothing flows back through it
        peak = lax.stop_gradient(a - minus_b[None, :]).max(-1, keepdims=True)
        s = a + wide_b[None, :]
        s_c = jnp.take_along_axis(s, c, -1, mode="clip")
        chosen = lax.broadcasted_iota(c.dtype, s.shape, 1) == c
        e = jnp.where(chosen, 0, exp(s - peak))
        others = e.sum(-1, keepdims=True)  # r
        others = jnp.where(c < classes, others, jnp.nan)
        total = others + exp(s_c - peak)
        loss = jnp.where(s_c == peak, jnp.log1p(others), jnp.log(total) + (peak - s_c))
        scale = 1 / jnp.where(c < 0, jnp.inf, total)  # nothing flows back into a row of padding
        scaled = xt.astype(dtype) * scale.T

        def some(k, state):  # of the columns: what is made of them is still in the cache when used
            dw, db, dx = state
            start = jnp.minimum(k * width, classes - width)
            column = start + lax.broadcasted_iota(c.dtype, (x.shape[0], width), 1)
            ds = jnp.where(column == c, -others, _columns(e, start, width))  # times total
            if classes % width:
                ds = jnp.where(column < k * width, 0, ds)  # these the one before has had
            return (
                _add(dw, scaled @ ds, start),
                _add(db, scale[:, 0] @ ds, start),
                dx + ds @ _columns(wide_w, start, width).T,
            )

        state = *gradient, spread(jnp.zeros(x.shape, s.dtype), s)
        dw, db, dx = lax.fori_loop(0, parts, some, state)
        return (dw, db), (jnp.where(c < 0, 0, loss), scale * dx)

    start = spread((jnp.zeros_like(wide_w), jnp.zeros_like(wide_b)), x, labels)
    blocks = rows, jnp.swapaxes(rows, 1, 2), _classes(labels, block, classes, ignore_index)
    (dw, db), (loss, dx) = lax.scan(one, start, blocks)
    loss, share = loss.sum(), 1.0
    if reduction == "mean" and ignore_index is None:
        loss, share = loss / size, 1 / max(size, 1)
    elif reduction == "mean":
        kept = (blocks[2] >= 0).sum(dtype=loss.dtype)
        loss, share = loss / kept, 1 / jnp.maximum(kept, 1)
    dx = dx.reshape(dx.shape[0] * dx.shape[1], dx.shape[2])[:size].reshape(x.shape)
    return loss.astype(x.dtype), (dx, dw, None if b is None else db, share)


def _columns(of, start, width):
    return lax.dynamic_slice_in_dim(of, start, width, -1)


def _add(to, more, start):
    """In the columns of `more`, which begin at `start`."""
    more = _columns(to, start, more.shape[-1]) + more
    return lax.dynamic_update_slice_in_dim(to, more, start, -1)


def _blocks(rows, block, fill=0):
    """(N, ·) -> (blocks, rows of each, ·), as many in all, filled up with rows of `fill`."""
    size = rows.shape[0]
    if isinstance(size, int):  # not a symbolic one, as `jax.export` has it
        number = max(-(-size // block), 1)
        block = max(-(-size // number), 1)
    rows = jnp.pad(rows, [(0, -size % block), (0, 0)], constant_values=fill)
    return rows.reshape(-(-size // block), block, rows.shape[1])


def _classes(labels, block, beyond, ignore_index):
    """(blocks, block, 1), −1 for a row of padding or ignored, `beyond` for a negative label."""
    labels = as_index(labels.reshape(-1, 1))
    index = jnp.where(labels < 0, beyond, labels)
    if labels.dtype != jnp.int32:  # of these, 2³² + 1 would come out as 1
        index = jnp.minimum(index, beyond).astype(jnp.int32)
    if ignore_index is not None:
        index = jnp.where(labels == labels.dtype.type(ignore_index), -1, index)
    return _blocks(index, block, fill=-1)


def _check(x, w, b, labels, reduction, block, ignore_index):
    name = "linear_softmax_cross_entropy"
    if jnp.ndim(x) < 1 or jnp.ndim(w) != 2 or x.shape[-1] != w.shape[0] or not w.shape[1]:
        raise ValueError(
            f"{name}: x has shape {jnp.shape(x)} and w {jnp.shape(w)}; they must be (*batch, in) "
            "and (in, classes), with at least one class"
        )
    if b is not None and jnp.shape(b) != w.shape[1:]:
        raise ValueError(f"{name}: b has shape {jnp.shape(b)}; it must be {w.shape[1:]}, or None")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}: labels are {labels.dtype}, and must be integers")
    if jnp.shape(labels) != x.shape[:-1]:
        raise ValueError(
            f"{name}: labels have shape {jnp.shape(labels)}; they must be {x.shape[:-1]}, one for "
            "each row of x"
        )
    one_of(name, ("mean", "sum"), reduction=reduction)
    whole(name, block=block)
    check_classes(name, w.shape[1], f"with w of shape {w.shape}", ignore_index, labels=labels)


def check_classes(name, classes, of, ignore_index, **labels):
    """Labels that are known are classes, or ignored: that is a number that they can hold."""
    ((argument, given),) = labels.items()
    if ignore_index is not None:
        ignore_index = whole(name, least=-math.inf, ignore_index=ignore_index)
        held = jnp.iinfo(given.dtype)
        if not held.min <= ignore_index <= held.max:
            raise ValueError(
                f"{name}: ignore_index is {ignore_index}, and {argument} are {given.dtype}; it "
                f"must be one of their numbers, {held.min} to {held.max}"
            )
        of += f" and ignore_index {ignore_index}"
    hint = "" if ignore_index is not None else "; rows of the ignore_index, None here, are left out"
    indices_below(name, classes, of, hint, ignored=ignore_index, **labels)
