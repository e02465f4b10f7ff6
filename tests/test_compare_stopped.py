"""Mends of derivations that raise, or return a gradient of another shape."""

import inspect
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from handgrad.compare import check_backward, examine


def normal(*shape, seed=0):
    return np.random.default_rng(seed + len(shape)).normal(size=shape)


def line_of(function):
    lines, first = inspect.getsourcelines(function)
    (place,) = (k for k, line in enumerate(lines) if "# !" in line)
    return first + place


def mends(hand, reference, *args, kind="backward", **options):
    report = examine(hand, reference, *args, kind=kind, **options)
    assert report.problem is not None
    return [d.text for d in report.diagnoses]


def is_mended(function, hand, *rest, told, **options):
    (found,) = mends(hand, *rest, **options)
    assert f":{line_of(function)}: " in found
    assert told in found
    assert found.endswith("and it is right")


# --- that raise ----------------------------------------------------------------------------------


def affine(x, w, b):
    return x @ w + b[None]


def affine_not_turned(x, w, b, dy):
    return dy @ w, x.T @ dy, dy.sum(0)  # !


AFFINE = affine, normal(5, 3), normal(3, 4), normal(4)


@pytest.mark.parametrize("given", [np.asarray, jnp.asarray])
def test_a_matrix_that_is_to_be_turned(given):
    arrays = map(given, AFFINE[1:])
    told = "transposed: write `dy @ w.T` for `dy @ w`"
    is_mended(affine_not_turned, affine_not_turned, affine, *arrays, told=told)


def normed(x):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True))


def normed_without_an_axis(x, dy):
    r = 1 / jnp.sqrt(jnp.mean(jnp.square(x), -1))  # !
    return (r * (dy - x * r**2 * (dy * x).mean(-1, keepdims=True)),)


def test_an_axis_that_is_to_stay():
    told = "write `jnp.mean(jnp.square(x), -1, keepdims=True)` for"
    is_mended(normed_without_an_axis, normed_without_an_axis, normed, normal(2, 3, 6), told=told)


def weighted(w, x):
    return (w[:, None] * jnp.tanh(x)).sum()


def weighted_by_a_row(w, x):
    t = np.tanh(x)
    dw = t.sum(1)
    return dw, w * (1 - t**2)  # !


def test_an_axis_that_is_to_be_put_in():
    told = "another axis: write `w[:, None] * (1 - t ** 2)`"
    options = dict(kind="gradient", told=told)
    is_mended(weighted_by_a_row, weighted_by_a_row, weighted, normal(3), normal(3, 4), **options)


def recurrence(a, b):
    def step(h, at):
        h = at[0] * h + at[1]
        return h, h

    return lax.scan(step, jnp.zeros(b.shape[1]), (a, b))[1]


def recurrence_of_a_pair(a, b, dy):
    h = recurrence(a, b)
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
    after = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])

    def back(g, given):
        g = given + given[1] * g  # !
        return g, g

    g = lax.scan(back, jnp.zeros(b.shape[1]), (dy, after), reverse=True)[1]
    return g * before, g


def test_a_part_of_a_pair():
    told = "write `given[0] + given[1] * g` for"
    args = recurrence, normal(6, 3), normal(6, 3, seed=1)
    is_mended(recurrence_of_a_pair, recurrence_of_a_pair, *args, told=told)


def deep(ws, x):
    for w in ws:
        x = jnp.tanh(w @ x)
    return (x**2).sum()


def deep_with_the_wrong_weight(ws, x):
    xs = [x]
    for w in ws:
        xs.append(np.tanh(w @ xs[-1]))
    delta = 2 * xs[-1] * (1 - xs[-1] ** 2)
    dws = [np.zeros_like(w) for w in ws]
    for k in range(len(ws) - 1, -1, -1):
        dws[k] = np.outer(delta, xs[k])
        delta = (ws[k - 1].T @ delta) * (1 - xs[k] ** 2)  # !
    return dws, delta / (1 - x**2)


def test_a_layer_that_is_another():
    ws = [normal(4, 3), normal(5, 4), normal(2, 5)]
    told = "a term too many: write `k` for `k - 1`"
    args = deep, ws, normal(3)
    options = dict(kind="gradient", told=told)
    is_mended(deep_with_the_wrong_weight, deep_with_the_wrong_weight, *args, **options)


def bag(table, w):
    return (table[IDS] * w[None, :, None]).sum(1)


IDS = np.array([[0, 2, 2], [3, 1, 0]])


def bag_by_the_index(table, w, dy):
    dtable = np.zeros_like(table)
    for r, row in enumerate(IDS):
        for c, t in enumerate(row):  # noqa: B007
            dtable[t] += w[t] * dy[r]  # !
    return dtable, np.einsum("rce,re->c", table[IDS], dy)


def test_an_index_out_of_bounds():
    told = "write `w[c]` for `w[t]`"
    is_mended(bag_by_the_index, bag_by_the_index, bag, normal(4, 5), normal(3), told=told)


def cell(xs, w):
    h = jnp.zeros(3)
    for x in xs:
        h = jnp.tanh(w @ h + x)
    return h


def cell_by_numbers(xs, w, dy):
    hs = {-1: np.zeros(3)}
    for t in range(len(xs)):
        hs[t] = np.tanh(w @ hs[t - 1] + xs[t])
    dxs, dw = np.zeros_like(xs), np.zeros_like(w)
    for t in reversed(range(len(xs))):
        dxs[t] = dy * (1 - hs[t + 1] ** 2)  # !
        dw += np.outer(dxs[t], hs[t - 1])
        dy = w.T @ dxs[t]
    return dxs, dw


def test_a_key_that_is_not_there():
    told = "write `t` for `t + 1`"
    is_mended(cell_by_numbers, cell_by_numbers, cell, normal(4, 3), normal(3, 3), told=told)


class Layer:
    def __init__(self, w):
        self.w = w

    def forward(self, x):
        self.x = x
        return x @ self.w

    def backward(self, dy):
        self.dw = self.x @ dy  # !
        return dy @ self.w.T


def by_a_layer(x, w, dy):
    layer = Layer(w)
    layer.forward(x)
    return layer.backward(dy), layer.dw


def test_a_method():
    told = "transposed: write `self.x.T @ dy`"
    args = by_a_layer, lambda x, w: x @ w, normal(5, 3), normal(3, 4)
    is_mended(Layer.backward, *args, told=told)


@jax.custom_vjp
def product(x, w):
    return x @ w


def product_back(kept, dy):
    x, w = kept
    return dy @ w, x.T @ dy  # !


product.defvjp(lambda x, w: (x @ w, (x, w)), product_back)


def test_the_rule_of_a_custom_vjp():
    told = "transposed: write `dy @ w.T`"
    args = product, lambda x, w: x @ w, normal(5, 3), normal(3, 4)
    is_mended(product_back, *args, kind="function", told=told)


def in_float32(x, w, dy):
    x, w, dy = (np.asarray(a, np.float32) for a in (x, w, dy))
    return dy @ w, x.T @ dy  # !


def test_what_keeps_to_float32():
    told = "transposed: write `dy @ w.T`"
    arrays = (normal(*s).astype(np.float32) for s in ((5, 3), (3, 4)))
    is_mended(in_float32, in_float32, lambda x, w: x @ w, *arrays, told=told)


# --- of the wrong shape --------------------------------------------------------------------------


def affine_not_summed(x, w, b, dy):
    return dy @ w.T, x.T @ dy, dy  # !


def affine_summed_to_a_number(x, w, b, dy):
    db = dy.sum()  # !
    return dy @ w.T, x.T @ dy, db


@pytest.mark.parametrize(
    ("hand", "told"),
    [
        (affine_not_summed, "a sum left out: write `return (dy @ w.T, x.T @ dy, dy.sum(0))`"),
        (affine_summed_to_a_number, "wrong axis: write `dy.sum(axis=0)` for `dy.sum()`"),
    ],
)
def test_a_gradient_of_another_shape(hand, told):
    is_mended(hand, hand, *AFFINE, told=told)


LENGTH = 4


def scaled(x, w):
    return x[:LENGTH] * w[None]


def scaled_without_a_sum(x, w, dy):
    dx = np.zeros_like(x)
    for t in range(LENGTH):
        dx[t] = dy[t] * w
    return dx, dy * x  # !


def test_a_length_that_is_written_down():
    """Arrays may be of other sizes, but not of another length than the module says."""
    told = "a sum left out: write `(dy * x).sum(0)`"
    is_mended(
        scaled_without_a_sum, scaled_without_a_sum, scaled, normal(4, 3), normal(3), told=told
    )


# --- what is left as it is -----------------------------------------------------------------------

OWN = ValueError("of the user")


def test_what_a_user_raises_has_no_mend_and_stays_what_it_is():
    def backward(x, dy):
        raise OWN

    assert mends(backward, jnp.sin, normal(3)) == []
    assert OWN.args == ("of the user",)


def test_where_nothing_mends_it_nothing_is_said():
    def backward(x, w, b, dy):
        return np.linalg.solve(w, dy), x.T @ dy, dy.sum(0)

    assert mends(backward, *AFFINE) == []


def test_two_wrong_shapes_are_no_single_mistake():
    def backward(x, w, b, dy):
        return dy @ w, x @ dy, dy.sum(0)

    assert mends(backward, *AFFINE) == []


COUNTS = np.zeros(3, int)


def test_arrays_are_as_they_were():
    def backward(x, labels, dy):
        np.add.at(COUNTS, labels, 0)
        dx = np.zeros_like(x)
        dx[np.arange(2), labels] += dy.T @ x
        return (dx,)

    x, labels = normal(2, 3), np.array([0, 2])
    args = x.copy(), labels.copy()
    mends(backward, lambda x, labels: x[jnp.arange(2), labels], *args)
    for array, before in ((args[0], x), (args[1], labels), (COUNTS, 0)):
        np.testing.assert_array_equal(array, before)


def test_the_exception_is_raised_with_the_mend_as_a_note():
    with pytest.raises(ValueError, match="matmul") as raised:
        check_backward(affine_not_turned, *AFFINE)
    shown = "".join(traceback.format_exception(raised.value))
    assert "handgrad: raised in the check of affine_not_turned" in shown
    line = line_of(affine_not_turned)
    assert f":{line}: transposed: write `dy @ w.T` for `dy @ w`, and it is right" in shown
