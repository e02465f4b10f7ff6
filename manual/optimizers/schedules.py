"""Learning rates as functions of t, the number of steps already done (0 at the first)."""

import itertools
from collections.abc import Mapping

import jax.numpy as jnp

from handgrad.manual.optimizers.core import (
    Schedule,
    check_not_negative,
    check_positive,
    check_rate,
)

__all__ = [
    "constant_schedule",
    "cosine_schedule",
    "exponential_schedule",
    "linear_one_cycle_schedule",
    "noam_schedule",
    "one_cycle_schedule",
    "relative_step_schedule",
    "step_schedule",
]


def constant_schedule(value: float) -> Schedule:
    """η(t) = η. value: η ≥ 0."""
    check_rate(value=value)
    return lambda t: value


def step_schedule(init_value: float, boundaries_and_scales: dict[int, float]) -> Schedule:
    r"""η(t) = η₀ ∏ {sₖ : t ≥ bₖ}: multiplied by sₖ from step bₖ on.

    init_value: η₀. boundaries_and_scales: {b₁: s₁, b₂: s₂, …}, such as {1000: 0.1, 2000: 0.1}.
    """
    check_rate(init_value=init_value)
    if not isinstance(boundaries_and_scales, Mapping):
        raise TypeError(
            f"boundaries_and_scales is {boundaries_and_scales!r}; it must be a dictionary, "
            f"{{step: scale}}"
        )
    for boundary, scale in boundaries_and_scales.items():
        check_not_negative(**{f"the scale at {boundary}": scale})

    def schedule(t):
        value = init_value
        for boundary, scale in boundaries_and_scales.items():
            value = value * jnp.where(_real(t) >= boundary, scale, 1.0)
        return value

    return schedule


def exponential_schedule(
    init_value: float, transition_steps: int, decay_rate: float, staircase: bool = False
) -> Schedule:
    r"""η(t) = η₀ r^(t/T); in stairs: η₀ r^⌊t/T⌋.

    init_value: η₀. transition_steps: T > 0. decay_rate: r > 0. staircase: whether in stairs.
    """
    check_rate(init_value=init_value)
    check_positive(transition_steps=transition_steps, decay_rate=decay_rate)

    def schedule(t):
        exponent = _real(t) / transition_steps
        return init_value * decay_rate ** (jnp.floor(exponent) if staircase else exponent)

    return schedule


def cosine_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
) -> Schedule:
    r"""A straight line up, then half a cosine down (Loshchilov and Hutter 2017, eq. 5).

        η(t) = η₀ + (η₁ − η₀) t/W                                        t < W
        η(t) = η₂ + (η₁ − η₂) (1 + cos π(t − W)/(T − W)) / 2             W ≤ t ≤ T
        η(t) = η₂                                                        t > T

    init_value, peak_value, end_value: η₀, η₁, η₂. warmup_steps: W ≥ 0. decay_steps: T > W, the
    warm-up included.
    """
    check_rate(init_value=init_value, peak_value=peak_value, end_value=end_value)
    check_not_negative(warmup_steps=warmup_steps, decay_steps=decay_steps)
    if not decay_steps > warmup_steps:
        raise ValueError(
            f"decay_steps is {decay_steps}; it counts the warm-up too, so it must be more than "
            f"warmup_steps, {warmup_steps}"
        )

    def schedule(t):
        t = _real(t)
        up = init_value + (peak_value - init_value) * t / max(warmup_steps, 1)
        part = jnp.clip((t - warmup_steps) / (decay_steps - warmup_steps), 0.0, 1.0)
        down = end_value + (peak_value - end_value) * (1 + jnp.cos(jnp.pi * part)) / 2
        return jnp.where(t < warmup_steps, up, down)

    return schedule


def noam_schedule(model_size: int, warmup_steps: int = 4000, scale: float = 1.0) -> Schedule:
    r"""The Transformer's rate (Vaswani et al. 2017, eq. 3), with n = t + 1 its step number:

        η = c d^(−½) min(n^(−½), n W^(−3/2))

    model_size: d. warmup_steps: W, where the peak c/√(dW) lies. scale: c.
    """
    check_positive(model_size=model_size, warmup_steps=warmup_steps)
    check_rate(scale=scale)

    def schedule(t):
        n = _real(t) + 1
        return scale * model_size**-0.5 * jnp.minimum(n**-0.5, n * warmup_steps**-1.5)

    return schedule


def one_cycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    r"""One cycle with cosine flanks (Smith and Topin 2019): η₁/D up to η₁, down to η₁/(DF).

    transition_steps: T. peak_value: η₁, reached at step ⌊pT⌋. pct_start: p. div_factor: D.
    final_div_factor: F. PyTorch's OneCycleLR is the same with its flanks one step shorter.
    """
    _check_cycle(transition_steps, peak_value, div_factor, final_div_factor, pct_start=pct_start)
    start = peak_value / div_factor
    knots = [
        (0, start),
        (int(pct_start * transition_steps), peak_value),
        (transition_steps, start / final_div_factor),
    ]
    return _through(knots, lambda part: (1 - jnp.cos(jnp.pi * part)) / 2)


def linear_one_cycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    r"""One cycle with straight flanks (Smith 2018): η₁/D, η₁, η₁/D, and at last η₁/(DF).

    transition_steps: T. peak_value: η₁. pct_start, pct_final: the parts of T at which the rate is
    at η₁, and back at η₁/D. div_factor: D. final_div_factor: F, as in `one_cycle_schedule`.
    """
    parts = {"pct_start": pct_start, "pct_final": pct_final}
    _check_cycle(transition_steps, peak_value, div_factor, final_div_factor, **parts)
    start = peak_value / div_factor
    knots = [
        (0, start),
        (int(pct_start * transition_steps), peak_value),
        (int(pct_final * transition_steps), start),
        (transition_steps, start / final_div_factor),
    ]
    return _through(knots, lambda part: part)


def relative_step_schedule(largest: float = 1e-2) -> Schedule:
    r"""Adafactor's own rate (Shazeer and Stern 2018, algorithm 5): min(c, 1/√n), n = t + 1.

    largest: c, 1e-2 in the paper.
    """
    check_rate(largest=largest)
    return lambda t: jnp.minimum(largest, (_real(t) + 1) ** -0.5)


def _check_cycle(transition_steps, peak_value, div_factor, final_div_factor, **parts):
    check_rate(peak_value=peak_value)
    check_positive(
        transition_steps=transition_steps, div_factor=div_factor, final_div_factor=final_div_factor
    )
    check_not_negative(**parts)


def _through(knots, ease) -> Schedule:
    """Through the points (step, rate), each stretch by `ease` from 0 to 1; level afterwards."""
    steps = [step for step, _ in knots]
    if any(after <= before for before, after in itertools.pairwise(steps)):
        raise ValueError(
            f"the knots of the cycle lie at the steps {steps}; they must increase: give more "
            f"transition_steps, or parts further apart"
        )

    def schedule(t):
        t = _real(t)
        value = knots[-1][1]
        for (begin, low), (end, high) in reversed(list(itertools.pairwise(knots))):
            part = jnp.clip((t - begin) / (end - begin), 0.0, 1.0)
            value = jnp.where(t < end, low + (high - low) * ease(part), value)
        return value

    return schedule


def _real(t):
    return jnp.asarray(t, jnp.result_type(float))
