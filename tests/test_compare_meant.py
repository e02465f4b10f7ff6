"""What was meant, and what is left unsaid: lacking numbers and masks, objects, slow loops, sizes.

The line that is wrong ends in `# !`; the report has to name it, and what should stand there.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_compare_locating import line_of

from handgrad.compare import eager, examine, inputs
from handgrad.compare.mending import Edited

RNG = np.random.default_rng(1)
SCALE = 0.125


def normal(*shape):
    return RNG.standard_normal(shape)


# --- a number that is lacking --------------------------------------------------------------------


def gated(x, w):
    return x * jax.nn.sigmoid(x.mean((2, 3)) @ w)[:, :, None, None]


def gated_backward(x, w, dy):
    _, _, H, W = x.shape  # noqa: RUF059 - what was meant to be used
    s = x.mean(axis=(2, 3))
    e = 1 / (1 + np.exp(-np.dot(s, w)))
    dz = (dy * x).sum(axis=(2, 3)) * e * (1 - e)
    dx = dy * e[:, :, None, None]
    dx += np.dot(dz, w.T)[:, :, None, None]  # !
    return dx, np.dot(s.T, dz)


def packed(x):
    q, k = jnp.split(x, 2)
    return SCALE * (q * k).sum() + (k**2).sum()


def packed_gradient(x):
    n = len(x) // 2
    dx = np.zeros_like(x)
    for i in range(n):
        dx[i] += x[n + i]  # !
        dx[n + i] += SCALE * x[i] + 2 * x[n + i]
    return dx


def variance(z):
    centred = z - z.mean(0, keepdims=True)
    return (centred**2).sum() / (z.shape[0] - 1)


def variance_gradient(z):
    n, _ = z.shape
    centred = z - np.mean(z, axis=0)
    return 2 * centred / n  # !


def halves(x):
    return (x**3 / (x.shape[0] / 2)).sum()


def halves_gradient(x):
    n = len(np.asarray(x))
    return 3 * x**2 / (n // 2)  # !


# --- added, and in what order --------------------------------------------------------------------


def planar(w, z):
    return jnp.tanh(z @ w).sum() + (w**2).sum()


def planar_gradient(w, z):
    dw = 2 * w
    dw = np.dot(z.T, 1 - np.tanh(np.dot(z, w)) ** 2)  # !
    return dw


def dilated(x):
    past = jnp.concatenate([jnp.zeros(2), x[:-2]])
    return jnp.sin(past) + x


def dilated_backward(x, dy):
    past = np.r_[np.zeros(2), x[:-2]]
    dpast = dy * np.cos(past)
    dx = dy.copy()
    dx[2:] += dpast[:-2]  # !
    return (dx,)


def recursion(a, t):
    held, total = 0.0, 0.0
    for i in range(1, 5):
        held = jnp.exp(-a * (t[i] - t[i - 1])) * (1 + held)
        total = total + held**2
    return total


def recursion_gradient(a, t):
    held, dheld, g = 0.0, 0.0, 0.0
    for i in range(1, 5):
        dt = t[i] - t[i - 1]
        d = np.exp(-a * dt)
        held = d * (1 + held)
        dheld = d * dheld - dt * d * (1 + held)  # !
        g += 2 * held * dheld
    return g


def shuffled(x):
    return x.reshape(2, 3, 4, 5).transpose(0, 2, 3, 1)


def shuffled_backward(x, dy):
    return (np.asarray(dy).transpose(0, 2, 3, 1).reshape(np.shape(x)),)  # !


# --- masks, complements, slopes ------------------------------------------------------------------


def triangular(a, b):
    return jax.scipy.linalg.solve_triangular(a, b, lower=True)


def triangular_backward(a, b, dy):
    x, db = np.linalg.solve(np.tril(a), b), np.linalg.solve(np.tril(a).T, dy)
    da = -np.outer(db, x)  # !
    return da, db


def decorrelated(z):
    c = z.T @ z
    return ((c * (1 - jnp.eye(c.shape[-1]))) ** 2).sum()


def decorrelated_gradient(z):
    c = np.dot(z.T, z)
    return 4 * np.dot(z, c)  # !


def mixed(z, h, n):
    g = jax.nn.sigmoid(z)
    return g * h + (1 - g) * n


def mixed_backward(z, h, n, dy):
    g = 1 / (1 + np.exp(-z))
    return dy * (h - n) * g * (1 - g), dy * g, dy * g  # !


def unrolled(x, w):
    h = jnp.zeros(3)
    for t in range(4):
        h = jnp.tanh(w @ h + x[t])
    return h.sum()


def accumulated(x):
    return jnp.cumsum(x)


def accumulated_backward(x, dy):
    return (jax.lax.associative_scan(jnp.add, dy),)  # !


# --- objects that make objects of their class ----------------------------------------------------


class Value:
    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents = data, np.zeros_like(data), parents
        self.back = lambda: None

    def times(self, other):
        out = Value(self.data * other.data, (self, other))

        def back():
            self.grad = other.data * out.grad  # !
            other.grad += self.data * out.grad

        out.back = back
        return out

    def plus(self, other):
        out = Value(self.data + other.data, (self, other))

        def back():
            self.grad += out.grad
            other.grad += out.grad

        out.back = back
        return out

    def run(self):
        order, seen = [], set()

        def visit(v):
            if id(v) not in seen:
                seen.add(id(v))
                for p in v.parents:
                    visit(p)
                order.append(v)

        visit(self)
        self.grad = np.ones_like(self.data)
        for v in reversed(order):
            v.back()


def tape_gradient(x, y):
    a, b = Value(x), Value(y)
    a.times(b).plus(a).times(a).run()
    return a.grad, b.grad


def tape(x, y):
    return ((x * y + x) * x).sum()


FOUND = [
    (gated_backward, gated, (normal(2, 3, 4, 5), normal(3, 3)), "/ (H * W)", "backward"),
    (packed_gradient, packed, (normal(6),), "SCALE", "gradient"),
    (variance_gradient, variance, (normal(5, 3),), "(n - 1)", "gradient"),
    (halves_gradient, halves, (normal(5),), "n / 2", "gradient"),
    (planar_gradient, planar, (normal(3), normal(5, 3)), "dw +=", "gradient"),
    (dilated_backward, dilated, (normal(7),), "dx[:-2] += dpast[2:]", "backward"),
    (recursion_gradient, recursion, (np.float64(0.7), np.cumsum(RNG.uniform(0.2, 1, 5))),
     "before `held = d * (1 + held)`", "gradient"),
    (shuffled_backward, shuffled, (normal(6, 20),), "transpose(0, 3, 1, 2)", "backward"),
    (triangular_backward, triangular, (np.tril(normal(4, 4)) + 3 * np.eye(4), normal(4)),
     "np.tril(", "backward"),
    (decorrelated_gradient, decorrelated, (normal(5, 3),), "eye(c.shape[-1])", "gradient"),
    (mixed_backward, mixed, (normal(4), normal(4), normal(4)), "1 - g", "backward"),
    (accumulated_backward, accumulated, (normal(5),), "reverse=True", "backward"),
    (tape_gradient, tape, (normal(3), normal(3)), "self.grad += other.data", "gradient"),
]  # fmt: skip


@pytest.mark.parametrize(("candidate", "reference", "args", "words", "kind"), FOUND)
def test_what_was_meant(candidate, reference, args, words, kind):
    argnums = [0] if candidate in (planar_gradient, recursion_gradient) else None
    report = examine(candidate, reference, *args, kind=kind, argnums=argnums)
    assert not report.ok
    here = f".py:{line_of(candidate, Value.times)}: "
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert any(here in m and words in m for m in mends), str(report)


def test_a_slope_of_an_element_of_a_list():
    def gradient(x, w):
        hs = [np.zeros(3)]
        for t in range(4):
            hs.append(np.tanh(np.dot(w, hs[t]) + x[t]))
        dx, dw, dh = np.zeros_like(x), np.zeros_like(w), np.ones(3)
        for t in reversed(range(4)):
            dx[t] = dh
            dw += np.outer(dx[t], hs[t])
            dh = np.dot(w.T, dx[t])
        return dx, dw

    report = examine(gradient, unrolled, normal(4, 3), normal(3, 3), kind="gradient")
    assert any("* (1 - hs[t + 1] ** 2)" in d.text for d in report.diagnoses), str(report)


# --- what holds here alone is not said -----------------------------------------------------------


def covariance(z):
    n, d = z.shape
    centred = z - z.mean(0, keepdims=True)
    c = centred.T @ centred / (n - 1)
    return (c**2).sum() / d


def covariance_gradient(z):
    n, d = z.shape
    centred = z - z.mean(axis=0, keepdims=True)
    c = centred.T @ centred / (n - 1)
    return 4 * centred @ c / (d * n)


def test_a_size_is_not_taken_for_a_constant():
    report = examine(covariance_gradient, covariance, normal(5, 4), kind="gradient")
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert mends
    assert not any("1.25" in m or "5/4" in m for m in mends), str(report)


def test_a_factor_comes_from_the_size_from_which_it_comes_elsewhere_too():
    """2/3 is (V − 1)/V at V = 3, and 2/N as well."""

    def pairs(z):
        v = z.shape[0]
        return sum(((z[i] - z[j]) ** 2).sum() for i in range(v) for j in range(i)) / (v * (v - 1))

    def gradient(z):
        v = len(z)
        return 2 * (v * z - z.sum(0, keepdims=True)) / (v * v)

    text = str(examine(gradient, pairs, normal(3, 4), kind="gradient"))
    assert "(N−1)/N with N = 3, axis 0 of z" in text
    assert "2/N" not in text


def test_one_expression_of_two_equations_is_not_doubled_once():
    def loss(w, x):
        p = jax.nn.softmax(x @ w, -1)
        share = jax.lax.stop_gradient(jax.nn.one_hot(p.argmax(-1), p.shape[-1]).mean(0))
        return p.shape[-1] * (share * p.mean(0)).sum()

    def gradient(w, x):
        p = jax.nn.softmax(x @ w, axis=-1)
        share = jax.nn.one_hot(p.argmax(-1), w.shape[1]).mean(0)
        dp = jnp.broadcast_to(share / x.shape[0], p.shape)
        return x.T @ (p * (dp - (dp * p).sum(-1, keepdims=True)))

    report = examine(gradient, loss, normal(3, 4), normal(5, 3), kind="gradient", argnums=[0])
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert mends
    assert not any("double" in m or "halve" in m for m in mends), str(report)


def test_a_mend_may_fail_where_sizes_are_fixed_in_elements_that_are_not_given():
    """A state of three and controls of two: of a third control the derivation knows nothing."""

    def loss(u, goal):
        def step(x, ut):
            x = x + 0.1 * jnp.stack([ut[0] * jnp.cos(x[2]), ut[0] * jnp.sin(x[2]), ut[1]])
            return x, ((x[:2] - goal) ** 2).sum() / 2 + 0.05 * (ut**2).sum()

        return jax.lax.scan(step, jnp.zeros(3), u)[1].sum()

    def gradient(u, goal):
        xs = [np.zeros(3)]
        for ut in u:
            th = xs[-1][2]
            xs.append(xs[-1] + 0.1 * np.array([ut[0] * np.cos(th), ut[0] * np.sin(th), ut[1]]))
        adjoint, g = np.zeros(3), np.zeros_like(u)
        for t in reversed(range(len(u))):
            adjoint[:2] += xs[t + 1][:2] - goal
            th, v = xs[t][2], u[t, 0]
            along = adjoint[0] * np.cos(th) + adjoint[1] * np.sin(th)
            g[t] = 0.1 * np.array([along, adjoint[2]]) + 0.1 * u[t]
            a = np.eye(3)
            a[0, 2], a[1, 2] = -0.1 * v * np.sin(th), 0.1 * v * np.cos(th)
            adjoint = a @ adjoint
        return g

    report = examine(gradient, loss, normal(5, 2), normal(2), kind="gradient", argnums=[0])
    assert any("`a.T @ adjoint`" in d.text for d in report.diagnoses), str(report)


# --- slow loops, and what would end the process --------------------------------------------------


def test_slow_loops_are_searched_at_smaller_sizes(monkeypatch):
    sizes = []
    plain = Edited._small

    def small(self):
        found = plain(self)
        sizes.append(found and [np.shape(x) for x in found.column])
        return found

    monkeypatch.setattr(Edited, "_small", small)

    def conv(x, w):
        return jax.lax.conv(x, w, (1, 1), "VALID")

    def backward(x, w, dy):
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        for n in range(dy.shape[0]):
            for f in range(dy.shape[1]):
                for i in range(dy.shape[2]):
                    for j in range(dy.shape[3]):
                        dw[f] += x[n, :, i : i + 2, j : j + 2] * dy[n, f, i, j]
                        dx[n, :, i : i + 2, j : j + 2] += w[f] * dy[n, f, i, i]
        return dx, dw

    report = examine(backward, conv, normal(4, 3, 8, 8), normal(5, 3, 2, 2), kind="backward")
    assert any("`dy[n, f, i, j]`" in d.text for d in report.diagnoses), str(report)
    assert sizes[0] is not None
    assert np.prod(sizes[0][0]) < 4 * 3 * 8 * 8


def test_what_does_not_fit_is_not_added_where_numpy_would_die():
    """`np.add.at` with a value of more axes than its place ends the process."""
    code = (
        "import numpy as np; from handgrad.compare import eager\n"
        "a = np.zeros((3, 2)).view(eager.Array)\n"
        "try: a.at[:, 0].add(np.ones((2, 1, 3)))\n"
        "except ValueError: print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "refused\n", run.stderr


def test_so_in_the_source_that_is_edited():
    def gather(t, ids):
        return t[ids]

    def backward(t, ids, dy):
        dt = np.zeros_like(t)
        np.add.at(dt, ids, dy * 2)
        return dt, None

    report = examine(backward, gather, normal(4, 2), np.array([0, 2, 2]), kind="backward")
    assert any("factor too many" in d.text for d in report.diagnoses), str(report)


def test_an_array_of_the_same_meaning_is_held_by_eager_numpy():
    x = np.arange(3.0).view(eager.Array)
    np.testing.assert_array_equal(x.at[np.array([0, 0])].add(np.ones(2)), [2, 1, 2])


# --- conventions, labels, digits -----------------------------------------------------------------


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("high", [True, False])
def test_kinks_that_only_add_up_are_not_tied(low, high):
    """A clip at both of its bounds: moved together they look smooth, and each is a choice."""
    x = np.array([0.0, 0.3, 1.0, 2.0])

    def gradient(x):
        return jnp.where((x >= 0 if low else x > 0) & (x <= 1 if high else x < 1), 1.0, 0.0)

    report = examine(gradient, lambda x: jnp.clip(x, 0, 1).sum(), x, kind="gradient")
    assert report.ok, str(report)
    assert "nothing was verified" not in str(report)


def test_tied_kinks_still_are():
    x = np.array([1.0, 1.0, 0.0])
    report = examine(lambda x: jnp.where(x == x.max(), 1.0, 0.0), jnp.max, x, kind="gradient")
    assert not report.ok


def test_a_reference_may_index_labels_by_what_it_is_given():
    def loss(x, time, event):
        order = jnp.argsort(-time)
        return jnp.where(event[order] > 0, x[order], 0).sum()

    args = normal(5), RNG.permutation(5) + 1.0, np.array([1, 0, 1, 1, 0])
    report = examine(
        lambda x, t, e: np.asarray(e, float), loss, *args, kind="gradient", argnums=[0]
    )
    assert report.ok, str(report)


def test_a_search_draws_no_symmetric_matrix_that_is_not_square():
    rng = np.random.default_rng(0)
    for matrix in (np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])):
        (drawn,) = inputs.draw([matrix], {(0, 1): 5}, rng)
        assert drawn.shape == (2, 5)


def test_a_constant_of_ten_digits_is_said_to_be_one():
    k = 0.7978845608

    def gradient(x):
        t = np.tanh(k * (x + 0.044715 * x**3))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * k * (1 + 3 * 0.044715 * x * x)

    report = examine(gradient, lambda x: jax.nn.gelu(x).sum(), normal(4), kind="gradient")
    assert any("too few digits" in d.text for d in report.diagnoses), str(report)


def test_how_many_digits_were_verified_where_they_are_few():
    n = 9
    hilbert = 1 / (np.arange(n)[:, None] + np.arange(n) + 1.0)

    def backward(a, b, dy):
        back = np.linalg.solve(a.T, dy)
        return -np.outer(back, np.linalg.solve(a, b)), back

    report = examine(backward, jnp.linalg.solve, hilbert, np.ones(n), kind="backward")
    assert report.ok
    assert any("digits only" in remark for remark in report.remarks), str(report)
    assert not any(
        "digit" in remark
        for remark in examine(backward, jnp.linalg.solve, np.eye(3) + hilbert[:3, :3], np.ones(3),
                              kind="backward").remarks
    )  # fmt: skip
