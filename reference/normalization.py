"""Normalisation: over the batch, the features, groups of them; of weights; to unit length."""

import math

import jax
import jax.numpy as jnp

__all__ = [
    "batch_norm",
    "batch_norm_inference",
    "group_norm",
    "instance_norm",
    "l2_normalize",
    "layer_norm",
    "rms_norm",
    "weight_norm",
]


def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Training: the output, and mean and variance of the batch."""
    rows = x.reshape(-1, x.shape[-1])
    mean, var = jnp.mean(rows, 0), jnp.var(rows, 0)
    y = _learned(jax.nn.standardize(rows, axis=0, epsilon=eps), gamma, beta)
    return y.reshape(x.shape), mean, var


def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    """Evaluation, with running statistics."""
    rows = x.reshape(-1, x.shape[-1])
    y = _learned((rows - mean[None]) / jnp.sqrt(var + eps)[None], gamma, beta)
    return y.reshape(x.shape)


def layer_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Each sample to mean 0 and variance 1 over its features."""
    rows = x.reshape(-1, x.shape[-1])
    mean, var = jnp.mean(rows, -1, keepdims=True), jnp.var(rows, -1, keepdims=True)
    y = _learned((rows - mean) / jnp.sqrt(var + eps), gamma, beta)
    return y.reshape(x.shape)


def rms_norm(x, gamma=None, *, eps=1e-6):
    """Each sample divided by the root of its mean square."""
    rows = x.reshape(-1, x.shape[-1])
    rms = jnp.sqrt(jnp.mean(rows**2, -1, keepdims=True) + eps)
    return _learned(rows / rms, gamma, None).reshape(x.shape)


def group_norm(x, gamma=None, beta=None, *, groups, eps=1e-5):
    """Mean 0 and variance 1 over all places and the channels of a group, for each sample."""
    batch, *space, channels = x.shape
    grouped = x.reshape(batch, math.prod(space), groups, channels // groups)
    standard = jax.nn.standardize(grouped, axis=(1, 3), epsilon=eps).reshape(x.shape)
    return _learned(standard, gamma, beta)


def instance_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Mean 0 and variance 1 over all places, for each sample and channel."""
    standard = jax.nn.standardize(x, axis=tuple(range(1, x.ndim - 1)), epsilon=eps)
    return _learned(standard, gamma, beta)


def weight_norm(v, g):
    """Columns of the direction of v and the length g."""
    columns = v.reshape(-1, v.shape[-1])
    zero = jnp.all(columns == 0, 0, keepdims=True)
    lengths = jnp.linalg.norm(jnp.where(zero, 1, columns), axis=0, keepdims=True)
    return (g[None] * jnp.where(zero, 0, columns / lengths)).reshape(v.shape)


def l2_normalize(x, *, axis=-1, eps=1e-12):
    """x over its length, or over eps where it is shorter than that."""
    squares = jnp.sum(x**2, axis, keepdims=True)
    long = squares > eps**2
    return x / jnp.where(long, jnp.sqrt(jnp.where(long, squares, 1)), eps)


def _learned(standard, gamma, beta):
    """Times the scale and plus the shift of each feature, of which either may be left out."""
    scale, shift = (
        jnp.full((1,) * standard.ndim, default, standard.dtype)
        if v is None
        else v.reshape((1,) * (standard.ndim - 1) + v.shape)
        for v, default in ((gamma, 1), (beta, 0))
    )
    return standard * scale + shift
