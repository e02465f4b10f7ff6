"""The learning-rate schedules of `handgrad.manual.optimizers`, out of optax."""

import jax
import jax.numpy as jnp
import optax

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


def constant_schedule(value):
    return optax.constant_schedule(value)


def step_schedule(init_value, boundaries_and_scales):
    return optax.piecewise_constant_schedule(init_value, boundaries_and_scales)


def exponential_schedule(init_value, transition_steps, decay_rate, staircase=False):
    return optax.exponential_decay(init_value, transition_steps, decay_rate, staircase=staircase)


def cosine_schedule(init_value, peak_value, warmup_steps, decay_steps, end_value=0):
    return optax.warmup_cosine_decay_schedule(
        init_value, peak_value, warmup_steps, decay_steps, end_value
    )


def noam_schedule(model_size, warmup_steps=4000, scale=1.0):
    """A straight line to the peak at step number W, then the inverse root."""
    peak = scale / (model_size * warmup_steps) ** 0.5
    rise = optax.linear_schedule(peak / warmup_steps, peak, warmup_steps - 1)
    return optax.join_schedules(
        [rise, lambda t: peak * jnp.sqrt(warmup_steps / (t + warmup_steps))], [warmup_steps - 1]
    )


def one_cycle_schedule(
    transition_steps, peak_value, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
):
    return optax.cosine_onecycle_schedule(
        transition_steps, peak_value, pct_start, div_factor, final_div_factor
    )


def linear_one_cycle_schedule(
    transition_steps,
    peak_value,
    pct_start=0.3,
    pct_final=0.85,
    div_factor=25.0,
    final_div_factor=1e4,
):
    return optax.linear_onecycle_schedule(
        transition_steps, peak_value, pct_start, pct_final, div_factor, final_div_factor
    )


def relative_step_schedule(largest=1e-2):
    return lambda t: jnp.clip(jax.lax.rsqrt(1.0 + t), max=largest)
