"""The platform that a candidate's accuracy is measured on."""

import contextlib
from typing import Any

import jax

__all__ = ["PLATFORMS", "first", "on"]

PLATFORMS = ("cpu", "gpu", "tpu")


def first(platform: str) -> Any:
    """The first device of a platform; a ValueError that names those that are here, if it is not."""
    if platform not in PLATFORMS:
        raise ValueError(f"the platform is {platform!r}; it must be one of: {', '.join(PLATFORMS)}")
    try:
        return jax.local_devices(backend=platform)[0]
    except RuntimeError:  # of a platform that is not installed, and of one without a device
        here = dict.fromkeys(name for name in PLATFORMS if _is_here(name))
        extra = {"gpu": "cuda", "tpu": "tpu"}.get(platform)
        hint = f"; pip install 'handgrad[{extra}]' on a machine that has one" if extra else ""
        raise ValueError(
            f"JAX finds no {platform} here, only: {', '.join(here) or 'nothing'}{hint}"
        ) from None


def on(device: Any) -> Any:
    """A context in which JAX computes on a device; None leaves it where it is."""
    return contextlib.nullcontext() if device is None else jax.default_device(device)


def _is_here(platform: str) -> bool:
    try:
        return bool(jax.local_devices(backend=platform))
    except RuntimeError:
        return False
