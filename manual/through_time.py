"""What goes on in time: a cell from step to step, and back through all of them.

The reverse scan makes only the deltas; x̄ and the weight gradients are products of many deltas. They
are made for a block of steps at a time: the deltas of one block are all that ever exists of them,
and are still in the cache when they are multiplied.

Both are compiled once for their shapes: a scan outside of `jit` would be, at every call.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual.cells import Cell, ahead, behind, joined, to_x
from handgrad.manual.mesh import spread
from handgrad.manual.numerics import wide
from handgrad.manual.trees import found

__all__ = ["backward", "carried", "check", "forward"]

_DELTAS = 2**19  # in a block: the 2 MB stay in the cache


def check(function, name, cell: Cell, x, state, weights, states=None):
    """Raise a ValueError that names what does not fit into a net of this cell, before it runs.

    states: what the function calls them, if not as the cell does.
    """
    states = cell.states if states is None else states
    if jnp.ndim(x) != 3 or x.shape[1] == 0:
        raise ValueError(
            f"{function}: x has shape {jnp.shape(x)}; it must be (batch, time, in) with at least "
            "one step of time"
        )
    if jnp.ndim(state[0]) != 2:
        raise ValueError(
            f"{function}: {states[0]} has shape {jnp.shape(state[0])}; it must be (batch, hidden), "
            f"with x of shape {x.shape} ({x.shape[0]}, hidden)"
        )
    hidden = state[0].shape[1]
    gates = cell.gates * hidden
    needed = dict.fromkeys(states, (x.shape[0], hidden)) | {
        "wx": (x.shape[2], gates), "wh": (hidden, gates), "b": (gates,), "bn": (hidden,),
        "peepholes": (3, hidden),
    }  # fmt: skip
    for argument, array in zip((*states, *cell.weights), state + weights, strict=True):
        if getattr(array, "shape", None) != needed[argument]:
            raise ValueError(
                f"{function}: {argument} {found(array)}; with x of shape {x.shape} "
                f"and {hidden} hidden units of the cell {name!r} it must be {needed[argument]}"
            )


def carried(*arrays):
    """All in one dtype: that of the widest, and float32 at least."""
    dtype = jnp.result_type(*(wide(a.dtype) for a in jax.tree.leaves(arrays)))
    return jax.tree.map(lambda a: a.astype(dtype), arrays)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"), inline=True)
def forward(cell: Cell, x, state, weights, alive=None, cuts=None, reverse=False):
    """(all states after each step, the last one, residuals).

    x: (batch, time, in). state: a tuple of (batch, hidden). alive: (batch, time), or None: where
    it is false the state stays. cuts: (time,), or None: where nothing flows back any further.
    All states are a tuple of (batch, time, hidden), the last one is like `state`.
    """
    maps = ahead(cell.maps(weights))
    columns = jnp.transpose(x, (1, 2, 0))

    def step(carried, t):
        before, states = carried
        if cuts is not None:
            before = tuple(jnp.where(cuts[t], lax.stop_gradient(s), s) for s in before)
        after, kept = cell.step(before, columns[t], maps)
        after = _where(alive, t, after, before)
        put = [
            lax.dynamic_update_index_in_dim(s, a.T, t, 1)
            for s, a in zip(states, after, strict=True)
        ]
        return (after, tuple(put)), kept

    states = tuple(jnp.zeros((*x.shape[:2], s.shape[1]), s.dtype) for s in state)
    start = spread((tuple(s.T for s in state), states), x, weights)
    (end, states), kept = lax.scan(step, start, jnp.arange(x.shape[1]), reverse=reverse)
    return states, tuple(s.T for s in end), (x, state, weights, states, kept)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"), inline=True)
def backward(cell: Cell, residuals, dstates, dend, alive=None, cuts=None, reverse=False):
    """The cotangents of x, the first state and the weights.

    dstates, dend: the cotangents of what `forward` returns, dstates perhaps of h alone. Against the
    order of the forward the cell takes s̄ₜ + s̄ₜ₊₁ to s̄ₜ₋₁ and δₜ; of the deltas of a block of steps,
    in columns, come x̄ = Wx δ and, with what they were made of in rows, W̄ᵀ = Σ δ [x; h]ᵀ.
    """
    x, state, weights, states, kept = residuals
    (batch, time, features), maps = x.shape, cell.maps(weights)
    maps_behind = behind(maps)

    def block(carried, first, size):
        """The steps from `first` on, and what they add."""
        dstate, dx, dmaps = carried

        def step(dstate, now):
            t, given = now
            dafter = (*map(jnp.add, dstate, given), *dstate[len(given) :])
            of_step = jax.tree.map(lambda a: a[t], kept)
            dbefore, deltas = cell.back(dafter, of_step, maps_behind)
            dbefore = _where(alive, t, dbefore, dstate)
            if cuts is not None:
                dbefore = tuple(jnp.where(cuts[t], 0, s) for s in dbefore)
            return dbefore, _where(alive, t, deltas, [0] * len(deltas))

        given = tuple(jnp.transpose(_steps(d, first, size), (1, 2, 0)) for d in dstates)
        steps = first + jnp.arange(size), given
        dstate, deltas = lax.scan(step, dstate, steps, reverse=not reverse)
        deltas = [jnp.swapaxes(d, 0, 1) for d in deltas]
        after = [jnp.swapaxes(_steps(s, first, size), 0, 1) for s in states]
        before = [_before(*of, first, reverse) for of in zip(states, after, state, strict=True)]
        rows = jnp.swapaxes(_steps(x, first, size), 0, 1), before, after
        of_block = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, first, size), kept)
        dmaps = jax.tree.map(jnp.add, dmaps, cell.gather(deltas, *rows, of_block))
        of_x = jnp.transpose(to_x(maps, deltas), (2, 1, 0))
        return dstate, lax.dynamic_update_slice_in_dim(dx, of_x, first, 1), dmaps

    size, blocks, rest = _blocks(batch, time, cell.gates * state[0].shape[1])

    def whole(carried):
        if blocks == 1:
            return block(carried, 0, size)
        firsts = size * jnp.arange(blocks)
        run = lax.scan(lambda c, k: (block(c, k, size), None), carried, firsts, reverse=not reverse)
        return run[0]

    parts = [whole, lambda carried: block(carried, blocks * size, rest)][: 1 + bool(rest)]
    dmaps = jax.tree.map(jnp.zeros_like, joined(maps))
    start = tuple(d.T for d in dend), jnp.zeros_like(x), dmaps
    carried = spread(start, residuals, dstates)
    for part in parts if reverse else parts[::-1]:
        carried = part(carried)
    dstate, dx, dmaps = carried
    return dx, tuple(d.T for d in dstate), cell.parts(dmaps, features)


def _blocks(batch, time, width):
    """The steps of a block, how many blocks there are, and what is left over."""
    if not all(isinstance(size, int) for size in (batch, time, width)):  # symbolic, in `jax.export`
        return time, 1, 0
    most = min(max(_DELTAS // max(batch * width, 1), 1), time)
    # what is left over is a block of its own, with a scan: a tenth of the time
    size = next((size for size in range(most, most // 2, -1) if time % size == 0), most)
    return size, *divmod(time, size)


def _at(x, t):
    """(batch, time, ·) -> (batch, ·) at one step."""
    return lax.dynamic_index_in_dim(x, t, 1, keepdims=False)


def _steps(x, first, size):
    return lax.dynamic_slice_in_dim(x, first, size, 1)


def _before(states, after, start, first, reverse):
    """(steps, batch, ·): the state before each step of a block, one step away from those after."""
    outside = first + after.shape[0] if reverse else first - 1
    known = (outside >= 0) & (outside < states.shape[1])
    edge = jnp.where(known, _at(states, jnp.clip(outside, 0, states.shape[1] - 1)), start)[None]
    return jnp.concatenate([after[1:], edge] if reverse else [edge, after[:-1]])


def _where(alive, t, new, old):
    """The new where the sample is alive at that step, one by one of a tuple of (·, batch)."""
    if alive is None:
        return new
    mask = _at(alive, t)[None, :]
    return tuple(
        jnp.where(jnp.broadcast_to(mask, a.shape), a, b) for a, b in zip(new, old, strict=True)
    )
