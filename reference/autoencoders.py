"""A variational autoencoder as a plain forward."""

import jax.numpy as jnp

from handgrad.reference.gaussian import elbo, reparametrize
from handgrad.reference.networks import mlp

__all__ = ["vae_loss"]


def vae_loss(params, x, noise, *, beta=1.0, activation="tanh"):
    """Minus the mean bound."""
    mean, log_var = jnp.split(mlp(params["encoder"], x, activation=activation), 2, axis=-1)
    z = reparametrize(mean, log_var, noise)
    logits = mlp(params["decoder"], z, activation=activation)
    return -elbo(logits, x, mean, log_var, beta=beta).mean()
