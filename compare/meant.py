"""Gradients that are not, on purpose, the derivative of the reference's values."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal

from handgrad.compare.interpret import walk

__all__ = ["meant"]

CONSTANT = {"sign", "floor", "ceil", "round", "stop_gradient"}  # almost everywhere


def meant(jaxpr: Jaxpr) -> str:
    """By what a function says so, in words, or "".

    A stop_gradient does; so does a custom_vjp or custom_jvp around the identity (a gradient
    reversed, scaled or clipped) or around what is constant almost everywhere (rounding, a spike).
    Around any other function the rule claims to be its derivative, and may be wrong.
    """
    for eqn in walk(jaxpr):
        name = eqn.primitive.name
        if name == "stop_gradient":
            return "a stop_gradient"
        if name.startswith(("custom_vjp_call", "custom_jvp_call")):
            inner = eqn.params["call_jaxpr"].jaxpr
            identity = all(any(v is x for x in inner.invars) for v in inner.outvars)
            if identity or not any(_varying(inner, [True] * len(inner.invars))):
                return f"a derivative of its own ({name[:10]})"
    return ""


def _varying(jaxpr: Jaxpr, inputs: list[bool]) -> list[bool]:
    """Which outputs have a derivative that is not zero almost everywhere, given which inputs."""
    varies: dict[Any, bool] = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(v):
        return not isinstance(v, Literal) and varies.get(v, False)

    for eqn in jaxpr.eqns:
        given = [of(v) for v in eqn.invars]
        inner = eqn.params.get("jaxpr") if eqn.primitive.name in ("pjit", "jit") else None
        if eqn.primitive.name in CONSTANT or not any(given):
            given = [False] * len(eqn.outvars)
        elif inner is not None:
            given = _varying(inner.jaxpr, given)
        else:
            given = [True] * len(eqn.outvars)
        for v, g in zip(eqn.outvars, given, strict=True):
            dtype = getattr(v.aval, "dtype", np.int32)
            varies[v] = g and jnp.issubdtype(dtype, jnp.inexact)
    return [of(v) for v in jaxpr.outvars]
