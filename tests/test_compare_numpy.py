"""Derivations as they are written with NumPy: in place, into buffers, lists and dictionaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import check_backward, check_gradient, examine
from handgrad.compare.inplace import may_write_into_another

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=4)


@pytest.fixture(autouse=True)
def defaults():
    """A user's JAX as it comes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# --- what is written into ------------------------------------------------------------------------


def block(x, w):
    return jnp.maximum(x @ w, 0) + x


def block_backward(x, w, dy):
    dz = dy  # the same array, in NumPy
    dz *= x @ w > 0
    return dz @ w.T + dy, x.T @ dz


def block_backward_of_a_copy(x, w, dy):
    dz = dy.copy()
    dz *= x @ w > 0
    return dz @ w.T + dy, x.T @ dz


def test_an_array_that_is_changed_under_another_name():
    report = examine(block_backward, block, X, W, kind="backward")
    assert not report.ok
    assert [q.ok for q in report.gradients] == [False, True]
    assert any("changes an array in place that it reads again" in r for r in report.remarks)
    assert any("block_backward changes dy in place" in r for r in report.remarks)
    # with JAX's arrays, which nothing changes, it is right
    check_backward(block_backward, block, jnp.asarray(X), jnp.asarray(W))
    assert not check_backward(block_backward_of_a_copy, block, X, W).remarks


def difference_gradient(x, y):
    d = 2 * (x - y)
    dy = d
    dy *= -1  # and d with it
    return d, dy


def test_two_names_of_one_array_of_its_own():
    report = examine(
        difference_gradient, lambda x, y: ((x - y) ** 2).sum(), X, X[::-1].copy(), kind="gradient"
    )
    assert [q.ok for q in report.gradients] == [False, True]


def scaled_in_place(x, dy):
    dy *= 2
    return (x * dy,)


def test_an_argument_that_is_changed_is_remarked():
    report = check_backward(scaled_in_place, jnp.square, X)
    assert report.remarks == ("scaled_in_place changes dy in place: its caller's array",)


def by_index(x, dy):
    dx = np.array(dy)
    dx[x < 0] = 0
    return (dx,)


def by_index_of_an_argument(x, dy):
    dy[x < 0] = 0
    return (dy,)


def out_of_a_cache(x, dy):
    cache = (x, dy.T)
    _, part = cache
    part += 1
    return (dy,)


def into_its_own(x, dy):
    dx = jnp.zeros_like(x)
    dx += dy
    parts = dx[0]
    parts += 1
    return (dx,)


@pytest.mark.parametrize(
    ("backward", "writes"),
    [
        (block_backward, True),
        (scaled_in_place, True),
        (by_index_of_an_argument, True),
        (out_of_a_cache, True),
        (difference_gradient, True),
        (block_backward_of_a_copy, False),
        (by_index, False),
        (into_its_own, False),
        (lambda x, dy: (x * dy,), False),
    ],
)
def test_writing_into_an_argument_is_told_by_the_source(backward, writes):
    assert may_write_into_another(backward) == writes


# --- what is kept from call to call --------------------------------------------------------------


class Linear:
    def __init__(self, w):
        self.w, self.dw = w, np.zeros_like(w)

    def backward(self, x, dy):
        self.dw += x.T @ dy
        return dy @ self.w.T


def test_a_gradient_that_is_never_set_to_zero():
    layer = Linear(W)
    report = examine(lambda x, dy: (layer.backward(x, dy),), lambda x: x @ W, X, kind="backward")
    assert not report.ok
    assert "keeps an array from one call to the next" in report.problem
    check_backward(lambda x, dy: (Linear(W).backward(x, dy),), lambda x: x @ W, X)


# --- buffers of float32 --------------------------------------------------------------------------


def cube_backward(x, dy, factor=3.0):
    dx = np.zeros(x.shape, np.float32)
    for i in range(len(x)):
        dx[i] = factor * x[i] ** 2 * dy[i]
    return (dx,)


def test_buffers_of_the_inputs_own_precision():
    x = np.linspace(-1, 2, 5)
    report = check_backward(cube_backward, lambda x: x**3, x.astype(np.float32))
    assert any("compared to roundings of that" in remark for remark in report.remarks)
    wrong = examine(
        lambda x, dy: cube_backward(x, dy, 3.001), lambda x: x**3, x.astype(np.float32),
        kind="backward",
    )  # fmt: skip
    assert not wrong.ok
    # where the inputs are float64, float32 is too little
    report = examine(cube_backward, lambda x: x**3, x, kind="backward")
    assert not report.ok
    assert [d.kind for d in report.diagnoses] == ["precision"]


def batch_norm(x):
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)


def batch_norm_backward(x, dy):
    std = np.sqrt(np.var(x, axis=0) + 1e-8)
    y = (x - x.mean(0)) / std
    return ((dy - dy.mean(0) - y * np.mean(dy * y, axis=0)) / std,)


def test_what_is_not_in_float32_is_not_said_to_be():
    report = examine(batch_norm_backward, batch_norm, X, kind="backward")
    (mend,) = report.diagnoses
    assert "write `np.var(x, axis=0) + 1e-05` for `np.var(x, axis=0) + 1e-08`" in mend.text


# --- lists and dictionaries ----------------------------------------------------------------------


def loss(p, x):
    return ((x @ p["w"] + p["b"]) ** 2).sum()


def into_a_dictionary(p, x):
    grads = {}
    y = np.dot(x, p["w"]) + p["b"]
    grads["b"] = np.sum(y, axis=0)  # a 2 is left out
    grads["w"] = np.dot(x.T, y) * 3  # and here it is 3
    return grads


def rnn(x, h0, w):
    h, out = h0, []
    for t in range(x.shape[0]):
        h = jnp.tanh(x[t] + h @ w)
        out.append(h)
    return jnp.stack(out)


def into_lists(x, h0, w, dy):
    h, hs, slopes = h0, [], []
    for t in range(len(x)):
        h = np.tanh(x[t] + np.dot(h, w))
        hs.append(h)
        slopes.append(1 - h**2)
    dx, dw, dh = np.zeros_like(x), np.zeros_like(w), np.zeros_like(h0)
    for t in reversed(range(len(x))):
        dz = (dy[t] + dh) * slopes[t]
        dx[t] = dz
        dw += np.outer(hs[t - 1] if t else h0, dz)
        dh = np.dot(w, dz) * slopes[t]  # a factor too many
    return dx, dh, dw * 1.3  # and another


def test_no_container_is_put_into_itself():
    """Neither JAX's trees nor NumPy's arrays of lists survive one; the process is lost."""
    p = {"w": RNG.normal(size=(4, 2)), "b": np.zeros(2)}
    assert not examine(into_a_dictionary, loss, p, X, kind="gradient", argnums=[0]).ok
    assert not examine(into_lists, rnn, X, X[0], W, kind="backward").ok
    check_backward(lambda x, dy: (2 * x * dy,), jnp.square, X)


def affine_loss(w, b, x):
    return ((x @ w + b) ** 2).sum()


def by_name(w, b, x):
    y = x @ w + b
    return {"db": 2 * y.sum(0), "dw": 2 * x.T @ y, "x": 2 * y @ w.T}


def without_x(w, b, x):
    return {name: g for name, g in by_name(w, b, x).items() if name != "x"}


def test_gradients_by_the_names_of_the_arguments():
    report = check_gradient(by_name, affine_loss, W, B, X)
    assert [q.path for q in report.gradients] == ["w", "b", "x"]
    check_gradient(without_x, affine_loss, W, B, X, argnums=[0, 1])
    report = examine(without_x, affine_loss, W, B, X, kind="gradient")
    assert "returned a dict without x; it must have a cotangent for each" in report.problem
    swapped = examine(
        lambda w, b, x: by_name(w, b, x) | {"db": by_name(w, b, x)["db"] / 2},
        affine_loss, W, B, X, kind="gradient",
    )  # fmt: skip
    assert [q.ok for q in swapped.gradients] == [True, False, True]


def huber_by_a_loop(r):
    return [e if abs(e) <= 1 else np.sign(e) for e in r]


def huber(r):
    return jnp.where(jnp.abs(r) <= 1, r**2 / 2, jnp.abs(r) - 0.5).sum()


def test_a_list_of_numbers_for_an_array():
    r = np.array([0.3, -2.0, 1.7])
    check_gradient(huber_by_a_loop, huber, r)
    check_gradient(lambda r: [*jnp.clip(r, -1, 1)], huber, r)
    report = examine(lambda r: huber_by_a_loop(r)[:2], huber, r, kind="gradient")
    assert "must have the structure of the argument" in report.problem


def test_fewer_cotangents_than_arguments():
    report = examine(lambda w, b, x: (w, b), affine_loss, W, B, X, kind="gradient")
    assert "returned 2 gradients; it must return a tuple of 3" in report.problem
    assert "argnums= must say of which arguments they are" in report.problem
