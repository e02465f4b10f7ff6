"""A recurrent language model as a plain forward."""

import jax.numpy as jnp
import optax

from handgrad.reference.sequences import stacked

__all__ = ["recurrent_lm_loss"]


def recurrent_lm_loss(params, states, tokens, targets, *, cell="lstm"):
    """The mean cross entropy of the next character."""
    x = jnp.take(params["table"], tokens, axis=0)
    h, _ = stacked(x, states, params["layers"], cell=cell)
    logits = jnp.einsum("bth,hc->btc", h, params["w"]) + params["b"][None, None, :]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
