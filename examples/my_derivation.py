"""Two derivations from a notebook, and whether they are right: one is, one is not.

    handgrad check examples/my_derivation.py

The decorator names the function that a derivation belongs to, and sample inputs to verify it at.
"""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare import backward_of, gradient_of
from handgrad.compare.cases import normal


def layer_norm(x, gamma, beta):
    """y = γ x̂ + β,  x̂ = (x − μ) / σ, over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    sigma = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return gamma * centred / sigma + beta


@backward_of(layer_norm, normal(4, 6), normal(6), normal(6))
def layer_norm_backward(x, gamma, beta, dy):
    """x̄ = (g − ⟨g⟩ − x̂⟨g x̂⟩) / σ with g = ȳ ∘ γ,  γ̄ = Σ ȳ x̂,  β̄ = Σ ȳ."""
    centred = x - x.mean(-1, keepdims=True)
    sigma = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    x_hat = centred / sigma
    g = dy * gamma
    dx = (g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True)) / sigma
    return dx, (dy * x_hat).sum(0), dy.sum(0)


def logistic_loss(logits, labels):
    """The mean of ln(1 + eˢ) − c s over the samples."""
    return (jnp.logaddexp(logits, 0) - labels * logits).mean()


@gradient_of(logistic_loss, normal(8), np.array([0.0, 1, 1, 0, 1, 0, 0, 1]), argnums=[0])
def logistic_loss_gradient(logits, labels):
    """Wrong: σ(s) − c is the gradient of the sum; that of the mean has 1/N before it."""
    return (jax.nn.sigmoid(logits) - labels,)
