"""Normalisation: over the batch, over the features of a sample, of weights, to length one.

Those over a sample keep x as it came, with two numbers a sample (one for rms_norm): x̂ is one
product away from them, and in bfloat16 would take twice the memory of x. Without γ it is 1, and
without β it is 0; β is kept to tell the backward whether there is one.
"""

import math

import jax.numpy as jnp

from handgrad.manual.numerics import length_in_units, over, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import per_feature, positive, whole, within

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


@op
def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    r"""y = γ x̂ + β,  x̂ = (x − μ) / σ,  σ = √(v + ε),  over all axes but the last (training).

    x: (*batch, features). gamma, beta: (features,), or None. eps: ε, a positive number.
    Returns (y, μ, v): (*batch, features) and twice (features,), the statistics of this batch with
    v divided by its size n. Running statistics for `batch_norm_inference` are their moving
    average, m ← ρ m + (1 − ρ) μ; PyTorch's running variance is that of v n / (n − 1) instead.
    Backward, with g = ȳ ∘ γ and ⟨·⟩ the mean over the batch:
        x̄ = (g − ⟨g⟩ − x̂ ⟨g x̂⟩) / σ  + μ̄ / n + v̄ · 2 (x − μ) / n,   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ
    where ⟨g⟩ comes through the mean and x̂ ⟨g x̂⟩ through the variance. float16 and bfloat16 are
    computed in float32.
    Raises ValueError where the shapes do not fit, the batch is empty or eps is not positive.
    Source: Ioffe and Szegedy, "Batch normalization" (2015); named by "The Math Behind Deep
    Learning" (ch. 14), summary.
    """
    per_feature("batch_norm", x, least=2, **_given(gamma=gamma, beta=beta))
    positive("batch_norm", eps=eps)
    if 0 in x.shape[:-1]:
        raise ValueError(
            f"batch_norm: x has shape {x.shape}; a batch of nothing has no mean and no variance"
        )
    dtype = x.dtype
    x = widen(x)
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, keepdims=True)  # (1…, features)
    centred = x - mean
    var = jnp.square(centred).mean(axes, keepdims=True)
    rstd = 1 / jnp.sqrt(var + eps)
    y = _affine(centred * rstd, gamma, beta)
    statistics = mean.reshape(-1).astype(dtype), var.reshape(-1).astype(dtype)
    return (y.astype(dtype), *statistics), (centred, rstd, gamma, beta)


@batch_norm.backward
def _(residuals, cotangents):
    centred, rstd, gamma, beta = residuals
    x_hat = centred * rstd  # 0 where the variance overflows, and x̂ σ would be NaN
    dy, dmean, dvar = map(widen, cotangents)
    axes = tuple(range(dy.ndim - 1))
    count = math.prod(dy.shape[:-1])
    g = _scaled(dy, gamma)
    through_mean = g.mean(axes, keepdims=True)
    through_variance = x_hat * (g * x_hat).mean(axes, keepdims=True)
    dx = (g - through_mean - through_variance) * rstd
    dx = dx + (_along(dmean, dy) + 2 * _along(dvar, dy) * centred) / count
    return dx, *_affine_cotangents(dy, x_hat, gamma, beta)


@op
def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    r"""y = γ (x − μ) / √(v + ε) + β, with the running statistics μ and v.

    x: (*batch, features). gamma, beta: (features,), or None. mean, var: (features,). eps: ε, a
    positive number. Returns (*batch, features).
    Backward, with σ = √(v + ε), x̂ = (x − μ) / σ and sums over the batch:
        x̄ = γ ȳ / σ,   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ,   μ̄ = −γ Σ ȳ / σ,   v̄ = −½ γ Σ ȳ x̂ / σ²
    Raises ValueError where the shapes do not fit or eps is not positive.
    Source: Ioffe and Szegedy, "Batch normalization" (2015), algorithm 2.
    """
    vectors = _given(gamma=gamma, beta=beta)
    per_feature("batch_norm_inference", x, **vectors, mean=mean, var=var)
    positive("batch_norm_inference", eps=eps)
    dtype = x.dtype
    x, mean, var = map(widen, (x, mean, var))
    rstd = 1 / jnp.sqrt(var + eps)
    x_hat = (x - _along(mean, x)) * _along(rstd, x)
    return _affine(x_hat, gamma, beta).astype(dtype), (x_hat, rstd, gamma, beta)


@batch_norm_inference.backward
def _(residuals, dy):
    x_hat, rstd, gamma, beta = residuals
    dy = widen(dy)
    axes = tuple(range(dy.ndim - 1))
    along_x_hat, total = (dy * x_hat).sum(axes), dy.sum(axes)
    slope = rstd if gamma is None else widen(gamma) * rstd
    dx = dy * _along(slope, dy)
    dgamma, dbeta = (None if v is None else d for v, d in ((gamma, along_x_hat), (beta, total)))
    return dx, dgamma, dbeta, -slope * total, -0.5 * slope * rstd * along_x_hat


@op
def layer_norm(x, gamma=None, beta=None, *, eps=1e-5):
    r"""y = γ x̂ + β,  x̂ = (x − μ) / σ,  σ = √(v + ε),  over the last axis.

    x: (*batch, features). gamma, beta: (features,), or None. eps: ε, a positive number, beside the
    variance v (divided by the number of features). Returns (*batch, features).
    Backward, with g = ȳ ∘ γ and ⟨·⟩ the mean over the features, sums over the batch:
        x̄ = (g − ⟨g⟩ − x̂ ⟨g x̂⟩) / σ,   γ̄ = Σ ȳ x̂,   β̄ = Σ ȳ
    where ⟨g⟩ comes through the mean and x̂ ⟨g x̂⟩ through the variance. Where all features are
    equal, x̂ = 0 and σ = √ε. float16 and bfloat16 are computed in float32.
    Raises ValueError where the shapes do not fit or eps is not positive.
    Source: Ba, Kiros, Hinton (2016), "Layer normalization".
    """
    per_feature("layer_norm", x, **_given(gamma=gamma, beta=beta))
    positive("layer_norm", eps=eps)
    statistics = _statistics(widen(x), (-1,), eps)  # twice (*batch, 1)
    y = _affine(_standard(x, statistics), gamma, beta)
    return y.astype(x.dtype), (x, statistics, gamma, beta)


@layer_norm.backward
def _(residuals, dy):
    x, statistics, gamma, beta = residuals
    dy, x_hat = widen(dy), _standard(x, statistics)
    dx = _through_statistics(_scaled(dy, gamma), x_hat, statistics, (-1,))
    return dx, *_affine_cotangents(dy, x_hat, gamma, beta)


@op
def rms_norm(x, gamma=None, *, eps=1e-6):
    r"""y = γ x̂,  x̂ = x / ρ,  ρ = √(⟨x²⟩ + ε),  ⟨·⟩ the mean over the last axis.

    x: (*batch, features). gamma: (features,), or None. eps: ε, a positive number, beside the mean
    square. Returns (*batch, features).
    Backward, with g = ȳ ∘ γ:  x̄ = (g − x̂ ⟨g x̂⟩) / ρ,   γ̄ = Σ ȳ x̂ over the batch.
    A zero vector has ρ = √ε. float16 and bfloat16 are computed in float32.
    Raises ValueError where the shapes do not fit or eps is not positive.
    Source: Zhang, Sennrich (2019), "Root mean square layer normalization".
    """
    per_feature("rms_norm", x, **_given(gamma=gamma))
    positive("rms_norm", eps=eps)
    z = widen(x)
    rms = jnp.sqrt(jnp.square(z).mean(-1, keepdims=True) + eps)  # (*batch, 1)
    return _scaled(z / rms, gamma).astype(x.dtype), (x, rms, gamma)


@rms_norm.backward
def _(residuals, dy):
    x, rms, gamma = residuals
    dy, x_hat = widen(dy), widen(x) / rms
    g = _scaled(dy, gamma)
    dx = (g - x_hat * (g * x_hat).mean(-1, keepdims=True)) / rms
    dgamma, _ = _affine_cotangents(dy, x_hat, gamma, None)
    return dx, dgamma


@op
def group_norm(x, gamma=None, beta=None, *, groups, eps=1e-5):
    r"""y = γ x̂ + β,  x̂ = (x − μ) / √(v + ε),  over all places and the channels of one group.

    x: (batch, *space, channels), the channels in `groups` blocks of equal size. gamma, beta:
    (channels,), or None. eps: ε, a positive number. Returns the shape of x.
    Backward: layer_norm's, with ⟨·⟩ the mean over the places and the channels of a group, and γ̄
    and β̄ summed over batch and places. float16 and bfloat16 are computed in float32.
    Raises ValueError where the shapes do not fit, the channels cannot be divided into groups, or
    eps is not positive.
    Source: Wu, He (2018), "Group normalization".
    """
    per_feature("group_norm", x, least=2, **_given(gamma=gamma, beta=beta))
    positive("group_norm", eps=eps)
    groups = whole("group_norm", groups=groups)
    if x.shape[-1] % groups:
        raise ValueError(
            f"group_norm: x of shape {x.shape} has {x.shape[-1]} channels and groups is {groups}; "
            "the channels must be a multiple of the groups"
        )
    grouped = _grouped(x, groups)
    statistics = _statistics(widen(grouped), (1, 3), eps)  # twice (batch, 1, groups, 1)
    x_hat = _standard(grouped, statistics).reshape(x.shape)
    return _affine(x_hat, gamma, beta).astype(x.dtype), (x, statistics, gamma, beta)


@group_norm.backward
def _(residuals, dy, *, groups):
    x, statistics, gamma, beta = residuals
    groups = int(groups)
    dy, x_hat = widen(dy), _standard(_grouped(x, groups), statistics)
    g = _grouped(_scaled(dy, gamma), groups)
    dx = _through_statistics(g, x_hat, statistics, (1, 3)).reshape(x.shape)
    return dx, *_affine_cotangents(dy, x_hat.reshape(x.shape), gamma, beta)


def _grouped(x, groups):
    """(batch, places, groups, channels / groups)."""
    batch, *space, channels = x.shape
    return x.reshape(batch, math.prod(space), groups, channels // groups)


@op
def instance_norm(x, gamma=None, beta=None, *, eps=1e-5):
    r"""y = γ x̂ + β,  x̂ = (x − μ) / √(v + ε),  over the places of one sample and channel.

    x: (batch, *space, channels). gamma, beta: (channels,), or None. eps: ε, a positive number.
    Returns the shape of x.
    Backward: layer_norm's, with ⟨·⟩ the mean over the places.
    float16 and bfloat16 are computed in float32.
    Raises ValueError where the shapes do not fit or eps is not positive.
    Source: Ulyanov, Vedaldi, Lempitsky (2016), "Instance normalization".
    """
    per_feature("instance_norm", x, least=3, **_given(gamma=gamma, beta=beta))
    positive("instance_norm", eps=eps)
    statistics = _statistics(widen(x), _space(x), eps)  # twice (batch, 1…, channels)
    y = _affine(_standard(x, statistics), gamma, beta)
    return y.astype(x.dtype), (x, statistics, gamma, beta)


@instance_norm.backward
def _(residuals, dy):
    x, statistics, gamma, beta = residuals
    dy, x_hat = widen(dy), _standard(x, statistics)
    dx = _through_statistics(_scaled(dy, gamma), x_hat, statistics, _space(x))
    return dx, *_affine_cotangents(dy, x_hat, gamma, beta)


def _space(x):
    return tuple(range(1, x.ndim - 1))


def _given(**vectors):
    """Those that are not None."""
    return {name: v for name, v in vectors.items() if v is not None}


def _scaled(x, gamma):
    """γ x."""
    return x if gamma is None else x * _along(widen(gamma), x)


def _affine(x_hat, gamma, beta):
    """γ x̂ + β."""
    y = _scaled(x_hat, gamma)
    return y if beta is None else y + _along(widen(beta), y)


def _affine_cotangents(dy, x_hat, gamma, beta):
    """γ̄ and β̄."""
    batch = tuple(range(dy.ndim - 1))
    dgamma = None if gamma is None else (dy * x_hat).sum(batch)
    return dgamma, None if beta is None else dy.sum(batch)


def _statistics(x, axes, eps):
    """μ and 1/σ; the variance is that of x − μ, since ⟨x²⟩ − μ² would lose its digits."""
    mean = x.mean(axes, keepdims=True)
    return mean, 1 / jnp.sqrt(jnp.square(x - mean).mean(axes, keepdims=True) + eps)


def _standard(x, statistics):
    """x̂."""
    mean, rstd = statistics
    return (widen(x) - mean) * rstd


def _through_statistics(g, x_hat, statistics, axes):
    """The cotangent of x, of which x̂ has the cotangent g."""
    _, rstd = statistics
    through_mean = g.mean(axes, keepdims=True)
    through_variance = x_hat * (g * x_hat).mean(axes, keepdims=True)
    return (g - through_mean - through_variance) * rstd


@op
def weight_norm(v, g):
    r"""w = g v̂ with v̂ = v / ‖v‖, for each output: length g and direction v apart.

    v: (*in, out), such as (in, out) or a kernel's (*window, in, out); ‖v‖ is over all axes but
    the last. g: (out,). Returns the shape of v.
    Backward, with ⟨·,·⟩ the product summed over *in:
        v̄ = g (w̄ − v̂ ⟨w̄, v̂⟩) / ‖v‖,   ḡ = ⟨w̄, v̂⟩
    A column of zeros has the direction 0, and the gradient 0. Lengths neither overflow nor
    vanish. float16 and bfloat16 are computed in float32.
    Raises ValueError where the shapes do not fit.
    Source: Salimans, Kingma (2016), "Weight normalization".
    """
    per_feature("weight_norm", v, least=2, array="v", form="(*in, out)", g=g)
    size = length_in_units(v, tuple(range(v.ndim - 1)))  # twice (1…, out)
    return (_along(widen(g), v) * over(v, *size)).astype(v.dtype), (v, g, size)


@weight_norm.backward
def _(residuals, dw):
    v, g, size = residuals
    dw, direction = widen(dw), over(v, *size)
    inputs = tuple(range(dw.ndim - 1))
    dg = (dw * direction).sum(inputs, keepdims=True)
    return over(_along(widen(g), dw) * (dw - direction * dg), *size), dg.reshape(g.shape)


@op
def l2_normalize(x, *, axis=-1, eps=1e-12):
    r"""y = x / max(‖x‖, ε), ‖x‖ the Euclidean length along `axis`.

    x: any shape with at least one axis. axis: int. eps: ε, not negative. Returns the same shape.
    Backward: x̄ = (ȳ − y ⟨ȳ, y⟩) / ‖x‖ where ‖x‖ > ε, else ȳ / ε. So a zero vector has y = 0 and
    x̄ = ȳ / ε, which is the true derivative; with ε = 0 it has the gradient 0, by convention.
    Lengths neither overflow nor vanish. float16 and bfloat16 are computed in float32.
    Raises ValueError where there is no such axis or eps is negative.
    Source: Wu, Xiong, Yu, Lin (2018), "Unsupervised feature learning via non-parametric instance
    discrimination"; ε as in PyTorch's functional.normalize.
    """
    axis = whole("l2_normalize", least=-math.inf, axis=axis)
    if not -jnp.ndim(x) <= axis < jnp.ndim(x):
        raise ValueError(f"l2_normalize: x has shape {jnp.shape(x)} and no axis {axis}")
    within("l2_normalize", 0, eps=eps)
    size, unit = length_in_units(x, axis)
    short = size * unit <= eps  # jnp.maximum would have the slope ½ where they are equal
    divisor = jnp.where(short, eps, size), jnp.where(short, 1, unit)
    return over(x, *divisor).astype(x.dtype), (x, divisor, short)


@l2_normalize.backward
def _(residuals, dy, *, axis):
    x, divisor, short = residuals
    dy, y = widen(dy), over(x, *divisor)
    along = jnp.where(short, 0, (dy * y).sum(axis, keepdims=True))
    return (over(dy - y * along, *divisor),)


def _along(v, x):
    """(features,) with as many axes as x."""
    return v.reshape((1,) * (x.ndim - 1) + (-1,))
