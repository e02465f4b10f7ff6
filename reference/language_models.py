"""A recurrent language model as a plain forward."""

import jax.numpy as jnp

from handgrad.reference.fused_losses import cross_entropy
from handgrad.reference.sequences import stacked

__all__ = ["recurrent_lm_loss"]


def recurrent_lm_loss(params, states, tokens, targets, *, cell="lstm", ignore_index=None):
    """The mean cross entropy of the next character."""
    x = jnp.take(params["table"], tokens, axis=0)
    h, _ = stacked(x, states, params["layers"], cell=cell)
    logits = jnp.einsum("bth,hc->btc", h, params["w"]) + params["b"][None, None, :]
    return cross_entropy(logits, targets, ignore_index)
