"""Compiling for one small evaluation, where what costs time is the compiler."""

import functools

import jax

__all__ = ["compiled"]

# `jax.jit` with the optimisations left out that take longer than a small program runs
compiled = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    },
)
