"""One step of a recurrent net and its backward: what `through_time` runs over the steps.

In a step every array has a sample in each column: the input is (in, batch), a state (hidden,
batch). What is linear in a cell are its maps a = Wᵀ[x; h] + b, of all its gates at once or of some.
A cell takes (state before, x, maps) to the state after and what the backward needs; its backward
takes the cotangent of the state after to that of the state before and to the δ of each map, the
cotangent of what it gives. Of the deltas of many steps come x̄ and the cotangents of the maps.
What is kept is what the cotangents are multiplied by, slopes of σ and tanh out of their arguments:
the backward is then nothing but products, and 1 − σ and 1 − tanh² of a shut gate have their digits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import exp_quotient, tanh_and_slope

__all__ = ["CELLS", "PEEPHOLES", "Cell", "ahead", "behind", "joined", "to_x"]

_SMALL = 256  # hidden units: up to so many, h̄ is made gate by gate


class Map(NamedTuple):
    """a = Wᵀ[x; h] + b, with W = [Wx; Wh]; one of the two is None where only the other is read."""

    wx: Any
    wh: Any
    b: Any


class Cell(NamedTuple):
    gates: int  # columns of Wx, Wh and b, in units of hidden
    states: tuple[str, ...]  # h first
    weights: tuple[str, ...]
    maps: Callable  # weights -> the maps, and peepholes after them
    step: Callable  # (state, x, the maps `ahead`) -> (state, kept)
    back: Callable  # (dstate, kept, the maps `behind`) -> (dstate before, the δ of each map)
    gather: Callable  # (deltas, x, before, after, kept) of many steps -> cotangents like `joined`
    parts: Callable  # (cotangents like `joined`, the size of x) -> cotangents of the weights


def joined(maps):
    """Of each map Wᵀ, whose rows a product reads, and b."""

    def join(m):
        return jnp.concatenate([w for w in (m.wx, m.wh) if w is not None]).T, m.b

    return _each(join, maps)


def ahead(maps):
    """For `step`: of each map Wᵀ, with b as its last column, which the product adds."""
    return tuple(jnp.column_stack(m) if isinstance(m, tuple) else m for m in joined(maps))


def behind(maps):
    """For `back`: Wh as a list of blocks, those of its gates where they are small.

    A small product is made by one thread of the CPU, before others are awake to help with a larger.
    """

    def split(m):
        hidden, gates = m.wh.shape
        blocks = gates // hidden if 0 < hidden <= _SMALL else 1
        return m._replace(wh=jnp.split(m.wh, blocks, 1))

    return _each(lambda m: m if m.wh is None else split(m), maps)


def to_x(maps, deltas):
    """x̄ = Σ Wx δ over the maps that read x."""
    of_maps = zip(maps, deltas, strict=False)  # peepholes have no δ of their own
    return functools.reduce(
        jnp.add, [jnp.tensordot(m.wx, delta, 1) for m, delta in of_maps if m.wx is not None]
    )


def _each(f, maps):
    """Of each map; peepholes stay as they are."""
    return tuple(f(m) if isinstance(m, Map) else m for m in maps)


def _affine(w, *columns):
    """Wᵀ[x; h] + b, of a map `ahead`."""
    ones = jnp.ones((1, columns[0].shape[1]), w.dtype)
    return w @ jnp.concatenate([*columns, ones])


def _to_h(linear, delta):
    """h̄ = Wh δ, of a map `behind`."""
    blocks = zip(linear.wh, jnp.split(delta, len(linear.wh)), strict=True)
    return functools.reduce(jnp.add, [w @ of_gate for w, of_gate in blocks])


def _gathered(delta, *rows):
    """W̄ᵀ = Σ δ [x; h]ᵀ and b̄ = Σ δ."""
    return jnp.tensordot(delta, jnp.concatenate(rows, 2), ((1, 2), (0, 1))), delta.sum((1, 2))


def _parts(linear, size):
    """W̄x, W̄h and b̄."""
    w, b = linear
    return w.T[:size], w.T[size:], b


# --- one map: the Elman net and the LSTM ---------------------------------------------------------


def _rnn(g_and_slope: Callable) -> Cell:
    """h = g(a);   δ = h̄ ∘ g′."""

    def step(state, x, maps):
        g, slope = g_and_slope(_affine(maps[0], x, state[0]))
        return (g,), slope

    def back(dstate, slope, maps):
        delta = dstate[0] * slope
        return (_to_h(maps[0], delta),), (delta,)

    return Cell(1, ("h",), ("wx", "wh", "b"), _one, step, back, _gather_one, _one_in_parts)


def _one(weights):
    return (Map(*weights[:3]),)


def _gather_one(deltas, x, before, after, kept):
    return (_gathered(deltas[0], x, before[0]),)


def _one_in_parts(dmaps, size):
    return _parts(dmaps[0], size)


def _lstm_step(state, x, maps):
    """i, f, o = σ(·), g = tanh(·);   c = f ∘ c₋ + i ∘ g,   h = o ∘ tanh c.   Peepholes: + p ∘ c."""
    (h, before), (gates, *peepholes) = state, maps
    i, f, g, o = jnp.split(_affine(gates, x, h), 4)
    for p in peepholes:
        i, f = i + p[0, :, None] * before, f + p[1, :, None] * before
    (i, not_i), (f, not_f) = _open_and_shut(i), _open_and_shut(f)
    g, dg = tanh_and_slope(g)
    c = f * before + i * g
    for p in peepholes:
        o = o + p[2, :, None] * c
    o, not_o = _open_and_shut(o)
    t, dt = tanh_and_slope(c)
    # not t ∘ o, or tanh c would be made in the kernel of h, by one thread instead of several
    to = jnp.stack([g * i * not_i, before * f * not_f, i * dg, t * (o * not_o)])
    return (o * t, c), (to, o * dt, f)


def _lstm_back(dstate, kept, maps):
    """δₒ = h̄ ∘ tanh c ∘ o′,   c̄ += h̄ ∘ o ∘ tanh′ c,   and through c to the other gates."""
    (dh, dc), (to, to_c, f), (gates, *peepholes) = dstate, kept, maps
    dc = dc + dh * to_c
    for p in peepholes:
        dc = dc + p[2, :, None] * (dh * to[3])
    delta = to * _where_last(to, dh, dc)
    before = dc * f
    for p in peepholes:
        before = before + p[0, :, None] * delta[0] + p[1, :, None] * delta[1]
    delta = delta.reshape(4 * len(dh), dh.shape[1])
    return (_to_h(gates, delta), before), (delta,)


def _peeping(weights):
    return *_one(weights), weights[3]


def _gather_peeping(deltas, x, before, after, kept):
    """p̄ᵢ = Σ δᵢ ∘ c₋,   p̄_f = Σ δ_f ∘ c₋,   p̄ₒ = Σ δₒ ∘ c."""
    i, f, _, o = jnp.split(deltas[0], 4)
    pairs = (i, before[1]), (f, before[1]), (o, after[1])
    dp = jnp.stack([(delta * jnp.moveaxis(c, 2, 0)).sum((1, 2)) for delta, c in pairs])
    return *_gather_one(deltas, x, before, after, kept), dp


def _peeping_in_parts(dmaps, size):
    return *_parts(dmaps[0], size), dmaps[1]


# --- two maps and three: the GRUs ----------------------------------------------------------------


def _reset_before(weights):
    """One map for r and z, and one for n, which reads r ∘ h₋."""
    return tuple(map(Map, *map(_gates_and_new, weights)))


def _gru_step(state, x, maps):
    """r, z = σ(·);   n = tanh(·), which reads r ∘ h₋,   h = z ∘ h₋ + (1 − z) ∘ n."""
    (h,), (gates, new) = state, maps
    (r, not_r), (z, shut) = map(_open_and_shut, jnp.split(_affine(gates, x, h), 2))
    n, dn = tanh_and_slope(_affine(new, x, r * h))
    return (z * h + shut * n,), (jnp.stack([h * r * not_r, (h - n) * z * shut]), shut * dn, z, r)


def _gru_back(dstate, kept, maps):
    """q, the cotangent of r ∘ h₋, out of δₙ;   δᵣ = q ∘ h₋ ∘ r(1 − r),   h̄₋ = h̄ ∘ z + q ∘ r + …"""
    (dh,), (to, to_n, z, r), (gates, new) = dstate, kept, maps
    delta_n = dh * to_n
    q = _to_h(new, delta_n)
    delta = (to * _where_last(to, dh, q)).reshape(2 * len(dh), dh.shape[1])
    return (dh * z + q * r + _to_h(gates, delta),), (delta, delta_n)


def _gather_gru(deltas, x, before, after, kept):
    """Ūₙ reads r ∘ h₋, the others h₋."""
    (gates, new), (h,) = deltas, before
    r = jnp.swapaxes(kept[3], 1, 2)
    return _gathered(gates, x, h), _gathered(new, x, r * h)


def _reset_before_in_parts(dmaps, size):
    return _side_by_side(*(_parts(d, size) for d in dmaps))


def _reset_after(weights):
    """A map for r and z, one for what x says to n, and one for m = Uₙᵀ h₋ + bₙ."""
    (wx, wx_n), (wh, wh_n), (b, b_n) = map(_gates_and_new, weights[:3])
    return Map(wx, wh, b), Map(wx_n, None, b_n), Map(None, wh_n, weights[3])


def _gru_after_step(state, x, maps):
    """r, z = σ(·);   n = tanh(aₙ + r ∘ m),   h = z ∘ h₋ + (1 − z) ∘ n."""
    (h,), (gates, new, inner) = state, maps
    (r, not_r), (z, shut) = map(_open_and_shut, jnp.split(_affine(gates, x, h), 2))
    m = _affine(inner, h)
    n, dn = tanh_and_slope(_affine(new, x) + r * m)
    to = jnp.stack([m * r * not_r, (h - n) * z * shut])
    return (z * h + shut * n,), (to, shut * dn, z, r)


def _gru_after_back(dstate, kept, maps):
    """δᵣ = δₙ ∘ m ∘ r(1 − r);   m has the cotangent δₙ ∘ r, and with it go Uₙ, bₙ and h₋."""
    (dh,), (to, to_n, z, r), (gates, _, inner) = dstate, kept, maps
    delta_n = dh * to_n
    delta = (to * _where_last(to, dh, delta_n)).reshape(2 * len(dh), dh.shape[1])
    dm = delta_n * r
    dh = dh * z + _to_h(gates, delta) + _to_h(inner, dm)
    return (dh,), (delta, delta_n, dm)


def _gather_gru_after(deltas, x, before, after, kept):
    (gates, new, inner), (h,) = deltas, before
    return _gathered(gates, x, h), _gathered(new, x), _gathered(inner, h)


def _reset_after_in_parts(dmaps, size):
    gates, (wx, b), (wh, bn) = dmaps
    return *_side_by_side(_parts(gates, size), (wx.T, wh.T, b)), bn


def _gates_and_new(weight):
    """Of Wx, Wh or b the blocks r and z, and the block n."""
    return jnp.split(weight, [weight.shape[-1] // 3 * 2], -1)


def _side_by_side(gates, new):
    return tuple(jnp.concatenate(pair, -1) for pair in zip(gates, new, strict=True))


def _open_and_shut(z):
    """σ and 1 − σ, both with all their digits."""
    n, d = exp_quotient(jnp.abs(z))
    smaller = n / (n + d)
    return jnp.where(z < 0, smaller, 1 - smaller), jnp.where(z < 0, 1 - smaller, smaller)


def _where_last(blocks, last, others):
    """As many blocks: quicker than to put them together one by one."""
    here = lax.broadcasted_iota(jnp.int32, blocks.shape, 0) == len(blocks) - 1
    return jnp.where(here, last[None], others[None])


_LSTM = Cell(
    4, ("h", "c"), ("wx", "wh", "b"), _one, _lstm_step, _lstm_back, _gather_one, _one_in_parts
)
PEEPHOLES = _LSTM._replace(
    weights=("wx", "wh", "b", "peepholes"),
    maps=_peeping,
    gather=_gather_peeping,
    parts=_peeping_in_parts,
)
CELLS: dict[str, Cell] = {
    # XLA's own tanh, by one thread: so the step, which waits for nothing else, takes 4 % less
    "tanh": _rnn(lambda z: (jnp.tanh(z), tanh_and_slope(z)[1])),
    "relu": _rnn(lambda z: (jnp.where(z <= 0, 0, z), (z > 0).astype(z.dtype))),
    "lstm": _LSTM,
    "gru": Cell(
        3, ("h",), ("wx", "wh", "b"),
        _reset_before, _gru_step, _gru_back, _gather_gru, _reset_before_in_parts,
    ),
    "gru_reset_after": Cell(
        3, ("h",), ("wx", "wh", "b", "bn"),
        _reset_after, _gru_after_step, _gru_after_back, _gather_gru_after, _reset_after_in_parts,
    ),
}  # fmt: skip
