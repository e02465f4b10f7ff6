"""Two transformer language models as plain forwards."""

import jax
import jax.numpy as jnp

from handgrad.reference.attention import grouped_query_attention, multi_head_attention
from handgrad.reference.embedding import rotary
from handgrad.reference.fused_losses import cross_entropy
from handgrad.reference.normalization import layer_norm, rms_norm

__all__ = ["gpt_block", "gpt_loss", "llama_block", "llama_loss"]


def gpt_block(params, x, *, heads):
    """Pre-norm attention and net, each beside a way around it."""
    n = layer_norm(x, *params["norm1"])
    x = x + multi_head_attention(n, n, *params["attention"], heads=heads, causal=True)
    n = layer_norm(x, *params["norm2"])
    (w1, b1), (w2, b2) = params["up"], params["down"]
    return x + jax.nn.gelu(n @ w1 + b1[None, None, :]) @ w2 + b2[None, None, :]


def llama_block(params, x, *, heads):
    """Turned queries and keys, gated net."""
    wq, wk, wv, wo = params["attention"]
    width = wq.shape[1] // heads

    def apart(a):
        return jnp.einsum("bthd->bhtd", a.reshape(*a.shape[:2], a.shape[2] // width, width))

    n = rms_norm(x, params["norm1"])
    q, k, v = rotary(apart(n @ wq)), rotary(apart(n @ wk)), apart(n @ wv)
    y = jnp.einsum("bhtd->bthd", grouped_query_attention(q, k, v, causal=True))
    x = x + y.reshape(*x.shape[:2], wo.shape[0]) @ wo
    n = rms_norm(x, params["norm2"])
    return x + (jax.nn.silu(n @ params["gate"]) * (n @ params["up"])) @ params["down"]


def gpt_loss(params, tokens, targets, *, heads, ignore_index=None):
    """The table comes in and goes out."""
    x = jnp.take(params["table"], tokens, axis=0)
    x = x + params["positions"][None, : tokens.shape[1]]
    for block in params["blocks"]:
        x = gpt_block(block, x, heads=heads)
    logits = layer_norm(x, *params["norm"]) @ params["table"].T
    return cross_entropy(logits, targets, ignore_index)


def llama_loss(params, tokens, targets, *, heads, ignore_index=None):
    """The mean cross entropy of the next token."""
    x = jnp.take(params["table"], tokens, axis=0)
    for block in params["blocks"]:
        x = llama_block(block, x, heads=heads)
    logits = rms_norm(x, params["norm"]) @ params["head"]
    return cross_entropy(logits, targets, ignore_index)
