"""On a mesh with `Explicit` axes the type of an array says along which of them it is split.

There plain code stops, with a ShardingTypeError, where the layouts of its operands leave open
that of a result: of a convolution, of the blocks of a scan. An operation that does is left to the
compiler as a whole, and what comes out of it is laid out as its arguments are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard, use_abstract_mesh

__all__ = ["as_laid_out", "layout_of", "settled"]


def settled(function: Callable, *args: Any) -> Any:
    """function(*args); where JAX leaves a layout open in it, the compiler chooses all of them.

    The results are then split along the leading axes that they share with an argument as that
    one is: the first of those with which they share most.
    """
    try:
        return function(*args)
    except Exception:  # by any name: the carry of a scan, an axis that two operands are split along
        found = [(leaf.shape, layout_of(leaf)) for leaf in jax.tree.leaves(args) if _is_array(leaf)]
        given = [(shape, layout) for shape, layout in found if layout is not None]
        if not given:
            raise  # what is wrong for another reason is so again below
    mesh: Any = given[0][1].mesh
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    automatic = {a: AxisType.Auto for a, kind in types if kind == AxisType.Explicit}
    with use_abstract_mesh(mesh.update_axis_types(automatic)):
        result = function(*jax.tree.map(_open, args))

    def put(leaf):
        shared, layout = max(
            ((_shared(shape, leaf.shape), layout) for shape, layout in given), key=lambda s: s[0]
        )
        return as_laid_out(leaf, NamedSharding(mesh, PartitionSpec(*layout.spec[:shared])))

    return jax.tree.map(lambda leaf: put(leaf) if _is_array(leaf) else leaf, result)


def layout_of(leaf: Any) -> NamedSharding | None:
    """How an array is laid out, where its type says so."""
    found = jax.typeof(leaf).sharding if _is_array(leaf) else None
    return found if found is not None and AxisType.Explicit in found.mesh.axis_types else None


def as_laid_out(array: Any, layout: NamedSharding | None) -> Any:
    return array if layout is None or layout_of(array) == layout else reshard(array, layout)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def _open(leaf: Any) -> Any:
    if not _is_array(leaf):
        return leaf
    known = not isinstance(leaf, Tracer) and leaf.is_fully_addressable
    if known and jnp.issubdtype(leaf.dtype, jnp.integer):
        return np.asarray(leaf)  # laid out anew inside of jit, what is known were so no more
    return reshard(leaf, PartitionSpec())


def _shared(shape: tuple, other: tuple) -> int:
    """The number of leading axes that two shapes have in common."""
    equal = [a == b for a, b in zip(shape, other, strict=False)]
    return (*equal, False).index(False)
