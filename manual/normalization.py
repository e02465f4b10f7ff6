"""Normalisation over the batch."""

import jax.numpy as jnp

from handgrad.manual.numerics import widen
from handgrad.manual.op import op

__all__ = ["batch_norm", "batch_norm_inference"]


@op
def batch_norm(x, gamma, beta, *, eps=1e-5):
    r"""y = γ x̂ + β,  x̂ = (x − μ) / σ,  σ = √(v + ε),  over all axes but the last (training).

    x: (*batch, features). gamma, beta: (features,). eps: ε. Returns (y, μ, v): (*batch, features)
    and twice (features,), the statistics of this batch with v divided by its size n. Running
    statistics for `batch_norm_inference` are their moving average, m ← ρ m + (1 − ρ) μ.
    Backward, with g = ȳ ∘ γ and ⟨·⟩ the mean over the batch:
        x̄ = (g − ⟨g⟩ − x̂ ⟨g x̂⟩) / σ  + μ̄ / n + v̄ · 2 (x − μ) / n,   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ
    where ⟨g⟩ comes through the mean and x̂ ⟨g x̂⟩ through the variance. float16 and bfloat16 are
    computed in float32.
    Source: Ioffe and Szegedy, "Batch normalization" (2015); named by "The Math Behind Deep
    Learning" (ch. 14), summary.
    """
    dtype = x.dtype
    x, gamma, beta = widen(x), widen(gamma), widen(beta)
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, keepdims=True)  # (1…, features)
    centred = x - mean
    var = jnp.square(centred).mean(axes, keepdims=True)
    rstd = 1 / jnp.sqrt(var + eps)
    x_hat = centred * rstd
    y = x_hat * _along(gamma, x) + _along(beta, x)
    statistics = mean.reshape(-1).astype(dtype), var.reshape(-1).astype(dtype)
    return (y.astype(dtype), *statistics), (x_hat, rstd, gamma)


@batch_norm.backward
def _(residuals, cotangents):
    x_hat, rstd, gamma = residuals
    dy, dmean, dvar = map(widen, cotangents)
    axes = tuple(range(dy.ndim - 1))
    count = dy.size // dy.shape[-1]
    g = dy * _along(gamma, dy)
    through_mean = g.mean(axes, keepdims=True)
    through_variance = x_hat * (g * x_hat).mean(axes, keepdims=True)
    dx = (g - through_mean - through_variance) * rstd
    dx = dx + (_along(dmean, dy) + 2 * _along(dvar, dy) * x_hat / rstd) / count
    return dx, (dy * x_hat).sum(axes), dy.sum(axes)


@op
def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    r"""y = γ (x − μ) / √(v + ε) + β, with the running statistics μ and v.

    x: (*batch, features). gamma, beta, mean, var: (features,). eps: ε.
    Returns (*batch, features).
    Backward, with σ = √(v + ε), x̂ = (x − μ) / σ and sums over the batch:
        x̄ = γ ȳ / σ,   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ,   μ̄ = −γ β̄ / σ,   v̄ = −½ γ γ̄ / σ²
    Source: Ioffe and Szegedy, "Batch normalization" (2015), algorithm 2.
    """
    dtype = x.dtype
    x, gamma, beta, mean, var = map(widen, (x, gamma, beta, mean, var))
    rstd = 1 / jnp.sqrt(var + eps)
    x_hat = (x - _along(mean, x)) * _along(rstd, x)
    return (x_hat * _along(gamma, x) + _along(beta, x)).astype(dtype), (x_hat, rstd, gamma)


@batch_norm_inference.backward
def _(residuals, dy):
    x_hat, rstd, gamma = residuals
    dy = widen(dy)
    axes = tuple(range(dy.ndim - 1))
    dgamma, dbeta = (dy * x_hat).sum(axes), dy.sum(axes)
    dx = dy * _along(gamma * rstd, dy)
    return dx, dgamma, dbeta, -gamma * rstd * dbeta, -0.5 * gamma * rstd * rstd * dgamma


def _along(v, x):
    """(features,) with as many axes as x."""
    return v.reshape((1,) * (x.ndim - 1) + (-1,))
