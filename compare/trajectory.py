"""Two optimisers run side by side, and which leaf of the one answers which of the other."""

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual.quick import compiled

__all__ = ["Pairs", "Run", "check_recorded", "frozen_by_tracing", "rounded", "steps_at_once"]

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
    if not lengths:
        raise ValueError("the recorded gradients and the parameters are empty trees")
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
                f"be ({', '.join(['steps', *map(str, p.shape)])})"
            )
    return lengths.pop()


def frozen_by_tracing(optimizer: Any, params: Any) -> bool:
    """Whether its second step is another program: it counts, say, in an object of its own."""
    with _settings(np.float32):
        state = jax.eval_shape(optimizer.init, params)
        steps = [jax.make_jaxpr(optimizer.update)(params, state, params) for _ in range(2)]
    return str(steps[0]) != str(steps[1])


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

    def __init__(self, manual, reference, pairs, params, gradients, free, dtype, plain):
        ours, theirs = (functools.partial(pairs.pick, side) for side in (0, 1))
        asked = gradients if callable(gradients) else None
        self.dtype = dtype
        self.recorded = None if asked else gradients
        self.reference = _compiled(reference, theirs, asked)
        self.manual = (_plain if plain else _compiled)(manual, ours, asked if free else None)
        self.carries = params, params

    def advance(self, begin: int, end: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The trajectories of (manual, reference), a leaf (1 + steps, *shape), the start first."""
        first, length = begin == 0, end - begin
        with _settings(self.dtype):
            cast = functools.partial(jax.tree.map, lambda leaf: leaf.astype(self.dtype))
            ours, theirs = (cast(carry) if first else carry for carry in self.carries)
            grads = cast(jax.tree.map(lambda g: g[begin:end], self.recorded))
            theirs, grads, reference = self.reference(theirs, grads, length, first)
            ours, _, manual = self.manual(ours, grads, length, first)
            self.carries = ours, theirs
        return manual, reference


def _moved(params, updates):
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)


def _compiled(optimizer, pick, asked):
    """(carry, grads, length, first) -> the carry after them, the gradients given, the leaves."""

    def step(carry, grads):
        params, state = carry
        grads = asked(params) if asked else grads
        updates, state = optimizer.update(grads, state, params)
        carry = _moved(params, updates), state
        return carry, (grads, pick(*carry))

    @functools.partial(compiled, static_argnums=(2, 3))
    def go(carry, grads, length, first):
        if first:
            carry = carry, optimizer.init(carry)
        start = pick(*carry)
        carry, (given, leaves) = jax.lax.scan(step, carry, None if asked else grads, length=length)
        return carry, given, start, leaves

    def run(*arguments):
        carry, given, start, leaves = go(*arguments)
        return carry, given, [_joined(s, t) for s, t in zip(start, leaves, strict=True)]

    return run


def _plain(optimizer, pick, asked):
    """As `_compiled`, one step of plain Python after the other, on NumPy's arrays."""
    optimizer = copy.deepcopy(optimizer)  # for what it keeps in an object of its own

    def run(carry, grads, length, first):
        own = functools.partial(jax.tree.map, np.array)  # copies, which may be changed in place
        if first:
            carry = own(carry), optimizer.init(own(carry))
        start, leaves = own(pick(*carry)), []
        for k in range(length):
            params, state = carry
            given = asked(params) if asked else jax.tree.map(lambda g, k=k: g[k], grads)
            updates, state = optimizer.update(own(given), state, own(params))
            carry = own(_moved(params, updates)), state
            leaves.append(own(pick(*carry)))
        columns = zip(*leaves, strict=True)
        return carry, grads, [_joined(s, c) for s, c in zip(start, columns, strict=True)]

    return run


def _joined(start: Any, steps: Any) -> np.ndarray:
    return np.concatenate([np.asarray(start)[None], np.asarray(steps)]).astype(np.float64)


def steps_at_once(params, steps):
    """How many steps of both optimisers in float64 fit into the memory allowed."""
    bytes_a_step = 64 * sum(leaf.size for leaf in jax.tree.leaves(params)) + 1
    return int(max(1, min(steps, BUDGET // bytes_a_step)))


class Pairs:
    """Which leaf answers which: the state's by the name of their field, then the parameters'."""

    def __init__(self, manual, reference, params, fields, plain):
        self.paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        with _settings(np.float32):
            theirs = self._index(jax.eval_shape(reference.init, params))
            mine = self._index(
                jax.tree.map(np.asarray, copy.deepcopy(manual).init(params))
                if plain
                else jax.eval_shape(manual.init, params)
            )
        ours = {}
        for (what, path), entry in mine.items():
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

    def pick(self, side, params, state):
        """The leaves compared, of the side's parameters and state."""
        leaves = jax.tree.leaves(state)
        return [leaves[pair[side]] for pair in self.positions] + jax.tree.leaves(params)


def _field(entry: Any) -> str | None:
    match entry:
        case jax.tree_util.GetAttrKey():
            return entry.name
        case jax.tree_util.DictKey():
            return str(entry.key)
        case _:
            return None
