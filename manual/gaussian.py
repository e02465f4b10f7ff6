"""The Gaussian: its likelihood, its divergence, a draw from it, and the autoencoder of all three.

A variance is given by its logarithm, as networks give it: it is positive whatever they say.
"""

import math

import jax.numpy as jnp

from handgrad.manual.losses import binary_cross_entropy_with_logits
from handgrad.manual.numerics import at_least, at_most, exp, expm1, magnitude, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import same_shapes

__all__ = ["elbo", "gaussian_kl", "gaussian_nll", "reparametrize"]


@op
def gaussian_nll(mean, log_var, targets):
    r"""L = −ln N(t; μ, σ²) = ½ Σ (z² + v + ln 2π), z = (t − μ)/σ, for each sample, v = ln σ².

    mean, log_var, targets: μ, v and t, (*batch, features). Returns (*batch,).
    Backward: t̄ = L̄ z/σ,   μ̄ = −t̄,   v̄ = ½ L̄ (1 − z)(1 + z).
    z² is the square of (t − μ) e^{−v/4} e^{−v/4}, of which no factor overflows before; at t = μ it
    is 0 whatever v is. float16 and bfloat16 are computed in float32. Raises ValueError where the
    shapes differ.
    Source: Nix, Weigend (1994), "Estimating the mean and variance of the target probability
    distribution".
    """
    same_shapes("gaussian_nll", least=1, mean=mean, log_var=log_var, targets=targets)
    z = _standard(mean, log_var, targets)
    loss = 0.5 * (z * z + widen(log_var) + math.log(2 * math.pi)).sum(-1)
    return loss.astype(mean.dtype), (mean, log_var, targets)


@gaussian_nll.backward
def _(residuals, dy):
    z = _standard(*residuals)
    dy = widen(dy)[..., None]
    dtargets = _times_exp(dy * z, -widen(residuals[1]))
    return -dtargets, 0.5 * dy * (1 - z) * (1 + z), dtargets


def _standard(mean, log_var, targets):
    return _times_exp(widen(targets) - widen(mean), -widen(log_var))


def _times_exp(x, v):
    """x e^{v/2} as (x e^{v/4}) e^{v/4}: no factor overflows where the product does not."""
    quarter, most = 0.25 * v, math.floor(math.log(jnp.finfo(v.dtype).max))
    e = exp(jnp.where(quarter > most, most, quarter))  # what is not 0 overflows by most twice
    return x * e * e


@op
def gaussian_kl(mean, log_var):
    r"""D = KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − 1 − ln σ²) for each sample, v = ln σ².

    mean, log_var: μ and v, (*batch, features). Returns (*batch,).
    Backward: μ̄ = D̄ μ,   v̄ = ½ D̄ (σ² − 1), with σ² − 1 = eᵛ − 1 to all digits at v = 0.
    float16 and bfloat16 are computed in float32. Raises ValueError where the shapes differ.
    Source: Kingma, Welling (2014), "Auto-encoding variational Bayes", appendix B.
    """
    same_shapes("gaussian_kl", least=1, mean=mean, log_var=log_var)
    v = widen(log_var)
    excess = expm1(v)  # kept: a second exponential takes longer than to write and read it
    loss = 0.5 * (jnp.square(widen(mean)) + (excess - v)).sum(-1)
    return loss.astype(mean.dtype), (mean, excess)


@gaussian_kl.backward
def _(residuals, dy):
    mean, excess = residuals
    dy = widen(dy)[..., None]
    return dy * widen(mean), 0.5 * dy * excess


@op
def reparametrize(mean, log_var, noise):
    r"""z = μ + σ ε: a draw from N(μ, σ²) out of the noise ε, with a derivative by μ and σ.

    mean, log_var, noise: μ, ln σ² and ε, any equal shapes; ε is drawn by the caller, from
    N(0, 1). Returns the same shape.
    Backward: μ̄ = z̄,   v̄ = ½ z̄ ε σ,   ε̄ = z̄ σ. With ε = 0, z = μ and v̄ = 0 whatever σ is.
    float16 and bfloat16 are computed in float32. Raises ValueError where the shapes differ.
    Source: Kingma, Welling (2014), "Auto-encoding variational Bayes", section 2.4.
    """
    same_shapes("reparametrize", mean=mean, log_var=log_var, noise=noise)
    z = widen(mean) + _times_exp(widen(noise), widen(log_var))
    return z.astype(mean.dtype), (log_var, noise)


@reparametrize.backward
def _(residuals, dy):
    log_var, noise = map(widen, residuals)
    wide_dy = widen(dy)
    return dy, 0.5 * _times_exp(wide_dy * noise, log_var), _times_exp(wide_dy, log_var)


@op
def elbo(logits, targets, mean, log_var, *, beta=1.0):
    r"""E = Σ ln p(x | z) − β KL(N(μ, σ²) ‖ N(0, 1)), to be made as large as possible.

    logits, targets: the decoder's logits of the pixels and the pixels x in [0, 1] themselves,
    (*batch, outputs); ln p(x | z) is −binary_cross_entropy_with_logits. mean, log_var: of the
    code z, (*batch, latents). beta: the weight of the divergence; 1 gives the bound on ln p(x).
    Returns (*batch,), for the draw of z that the logits were made of.
    Backward: logits and targets have those of the cross entropy with the cotangent −Ē, mean and
    log_var those of gaussian_kl with −β Ē.
    Raises ValueError where the shapes do not fit.
    Source: Kingma, Welling (2014), "Auto-encoding variational Bayes"; β: Higgins et al. (2017),
    "beta-VAE".
    """
    same_shapes("elbo", least=1, logits=logits, targets=targets)
    same_shapes("elbo", least=1, mean=mean, log_var=log_var)
    if logits.shape[:-1] != mean.shape[:-1]:
        raise ValueError(
            f"elbo: logits have shape {logits.shape} and mean {mean.shape}; they must be "
            "(*batch, outputs) and (*batch, latents) with the same batch"
        )
    surprise = _cross_entropy(widen(logits), widen(targets))
    divergence, kept = gaussian_kl.forward(widen(mean), widen(log_var))
    bound = -surprise.sum(-1) - beta * divergence
    return bound.astype(logits.dtype), (logits, targets, kept)


def _cross_entropy(x, c):
    """binary_cross_entropy_with_logits for a sum: ln(1 + eˣ) = max(x, 0) + ln(1 + e^{−|x|})."""
    share = (1 - c) * at_least(x, 0) - c * at_most(x, 0)
    return share + jnp.log1p(jnp.exp(-magnitude(x)))


@elbo.backward
def _(residuals, dy, *, beta):
    logits, targets = map(widen, residuals[:2])
    dy = -widen(dy)
    dsurprise = jnp.broadcast_to(dy[..., None], logits.shape)
    pixels = binary_cross_entropy_with_logits.pullback((logits, targets), dsurprise)
    return *pixels, *gaussian_kl.pullback(residuals[2], beta * dy)
