"""Two optimisers run side by side, and which leaf of the one answers which of the other."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Pairs", "Run", "check_recorded", "rounded", "steps_at_once"]

SYNONYMS = {"t": "count", "step": "count", "m": "mu", "v": "nu"}
BUDGET = 2**28  # bytes of trajectory that are held at once


def rounded(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"a leaf has dtype {array.dtype}; parameters and gradients must be floating-point "
            f"arrays"
        )
    return array.astype(np.float32)


def check_recorded(params: Any, recorded: Any) -> int:
    if jax.tree.structure(params) != jax.tree.structure(recorded):
        raise ValueError(
            f"the recorded gradients are the tree {jax.tree.structure(recorded)}; they must be "
            f"the tree of the parameters, {jax.tree.structure(params)}"
        )
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(recorded)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"the recorded gradients have {sorted(lengths)} steps; every leaf must have the same "
            f"number, on its leading axis"
        )
    for (path, p), g in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(recorded), strict=True
    ):
        if g.shape[1:] != p.shape:
            raise ValueError(
                f"the recorded gradient {jax.tree_util.keystr(path)} has shape {g.shape}; it must "
                f"be (steps, *{p.shape})"
            )
    return lengths.pop()


@contextlib.contextmanager
def _settings(dtype: Any) -> Iterator[None]:
    """The precision, the CPU, and JAX's ordinary promotion of numbers, which optax relies on."""
    with (
        jax.enable_x64(dtype == np.float64),
        jax.default_device(jax.devices("cpu")[0]),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


class Run:
    """Both optimisers in one precision, some steps at a time; x64 is on only inside `advance`."""

    def __init__(self, manual, reference, pairs, params, gradients, free, dtype):
        self.dtype = dtype
        self.carry = params
        self.recorded = None if callable(gradients) else gradients

        def one(optimizer, params, state, grads):
            updates, state = optimizer.update(grads, state, params)
            return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates), state

        def step(carry, grads):
            (ours, our_state), (theirs, their_state) = carry
            grads = gradients(theirs) if grads is None else grads
            mine = gradients(ours) if free else grads
            carry = one(manual, ours, our_state, mine), one(reference, theirs, their_state, grads)
            return carry, pairs.pick(*carry)

        def go(carry, grads, length, first):
            if first:
                carry = tuple((carry, optimizer.init(carry)) for optimizer in (manual, reference))
            start = pairs.pick(*carry)
            carry, trajectory = jax.lax.scan(step, carry, grads, length=length)
            return carry, start, trajectory

        self.go = jax.jit(go, static_argnums=(2, 3), compiler_options=_quick())

    def advance(self, begin: int, end: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The trajectories of (manual, reference), a leaf (1 + steps, *shape), the start first."""
        with _settings(self.dtype):
            cast = functools.partial(jax.tree.map, lambda leaf: leaf.astype(self.dtype))
            carry = cast(self.carry) if begin == 0 else self.carry
            grads = cast(jax.tree.map(lambda g: g[begin:end], self.recorded))
            self.carry, start, trajectory = self.go(carry, grads, end - begin, begin == 0)
            manual, reference = jax.tree.map(
                lambda s, t: np.concatenate([np.asarray(s)[None], t]).astype(np.float64),
                start,
                trajectory,
            )
        return manual, reference


@functools.cache
def _quick() -> dict[str, Any]:
    """The options of XLA that compile these small loops four times as fast, where it has them."""
    wanted: dict[str, Any] = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }
    for option in dict(wanted):
        try:
            jax.jit(lambda: 0, compiler_options={option: wanted[option]}).lower().compile()
        except jax.errors.JaxRuntimeError:
            del wanted[option]
    return wanted


def steps_at_once(params, steps):
    """How many steps of both optimisers in float64 fit into the memory allowed."""
    bytes_a_step = 64 * sum(leaf.size for leaf in jax.tree.leaves(params)) + 1
    return int(max(1, min(steps, BUDGET // bytes_a_step)))


class Pairs:
    """Which leaf answers which: the state's by the name of their field, then the parameters'."""

    def __init__(self, manual, reference, params, fields):
        self.paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        with _settings(np.float32):
            states = [
                self._index(jax.eval_shape(optimizer.init, params))
                for optimizer in (manual, reference)
            ]
        theirs = states[1]
        ours = {}
        for (what, path), entry in states[0].items():
            synonym = SYNONYMS.get(what, what)
            other = synonym if (what, path) not in theirs and (synonym, path) in theirs else what
            ours[fields.get(what, other), path] = entry
        for key in ours.keys() & theirs.keys():
            if ours[key][1].shape != theirs[key][1].shape:
                raise ValueError(
                    f"the state {self._label(key)} has shape {ours[key][1].shape}, the "
                    f"reference's {theirs[key][1].shape}: they cannot be compared"
                )
        common = [key for key in ours if key in theirs]
        self.positions = [(ours[key][0], theirs[key][0]) for key in common]
        self.states = len(common)
        self.labels = [self._label(key) for key in common]
        self.labels += [f"params{jax.tree_util.keystr(path)}" for path in self.paths]
        self.exact = [not jnp.issubdtype(ours[key][1].dtype, jnp.inexact) for key in common]
        self.exact += [False] * len(self.paths)
        self.only_manual = tuple(self._label(key) for key in ours if key not in theirs)
        self.only_reference = tuple(self._label(key) for key in theirs if key not in ours)

    def _index(self, state) -> dict:
        """(field, path of the parameter) -> (position, shape): the first of that name."""
        found: dict = {}
        for position, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state)):
            found.setdefault(self._key(path), (position, leaf))
        return found

    def _key(self, path) -> tuple[str, tuple]:
        cuts = [k for k in range(1, len(path)) if path[k:] in self.paths]
        named = [k + 1 for k, entry in enumerate(path) if _field(entry) is not None]
        cut = min(cuts, default=max(named, default=len(path)))
        fields = [_field(entry) for entry in path[:cut]]
        what = next((field for field in reversed(fields) if field), "state")
        return what, tuple(path[cut:])

    @staticmethod
    def _label(key) -> str:
        return f"{key[0]}{jax.tree_util.keystr(key[1])}"

    def pick(self, manual, reference):
        """The compared leaves of the two carries (params, state)."""
        leaves = [jax.tree.leaves(state) for _, state in (manual, reference)]
        return tuple(
            [of[pair[side]] for pair in self.positions] + jax.tree.leaves(params)
            for side, (of, (params, _)) in enumerate(zip(leaves, (manual, reference), strict=True))
        )


def _field(entry: Any) -> str | None:
    match entry:
        case jax.tree_util.GetAttrKey():
            return entry.name
        case jax.tree_util.DictKey():
            return str(entry.key)
        case _:
            return None
