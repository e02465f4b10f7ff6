"""Optimisers by hand, one idea a file, in the interface of optax.

Each constructor gives a pair `init(params) -> state` and `update(grads, state, params) ->
(updates, state)`; the updates are added to the parameters. `printed` holds what one of the
documents prints instead, and is not exported.
"""

from handgrad.manual.optimizers.adaptive import adadelta, adagrad, rmsprop
from handgrad.manual.optimizers.core import GradientTransformation, apply_updates, chain
from handgrad.manual.optimizers.gradient_descent import (
    momentum,
    nesterov,
    proximal_sgd,
    sgd,
    sgdw,
)
from handgrad.manual.optimizers.layerwise import adafactor, lamb
from handgrad.manual.optimizers.moments import adam, adamax, adamw, amsgrad, lion, nadam
from handgrad.manual.optimizers.orthogonal import muon, orthogonalize
from handgrad.manual.optimizers.rectified import radam
from handgrad.manual.optimizers.schedules import (
    constant_schedule,
    cosine_schedule,
    exponential_schedule,
    linear_one_cycle_schedule,
    noam_schedule,
    one_cycle_schedule,
    relative_step_schedule,
    step_schedule,
)
from handgrad.manual.optimizers.transforms import (
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    guard,
    l2_gradient,
)

__all__ = [
    "GradientTransformation",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "constant_schedule",
    "cosine_schedule",
    "exponential_schedule",
    "guard",
    "l2_gradient",
    "lamb",
    "linear_one_cycle_schedule",
    "lion",
    "momentum",
    "muon",
    "nadam",
    "nesterov",
    "noam_schedule",
    "one_cycle_schedule",
    "orthogonalize",
    "proximal_sgd",
    "radam",
    "relative_step_schedule",
    "rmsprop",
    "sgd",
    "sgdw",
    "step_schedule",
]
