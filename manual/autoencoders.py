"""A variational autoencoder whose whole gradient is written by hand, operation by operation."""

import jax.numpy as jnp

from handgrad.manual.gaussian import elbo, reparametrize
from handgrad.manual.networks import check_layers, mlp
from handgrad.manual.numerics import widen
from handgrad.manual.op import op
from handgrad.manual.trees import arrays, parts

__all__ = ["vae_loss"]


@op
def vae_loss(params, x, noise, *, beta=1.0, activation="tanh"):
    r"""J = −mean of the ELBO: x → (μ, ln σ²) → z = μ + σ ε → logits of x again.

    params: a dictionary of encoder and decoder, each a list of layers (w, b) as `mlp` takes it; the
    encoder ends in 2 latents units, μ and then ln σ², the decoder begins with latents and ends
    in as many outputs as x. x: (batch, pixels), in [0, 1]. noise: ε, (batch, latents), drawn by the
    caller from N(0, 1). beta: the weight of the divergence. activation: of the hidden layers.
    Returns a scalar.
    `vae_loss.value_and_gradient(params, x, noise)` gives the loss and all gradients, by hand.
    Backward: with J̄ / −batch for every sample, that of `elbo`, of the decoder, of the draw, whose
    μ̄ and v̄ are added to those of the divergence, and of the encoder; x̄ is that of the encoder's
    input and that of the pixels to be found again, added up.
    Raises ValueError for a missing part and for shapes that do not fit.
    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014).
    """
    encoder, decoder = parts("vae_loss: params", params, "encoder", "decoder")
    arrays("vae_loss", x=x, noise=noise)
    check_layers("vae_loss", "encoder", encoder, x)
    code, kept_encoder = mlp.forward(encoder, x, activation=activation)
    if x.ndim != 2 or noise.ndim != 2 or code.shape != (noise.shape[0], 2 * noise.shape[1]):
        raise ValueError(
            f"vae_loss: x has shape {x.shape}, noise {noise.shape} and what the encoder gives "
            f"{code.shape}; they must be (batch, pixels), (batch, latents) and (batch, 2 latents)"
        )
    mean, log_var = jnp.split(code, 2, -1)
    z, kept_draw = reparametrize.forward(mean, log_var, noise)
    check_layers("vae_loss", "decoder", decoder, z)
    logits, kept_decoder = mlp.forward(decoder, z, activation=activation)
    bound, kept_bound = elbo.forward(logits, x, mean, log_var, beta=beta)
    loss = -widen(bound).mean()
    return loss.astype(x.dtype), (kept_encoder, kept_draw, kept_decoder, kept_bound, bound)


@vae_loss.backward
def _(residuals, dy, *, beta, activation):
    kept_encoder, kept_draw, kept_decoder, kept_bound, bound = residuals
    dbound = jnp.broadcast_to(-widen(dy) / bound.size, bound.shape)
    dlogits, dpixels, dmean, dlog_var = elbo.pullback(kept_bound, dbound, beta=beta)
    ddecoder, dz = mlp.pullback(kept_decoder, dlogits, activation=activation)
    dmean_drawn, dlog_var_drawn, dnoise = reparametrize.pullback(kept_draw, dz)
    dcode = jnp.concatenate([dmean + widen(dmean_drawn), dlog_var + dlog_var_drawn], -1)
    dencoder, dx = mlp.pullback(kept_encoder, dcode, activation=activation)
    return {"encoder": dencoder, "decoder": ddecoder}, dpixels + widen(dx), dnoise
