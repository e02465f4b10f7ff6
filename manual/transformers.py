"""Two transformer language models whose whole gradient is written by hand, block by block.

A block has two branches, x + attention(norm x) and x + net(norm x): each gives the cotangent of its
sum to both, the branch and the way around it.
"""

import jax
import jax.numpy as jnp

from handgrad.manual.activations import gelu
from handgrad.manual.attention import (
    check_projections,
    grouped_query_attention,
    multi_head_attention,
)
from handgrad.manual.dense import affine
from handgrad.manual.embedding import embedding, rotary
from handgrad.manual.fused_losses import linear_softmax_cross_entropy
from handgrad.manual.gated import swiglu
from handgrad.manual.language_models import check_tokens
from handgrad.manual.normalization import layer_norm, rms_norm
from handgrad.manual.numerics import widen
from handgrad.manual.op import op
from handgrad.manual.shapes import whole
from handgrad.manual.trees import arrays, entries, fit, found, listed, matrix, parts

__all__ = ["gpt_block", "gpt_loss", "llama_block", "llama_loss"]


@op
def gpt_block(params, x, *, heads):
    r"""x′ = x + attention(layer_norm₁ x),   y = x′ + W₂ gelu(W₁ layer_norm₂ x′ + b₁) + b₂.

    params: a dictionary of norm1 and norm2, each (γ, β) of shape (model,); attention, the tuple
    (wq, wk, wv, wo, bq, bk, bv, bo) that `multi_head_attention` takes; up and down, the layers
    (w, b) from model to the width of the net and back. x: (batch, time, model). heads: their
    number; the attention is causal. Returns (batch, time, model).
    Backward, with the pullbacks of the operations: x̄′ = ȳ + that through the net,
        x̄ = x̄′ + that through the attention, whose queries and context are one array.
    Raises ValueError for a missing part and for shapes that do not fit.
    Source: Radford et al., "Language models are unsupervised multitask learners" (2019, GPT-2).
    """
    norm1, attention, norm2, up, down = parts("gpt_block: params", params, *GPT)
    _check_gpt(params, x, heads)
    n, kept_norm1 = layer_norm.forward(x, *norm1)
    a, kept_attention = multi_head_attention.forward(n, n, *attention, heads=heads, causal=True)
    x = x + a
    n, kept_norm2 = layer_norm.forward(x, *norm2)
    u, kept_up = affine.forward(n, *up)
    g, kept_gelu = gelu.forward(u)
    d, kept_down = affine.forward(g, *down)
    return x + d, (kept_norm1, kept_attention, kept_norm2, kept_up, kept_gelu, kept_down)


@gpt_block.backward
def _(residuals, dy, *, heads):
    kept_norm1, kept_attention, kept_norm2, kept_up, kept_gelu, kept_down = residuals
    dg, *ddown = affine.pullback(kept_down, dy)
    (du,) = gelu.pullback(kept_gelu, dg)
    dn, *dup = affine.pullback(kept_up, du)
    dx, *dnorm2 = layer_norm.pullback(kept_norm2, dn)
    dy = dy + dx.astype(dy.dtype)
    dn, dcontext, *dattention, _ = multi_head_attention.pullback(kept_attention, dy, heads=heads)
    dx, *dnorm1 = layer_norm.pullback(kept_norm1, dn + dcontext)
    branches = map(tuple, (dnorm1, dattention, dnorm2, dup, ddown))
    return dict(zip(GPT, branches, strict=True)), dy + dx.astype(dy.dtype)


@op
def llama_block(params, x, *, heads):
    r"""x′ = x + attention(rms_norm₁ x),   y = x′ + W_d (silu(W_g n) ∘ W_u n),  n = rms_norm₂ x′.

    params: a dictionary of norm1 and norm2, each γ (model,); attention, a tuple (wq, wk, wv, wo) of
    (model, heads width), twice (model, groups width) and (heads width, model); gate, up and
    down, matrices from model to the width of the net, twice, and back. x: (batch, time, model).
    heads: their number, a multiple of the groups that wk has columns for. Queries and keys are
    turned by `rotary`; the attention is causal. Returns (batch, time, model).
    Backward, with the pullbacks of the operations: x̄′ = ȳ + that through the net,
        x̄ = x̄′ + that through the attention, by queries, keys and values, added up.
    Raises ValueError for a missing part and for shapes that do not fit.
    Source: Touvron et al., "Llama" and "Llama 2" (2023).
    """
    norm1, attention, norm2, gate, up, down = parts("llama_block: params", params, *LLAMA)
    width = _check_llama(params, x, heads)
    n, kept_norm1 = rms_norm.forward(x, norm1)
    a, kept_attention = _attention(n, attention, width)
    x = x + a
    n, kept_norm2 = rms_norm.forward(x, norm2)
    g, kept_gate = affine.forward(n, gate)
    u, kept_up = affine.forward(n, up)
    s, kept_swiglu = swiglu.forward(g, u)
    d, kept_down = affine.forward(s, down)
    kept = kept_norm1, kept_attention, kept_norm2, kept_gate, kept_up, kept_swiglu, kept_down
    return x + d, kept


@llama_block.backward
def _(residuals, dy):
    (kept_norm1, kept_attention, kept_norm2, kept_gate, kept_up, kept_swiglu, kept_down) = residuals
    ds, ddown, _ = affine.pullback(kept_down, dy)
    dg, du = swiglu.pullback(kept_swiglu, ds)
    dn_gate, dgate, _ = affine.pullback(kept_gate, dg)
    dn_up, dup, _ = affine.pullback(kept_up, du)
    dx, dnorm2 = rms_norm.pullback(kept_norm2, _sum(dn_gate, dn_up))
    dy = dy + dx.astype(dy.dtype)
    dn, dattention = _attention_back(kept_attention, dy)
    dx, dnorm1 = rms_norm.pullback(kept_norm1, dn)
    branches = dnorm1, dattention, dnorm2, dgate, dup, ddown
    return dict(zip(LLAMA, branches, strict=True)), dy + dx.astype(dy.dtype)


@op
def gpt_loss(params, tokens, targets, *, heads, ignore_index=None):
    r"""J = mean of −ln p(target | the tokens so far), by blocks of GPT-2 and tied weights.

    params: a dictionary of table (tokens, model), positions (longest time, model), blocks, a list
    of what `gpt_block` takes, and norm, (γ, β) of the last layer_norm. The table is used twice: for
    the tokens that come in, and, transposed, for the logits of those that come out.
    tokens, targets: (batch, time), integers below the number of tokens; outside, a traced token is
    clamped as in `embedding`, and a traced target makes J NaN. heads: of every block.
    ignore_index: as `linear_softmax_cross_entropy` has it, a target, such as −100, whose places do
    not count in the mean. Returns a scalar.
    `gpt_loss.value_and_gradient(params, tokens, targets, heads=...)` gives the loss and all
    gradients, by hand, in one call.
    Backward: through the loss, the norm and the blocks, last to first; the table has the cotangent
    of both its uses, added up, and the positions the sum over the batch.
    Raises ValueError for a missing part, for shapes that do not fit and for tokens and targets
    outside that are known when the function is traced, TypeError for those that are not integers.
    Source: Radford et al. (2019, GPT-2); Press and Wolf, "Using the output embedding to improve
    language models" (2017), for the tied weights.
    """
    table, positions, blocks, norm = parts("gpt_loss: params", params, *GPT_MODEL)
    check_tokens("gpt_loss", table, tokens, targets, ignore_index)
    time, model = tokens.shape[1], table.shape[1:]
    shape = getattr(positions, "shape", ())
    if len(shape) != 2 or shape[0] < time or shape[1:] != model:
        came = f"have shape {shape}" if hasattr(positions, "shape") else found(positions)
        raise ValueError(
            f"gpt_loss: positions {came}; with tokens of shape "
            f"{tokens.shape} and a table of {table.shape} they must be at least {(time, *model)}"
        )
    gamma, beta = entries("gpt_loss: norm", norm, *NORM)
    needed = {"γ of norm": (gamma, model), "β of norm": (beta, model)}
    fit("gpt_loss", f"a table of shape {table.shape}", needed)
    x, kept_table = embedding.forward(tokens, table)
    x = x + jnp.broadcast_to(positions[:time], x.shape)
    x, kept_blocks = _through("gpt_loss", gpt_block, blocks, x, heads)
    x, kept_norm = layer_norm.forward(x, *norm)
    loss, kept_loss = linear_softmax_cross_entropy.forward(
        x, table.T, None, targets, ignore_index=ignore_index
    )
    return loss, (kept_table, kept_blocks, kept_norm, kept_loss, positions)


@gpt_loss.backward
def _(residuals, dy, *, heads):
    kept_table, kept_blocks, kept_norm, kept_loss, positions = residuals
    dx, dtable_out, _, _ = linear_softmax_cross_entropy.pullback(kept_loss, dy)
    dx, *dnorm = layer_norm.pullback(kept_norm, dx)
    dx, dblocks = _back(gpt_block, kept_blocks, dx, heads=heads)
    dpositions = (
        jnp.zeros_like(positions).at[: dx.shape[1]].set(widen(dx).sum(0).astype(positions.dtype))
    )
    _, dtable_in = embedding.pullback(kept_table, dx)
    gradients = _sum(dtable_in, dtable_out.T), dpositions, dblocks, tuple(dnorm)
    return dict(zip(GPT_MODEL, gradients, strict=True)), None, None


@op
def llama_loss(params, tokens, targets, *, heads, ignore_index=None):
    r"""J = mean of −ln p(target | the tokens so far), by blocks of Llama.

    params: a dictionary of table (tokens, model), blocks, a list of what `llama_block` takes, norm,
    the γ of the last rms_norm, and head, (model, tokens), for the logits.
    tokens, targets: (batch, time), integers below the number of tokens; outside, a traced token is
    clamped as in `embedding`, and a traced target makes J NaN. heads: of every block.
    ignore_index: as `linear_softmax_cross_entropy` has it, a target, such as −100, whose places do
    not count in the mean. Returns a scalar.
    `llama_loss.value_and_gradient(params, tokens, targets, heads=...)` gives the loss and all
    gradients, by hand, in one call.
    Backward: through the loss with the head, the norm, the blocks, last to first, and the table.
    Raises ValueError for a missing part, for shapes that do not fit and for tokens and targets
    outside that are known when the function is traced, TypeError for those that are not integers.
    Source: Touvron et al., "Llama" and "Llama 2" (2023).
    """
    table, blocks, norm, head = parts("llama_loss: params", params, *LLAMA_MODEL)
    check_tokens("llama_loss", table, tokens, targets, ignore_index)
    needed = {"norm": (norm, table.shape[1:]), "head": (head, table.shape[::-1])}
    fit("llama_loss", f"a table of shape {table.shape}", needed)
    x, kept_table = embedding.forward(tokens, table)
    x, kept_blocks = _through("llama_loss", llama_block, blocks, x, heads)
    x, kept_norm = rms_norm.forward(x, norm)
    loss, kept_loss = linear_softmax_cross_entropy.forward(
        x, head, None, targets, ignore_index=ignore_index
    )
    return loss, (kept_table, kept_blocks, kept_norm, kept_loss)


@llama_loss.backward
def _(residuals, dy):
    kept_table, kept_blocks, kept_norm, kept_loss = residuals
    dx, dhead, _, _ = linear_softmax_cross_entropy.pullback(kept_loss, dy)
    dx, dnorm = rms_norm.pullback(kept_norm, dx)
    dx, dblocks = _back(llama_block, kept_blocks, dx)
    _, dtable = embedding.pullback(kept_table, dx)
    return dict(zip(LLAMA_MODEL, (dtable, dblocks, dnorm, dhead), strict=True)), None, None


NORM, LAYER, PROJECTIONS = ("γ", "β"), ("w", "b"), ("wq", "wk", "wv", "wo")
GPT = {
    "norm1": NORM,
    "attention": (*PROJECTIONS, "bq", "bk", "bv", "bo"),
    "norm2": NORM,
    "up": LAYER,
    "down": LAYER,
}
LLAMA = ("norm1", "attention", "norm2", "gate", "up", "down")
GPT_MODEL = ("table", "positions", "blocks", "norm")
LLAMA_MODEL = ("table", "blocks", "norm", "head")


def _check_gpt(params, x, heads):
    for part, names in GPT.items():
        entries(f"gpt_block: {part}", params[part], *names)
    (w1, b1), (w2, b2) = params["up"], params["down"]
    model, (_, net) = _model("gpt_block", x), matrix("gpt_block", "w of up", w1)
    needed = {
        f"{each} of {norm}": (given, (model,))
        for norm in ("norm1", "norm2")
        for each, given in zip(NORM, params[norm], strict=True)
    }
    needed |= {"w of up": (w1, (model, net)), "w of down": (w2, (net, model))}
    _check_block("gpt_block", x, params["attention"], heads, needed)
    biases = {"b of up": (b1, (net,)), "b of down": (b2, (model,))}
    fit("gpt_block", f"weights {w1.shape} and {w2.shape}", biases, or_none=True)


def _check_llama(params, x, heads):
    """The width of a head."""
    name = "llama_block"
    wq, wk, wv, wo = entries(f"{name}: attention", params["attention"], *PROJECTIONS)
    model, (_, net) = _model(name, x), matrix(name, "gate", params["gate"])
    shapes = (model,), (model,), (model, net), (model, net), (net, model)
    others = ("norm1", "norm2", "gate", "up", "down")
    needed = {part: (params[part], shape) for part, shape in zip(others, shapes, strict=True)}
    needed |= {"wv": (wv, (model, matrix(name, "wk", wk)[1]))}
    heads = _check_block(name, x, (wq, wk, wv, wo, *[None] * 4), heads, needed)
    width = wq.shape[1] // heads
    if width % 2:
        raise ValueError(
            f"{name}: wq has shape {wq.shape}; its {heads} heads are of width {width}, and must be "
            "of an even one, since queries and keys are turned in pairs"
        )
    return width


def _model(name, x):
    arrays(name, x=x)
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(
            f"{name}: x has shape {x.shape}; it must be (batch, time, model) with at least one "
            "step of time"
        )
    return x.shape[2]


def _check_block(name, x, attention, heads, needed):
    """The number of heads; needed: the other parts, with their shapes."""
    model = x.shape[2]
    for part, w in zip(PROJECTIONS, attention[:4], strict=True):
        rows, columns = matrix(name, part, w)
        needed = {part: (w, (rows, model) if part == "wo" else (model, columns))} | needed
    fit(name, f"x of shape {x.shape} and the other weights", needed)
    heads, _ = check_projections(name, x, x, attention[:4], attention[4:], heads)
    return heads


def _through(name, block, blocks, x, heads):
    kept, heads = [], whole(name, heads=heads)
    for params in listed(f"{name}: blocks", blocks, f"what {block.__name__} takes"):
        x, of_block = block.forward(params, x, heads=heads)
        kept.append(of_block)
    return x, kept


def _back(block, kept, dx, **config):
    dblocks = []
    for of_block in reversed(kept):
        dparams, dx = block.pullback(of_block, dx, **config)
        dblocks.append(dparams)
    return dx, dblocks[::-1]


def _attention(x, weights, width):
    """Causal attention of grouped queries, with queries and keys turned by their position."""
    wq, wk, wv, wo = weights
    (q, kept_q), (k, kept_k), (v, kept_v) = (affine.forward(x, w) for w in (wq, wk, wv))
    (q, turned_q), (k, turned_k) = (rotary.forward(_split(a, width)) for a in (q, k))
    y, kept = grouped_query_attention.forward(q, k, _split(v, width), causal=True)
    y, kept_o = affine.forward(_join(y), wo)
    return y, (kept_q, kept_k, kept_v, turned_q, turned_k, kept, kept_o)


def _attention_back(residuals, dy):
    kept_q, kept_k, kept_v, turned_q, turned_k, kept, kept_o = residuals
    dy, dwo, _ = affine.pullback(kept_o, dy)
    q = kept[0]  # (batch, heads, time, width)
    dq, dk, dv, _ = grouped_query_attention.pullback(kept, _split(dy, q.shape[-1]))
    (dq,), (dk,) = rotary.pullback(turned_q, dq), rotary.pullback(turned_k, dk)
    (dx_q, dwq, _), (dx_k, dwk, _), (dx_v, dwv, _) = (
        affine.pullback(of, _join(d)) for of, d in ((kept_q, dq), (kept_k, dk), (kept_v, dv))
    )
    return _sum(dx_q, dx_k, dx_v), (dwq, dwk, dwv, dwo)


def _split(x: jax.Array, width: int) -> jax.Array:
    """(batch, time, heads × width) -> (batch, heads, time, width)."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], x.shape[2] // width, width), 1, 2)


def _join(x: jax.Array) -> jax.Array:
    batch, heads, time, width = x.shape
    return jnp.swapaxes(x, 1, 2).reshape(batch, time, heads * width)


def _sum(first, *others):
    """In float32 at least, and back to the dtype of the first."""
    return sum(map(widen, others), widen(first)).astype(first.dtype)
