"""The Gaussian's losses, and the variational autoencoder's, as plain forwards."""

import math

import jax.numpy as jnp
import optax

__all__ = ["elbo", "gaussian_kl", "gaussian_nll", "reparametrize"]


def gaussian_nll(mean, log_var, targets):
    """−ln N(t; μ, σ²), with the constant."""
    squares = (targets - mean) ** 2 / jnp.exp(log_var)
    return 0.5 * jnp.sum(math.log(2 * math.pi) + log_var + squares, axis=-1)


def gaussian_kl(mean, log_var):
    """From N(μ, σ²) to N(0, 1)."""
    return 0.5 * jnp.sum(jnp.exp(log_var) + mean**2 - 1 - log_var, axis=-1)


def reparametrize(mean, log_var, noise):
    return mean + jnp.sqrt(jnp.exp(log_var)) * noise


def elbo(logits, targets, mean, log_var, *, beta=1.0):
    """The expected log-likelihood of Bernoulli pixels, less β times the divergence."""
    likelihood = -optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)
    return likelihood - beta * gaussian_kl(mean, log_var)
