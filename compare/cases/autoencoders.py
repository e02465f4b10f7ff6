"""Sample variational autoencoders."""

from handgrad.compare.cases import Case, normal, uniform
from handgrad.compare.cases.networks import layers


def model(pixels, hidden, latents):
    return {
        "encoder": layers(pixels, hidden, 2 * latents),
        "decoder": layers(latents, hidden, pixels),
    }


CASES = [
    Case("vae_loss", model(6, 5, 2), uniform(3, 6), uniform(3, 2, low=-1)),
    Case("vae_loss: relu, half the divergence", model(4, 6, 1), uniform(5, 4),
         uniform(5, 1, low=-2, high=2), beta=0.5, activation="relu"),
    Case("vae_loss: one sample, one layer", {"encoder": layers(3, 4), "decoder": layers(2, 3)},
         uniform(1, 3), normal(1, 2, scale=1e-2)),
]  # fmt: skip
