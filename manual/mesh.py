"""Inside `jax.shard_map`: over which axes of the mesh an array varies, and how to change that.

Outside of it, and with check_vma=False, no array varies, and everything here returns what it is
given. Plain JAX does the same by itself; a rule that is written by hand has to say it.
"""

from typing import Any

import jax
from jax import lax
from jax.core import Tracer

__all__ = ["axes_of", "fitted", "spread"]


def axes_of(tree: Any) -> frozenset[str]:
    """The mesh axes over which any array of the tree varies."""
    return frozenset().union(*map(_axes, jax.tree.leaves(tree)))


def spread(tree: Any, *like: Any) -> Any:
    """The tree, varying over all the axes over which it or anything like it does.

    So has the start of a scan to be, which does not vary where it is made of zeros.
    """
    axes = axes_of((tree, like))
    return jax.tree.map(lambda x: _varying(x, axes), tree) if axes else tree


def fitted(cotangent: Any, axes: frozenset[str]) -> Any:
    """The cotangent of an argument that varies over these axes, and over no others.

    An argument has one value along every other axis, where the cotangents of its copies add up.
    """
    copied = _axes(cotangent) - axes
    return _varying(lax.psum(cotangent, tuple(sorted(copied))) if copied else cotangent, axes)


def _axes(x: Any) -> frozenset[str]:
    if not isinstance(x, Tracer):
        return frozenset()
    kind = jax.typeof(x)
    kind = getattr(kind, "manual_axis_type", kind)  # by the name of JAX 0.10
    return getattr(kind, "varying", getattr(kind, "vma", frozenset()))


def _varying(x: Any, axes: frozenset[str]) -> Any:
    missing = tuple(sorted(axes - _axes(x)))
    return lax.pcast(x, missing, to="varying") if missing else x
