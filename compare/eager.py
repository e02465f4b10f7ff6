"""A function written with JAX, run by NumPy.

Tracing a function takes JAX ten thousand times as long as NumPy takes to multiply its little
arrays. Where very many variants of one are to be tried, they run here, on stand-ins for jax,
jax.numpy, jax.nn and jax.lax; what these lack is JAX's own, run at once. It is for finding, not for
deciding: what is found here is traced and judged like everything else.
"""

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.compare.patience import a_round

__all__ = ["Array", "Names"]


class Array(np.ndarray):
    """A NumPy array that is never changed in place, and has `.at`."""

    @property
    def at(self) -> "_At":
        return _At(self)

    def _not_in_place(self, other: Any) -> Any:
        return NotImplemented

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __imatmul__ = __ipow__ = _not_in_place


class _At:
    def __init__(self, array: Array, index: Any = ()):
        self.array, self.index = array, index

    def __getitem__(self, index: Any) -> "_At":
        return _At(self.array, index)

    def _changed(self, ufunc: np.ufunc | None, value: Any) -> Array:
        new = np.array(self.array)
        if ufunc is None:
            new[self.index] = value
        else:
            ufunc.at(new, self.index, np.broadcast_to(value, new[self.index].shape))  # or it dies
        return new.view(Array)

    def set(self, value: Any, **_: Any) -> Array:
        return self._changed(None, value)

    def add(self, value: Any, **_: Any) -> Array:
        return self._changed(np.add, value)

    def multiply(self, value: Any, **_: Any) -> Array:
        return self._changed(np.multiply, value)

    def divide(self, value: Any, **_: Any) -> Array:
        return self._changed(np.divide, value)

    def max(self, value: Any, **_: Any) -> Array:
        return self._changed(np.maximum, value)

    def min(self, value: Any, **_: Any) -> Array:
        return self._changed(np.minimum, value)

    def get(self, **_: Any) -> Any:
        return self.array[self.index]


def _held(value: Any) -> Any:
    """Arrays as this module has them, in whatever structure."""
    if isinstance(value, Array):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(Array)
    if isinstance(value, jax.Array):
        return value if isinstance(value, Tracer) else np.asarray(value).view(Array)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_held, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    return value


def _holding(function: Callable) -> Callable:
    return lambda *args, **kwargs: _held(function(*args, **kwargs))


def _either(mine: Callable, theirs: Callable) -> Callable:
    """NumPy's function, or JAX's where that has other arguments."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return mine(*args, **kwargs)
        except TypeError:
            return theirs(*args, **kwargs)

    return run


class _Module:
    """A module: what stands here, else NumPy's function of that name, else JAX's."""

    def __init__(self, module: types.ModuleType, own: dict[str, Any], numpy: Any = None):
        self._module, self._own, self._numpy = module, own, numpy

    def __getattr__(self, name: str) -> Any:
        found = self._own.get(name)
        if found is None:
            theirs = getattr(self._module, name)
            mine = getattr(self._numpy, name, None)
            found = theirs
            if isinstance(theirs, types.ModuleType):
                found = _Module(theirs, {}, mine)
            elif callable(theirs) and not isinstance(theirs, type):
                found = _holding(_either(mine, theirs) if callable(mine) else theirs)
        setattr(self, name, found)
        return found


# --- what takes functions ------------------------------------------------------------------------


def _scan(f, init, xs=None, length=None, reverse=False, unroll=1):
    leaves, tree = jax.tree.flatten(xs)
    n = len(leaves[0]) if leaves else int(length or 0)
    carry, ys = init, []
    for t in reversed(range(n)) if reverse else range(n):
        a_round()
        before = carry
        carry, y = f(carry, jax.tree.unflatten(tree, [_held(leaf[t]) for leaf in leaves]))
        _same_form(before, carry)
        ys.append(y)
    return carry, jax.tree.map(_stack, *(ys[::-1] if reverse else ys))


def _same_form(before: Any, after: Any) -> None:
    """As JAX has it; what grew with every step would soon fill the memory."""
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(carry)] for carry in (before, after)]
    if shapes[0] != shapes[1]:
        raise TypeError(f"the carry had the shapes {shapes[0]} and has {shapes[1]}")


def _stack(*values: Any) -> Any:
    return np.stack(values).view(Array)


def _vmap(f, in_axes=0, out_axes=0):
    def run(*args):
        axes = in_axes if isinstance(in_axes, list | tuple) else [in_axes] * len(args)
        moved = [
            a if axis is None else jax.tree.map(lambda x, k=axis: np.moveaxis(x, k, 0), a)
            for a, axis in zip(args, axes, strict=True)
        ]
        n = next(
            len(jax.tree.leaves(a)[0])
            for a, axis in zip(moved, axes, strict=True)
            if axis is not None
        )
        rows = [
            f(*(
                a if axis is None else jax.tree.map(lambda x, k=k: _held(x[k]), a)
                for a, axis in zip(moved, axes, strict=True)
            ))
            for k in range(n)
        ]  # fmt: skip
        out = jax.tree.map(_stack, *rows)
        if isinstance(out_axes, list | tuple):
            return type(out)(_back(y, k) for y, k in zip(out, out_axes, strict=True))
        return jax.tree.map(lambda y: _back(y, out_axes), out)

    return run


def _back(y: Any, axis: int) -> Any:
    return _held(np.moveaxis(y, 0, axis))


def _fori_loop(lower, upper, body, init, **_):
    for i in range(int(lower), int(upper)):
        a_round()
        before, init = init, body(i, init)
        _same_form(before, init)
    return init


def _cond(test, true, false, *operands):
    return true(*operands) if test else false(*operands)


def _plain(function: Any = None, **_: Any) -> Any:
    """jit and checkpoint: the function itself."""
    return _plain if function is None else function


# --- what is used most ---------------------------------------------------------------------------


def _softmax(x, axis=-1, where=None):
    e = np.exp(x - np.max(x, axis, keepdims=True))
    return _held(e / e.sum(axis, keepdims=True))


def _logsumexp(x, axis=None, keepdims=False):
    top = np.max(x, axis, keepdims=True)
    result = np.log(np.sum(np.exp(x - top), axis, keepdims=True)) + top
    return _held(result if keepdims else np.squeeze(result, axis))


def _log_softmax(x, axis=-1):
    return _held(x - _logsumexp(x, axis, True))


def _sigmoid(x):
    return _held(1 / (1 + np.exp(-np.asarray(x))))


def _one_hot(x, num_classes, dtype=None, axis=-1):
    return _held((np.asarray(x)[..., None] == np.arange(num_classes)).astype(float))


def _asarray(x, dtype=None, copy=None):
    return _held(np.asarray(x, dtype))


def _segments(ufunc, empty):
    def run(data, segment_ids, num_segments=None, **_):
        ids = np.asarray(segment_ids)
        n = int(ids.max(initial=-1)) + 1 if num_segments is None else int(num_segments)
        out = np.full((n, *np.shape(data)[1:]), empty)
        kept = (ids >= 0) & (ids < n)  # as JAX has it
        ufunc.at(out, ids[kept], np.asarray(data)[kept])
        return _held(out)

    return run


_erf = _holding(np.vectorize(math.erf, otypes=[float]))
_NN = {
    "softmax": _softmax, "log_softmax": _log_softmax, "sigmoid": _sigmoid, "one_hot": _one_hot,
    "logsumexp": _logsumexp, "relu": _holding(lambda x: np.maximum(x, 0)),
    "softplus": _holding(lambda x: np.logaddexp(x, 0.0)),
    "silu": _holding(lambda x: x * _sigmoid(x)), "swish": _holding(lambda x: x * _sigmoid(x)),
}  # fmt: skip
_LAX = {
    "scan": _scan, "fori_loop": _fori_loop, "cond": _cond, "stop_gradient": _held,
    "rsqrt": _holding(lambda x: 1 / np.sqrt(x)), "exp": _holding(np.exp), "log": _holding(np.log),
    "select": _holding(np.where), "erf": _erf,
}  # fmt: skip
_NUMPY = {"array": _asarray, "asarray": _asarray, "vectorize": jnp.vectorize}


@functools.cache
def _modules() -> dict[types.ModuleType, _Module]:
    numpy = _Module(jnp, _NUMPY, np)
    nn, lax = _Module(jax.nn, _NN), _Module(jax.lax, _LAX)
    special = _Module(jax.scipy.special, {"erf": _erf, "expit": _sigmoid, "logsumexp": _logsumexp})
    scipy = _Module(jax.scipy, {"special": special})
    segments = {
        "segment_sum": _segments(np.add, 0.0), "segment_prod": _segments(np.multiply, 1.0),
        "segment_max": _segments(np.maximum, -np.inf), "segment_min": _segments(np.minimum, np.inf),
    }  # fmt: skip
    ops = _Module(jax.ops, segments)
    own = {
        "numpy": numpy, "ops": ops, "nn": nn, "lax": lax, "scipy": scipy, "vmap": _vmap,
        "jit": _plain, "checkpoint": _plain, "remat": _plain, "tree": jax.tree,
        "tree_util": jax.tree_util,
    }  # fmt: skip
    return {
        jax: _Module(jax, own), jnp: numpy, jax.nn: nn, jax.lax: lax, jax.scipy: scipy,
        jax.scipy.special: special, jax.ops: ops,
    }  # fmt: skip


class Names:
    """The globals of functions, with the stand-ins; functions of the same module use them too."""

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}

    def __call__(self, namespace: dict[str, Any]) -> dict[str, Any]:
        found = self._known.get(id(namespace))
        if found is None:
            found = self._known[id(namespace)] = {}
            stand_ins = _modules()
            for name, value in namespace.items():
                if isinstance(value, types.ModuleType) and value in stand_ins:
                    value = stand_ins[value]
                elif isinstance(value, types.FunctionType) and value.__globals__ is namespace:
                    value = _with(value, found)
                found[name] = value
        return found


def _with(f: types.FunctionType, namespace: dict[str, Any]) -> types.FunctionType:
    new = types.FunctionType(f.__code__, namespace, f.__name__, f.__defaults__, f.__closure__)
    new.__kwdefaults__ = f.__kwdefaults__
    return new
