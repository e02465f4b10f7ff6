"""Compiling for one small evaluation, where what costs time is the compiler."""

import functools
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["compiled"]


def compiled(function: Callable, **options: Any) -> Callable:
    """`jax.jit` with the optimisations left out that take longer than a small program runs."""

    @functools.cache
    def program() -> Callable:
        return jax.jit(function, compiler_options=_left_out(), **options)

    @functools.wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        return program()(*args, **named)

    return run


@functools.cache
def _left_out() -> dict[str, Any]:
    """Those that this XLA knows: an option that is gone would be an error."""
    wanted: dict[str, Any] = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }
    for option, value in tuple(wanted.items()):
        try:
            jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
        except jax.errors.JaxRuntimeError:
            del wanted[option]
    return wanted
