"""A term, a line or a slope that was forgotten is found, with the line in which it belongs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import check_backward, examine
from handgrad.compare.inputs import Domain
from handgrad.compare.mutate import _number
from handgrad.compare.paths import Cuts
from handgrad.compare.problem import Problem


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


# --- each is the right derivation but for what its comment says is missing -----------------------


def planar(z, w, u):
    return z + u * jnp.tanh(z @ w)


def planar_backward(z, w, u, dy):
    h = np.tanh(z @ w)
    slope = (dy @ u) * (1 - h**2)
    dz = dy.copy()  # ! + slope * w
    return dz, slope * z, h * dy


def affine_energy(x, w):
    y = x @ w
    return (y**2).sum() + 3 * (x * x).sum()


def affine_energy_gradient(x, w):
    y = x @ w
    return 2 * y @ w.T, 2 * x.T @ y  # ! + 6 x


def degrees(a, c):
    return (c * a / jnp.sqrt(a.sum(1))[:, None]).sum()


def degrees_gradient(a, c):
    d = a.sum(1)
    dd = -0.5 * (c * a).sum(1) * d**-1.5  # noqa: F841
    return (c / np.sqrt(d)[:, None],)  # ! + dd[:, None]


def softmax_loss(x, c):
    return (jax.nn.softmax(x, -1) * c).sum()


def softmax_loss_gradient(x, c):
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return (p * c,)  # ! - p (p c).sum


def unit(x):
    return x / jnp.linalg.norm(x)


def unit_backward(x, dy):
    n = np.sqrt(x @ x)
    y = x / n  # noqa: F841
    g = dy  # ! - y (y @ dy)
    return (g / n,)


def attraction(x):
    d = x[:, None] - x[None]
    return 0.5 * jnp.sin(d).sum() + 0.25 * (d**2).sum()


def attraction_gradient(x):
    g = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(i):
            f = x[i] - x[j]
            g[i] += f  # ! g[j] -= f
    return (g,)


def recursion(a, x):
    h = jnp.zeros(3)
    for t in range(len(x)):
        h = a * h + x[t]
    return (h**2).sum()


def recursion_gradient(a, x):
    hs = [np.zeros(3)]
    for t in range(len(x)):
        hs.append(a * hs[-1] + x[t])
    dh, da, dx = 2 * hs[-1], np.zeros(3), np.zeros_like(x)
    for t in reversed(range(len(x))):
        dx[t] = dh
        da += dh * hs[t]  # ! dh = a * dh
    return da, dx


def two_averages(d, x):
    a = b = 0.0
    for each in x:
        a, b = d * a + each, d * b + each**2
    return a + 0.5 * b


def two_averages_gradient(d, x):
    ga, gb = 1.0, 0.5
    dx = np.zeros_like(x)
    for t in reversed(range(len(x))):
        dx[t] = ga + 2 * gb * x[t]
        ga *= d  # ! gb = d * gb
    return (dx,)


def filtered(a, q, y):
    p, total = 1.0, 0.0
    for each in y:
        p = a * a * p + q
        total = total + each / p
    return total


def filtered_gradient(a, q, y):
    p, dp, total = 1.0, np.zeros(2), np.zeros(2)
    of_a, of_q = np.eye(2, dtype=np.asarray(y).dtype)
    for each in y:
        dp = a * p * of_a + a * a * dp + of_q  # ! 2 a p
        p = a * a * p + q
        total -= each / p**2 * dp
    return total[0], total[1]


def scores(q, k):
    return q @ k.T / q.shape[1] ** 0.5


def scores_backward(q, k, dy):
    d = q.shape[1]
    dk = np.zeros_like(k)
    for t in range(len(q)):
        dk += np.outer(dy[t], q[t])  # ! / sqrt d
    return dy @ k / np.sqrt(d), dk


def sums(x):
    return jnp.cumsum(x, 0) ** 2


def sums_backward(x, dy):
    s = np.cumsum(x, 0)
    return (np.cumsum(2 * s * dy, 0),)  # ! from the end


def ranked(x):
    return jnp.sort(x) ** 2


def ranked_backward(x, dy):
    order = jnp.argsort(x)
    return ((2 * x[order] * dy)[order],)  # ! by the inverse


def positive(x):
    return jax.nn.softplus(x) ** 2


def positive_backward(x, dy):
    y = jnp.log1p(jnp.exp(x))
    return (2 * y * dy,)  # ! times the sigmoid


def dirichlet(a, x):
    return ((a - 1) * jnp.log(x)).sum()


def dirichlet_gradient(a, x):
    return (a / x,)  # ! a - 1


FOUND = [
    (planar_backward, planar, (normal(4), normal(4), normal(4)), "slope", "backward", None),
    (affine_energy_gradient, affine_energy, (normal(4, 3), normal(3, 2)), "x * 6", "gradient",
     None),
    (degrees_gradient, degrees, (1 + normal(3, 4) ** 2, normal(3, 4)), "dd[:, None]", "gradient",
     [0]),
    (softmax_loss_gradient, softmax_loss, (normal(4, 5), normal(4, 5)),
     "write `p * c - p * (p * c).sum(-1, keepdims=True)`", "gradient", [0]),
    (unit_backward, unit, (normal(5),), ").sum(-1, keepdims=True)", "backward", None),
    (attraction_gradient, attraction, (normal(4),), "write `g[j] -= f` after `g[i] += f`",
     "gradient", None),
    (recursion_gradient, recursion, (normal(3), normal(5, 3)), "write `dh = a * dh` after",
     "gradient", None),
    (two_averages_gradient, two_averages, (0.7, normal(5)), "write `gb = d * gb` after `ga *= d`",
     "gradient", [1]),
    (filtered_gradient, filtered, (0.9, 0.4, normal(5)), "a factor left out: write `2 * (a * p",
     "gradient", [0, 1]),
    (scores_backward, scores, (normal(4, 3), normal(5, 3)), "/ d ** 0.5`", "backward", None),
    (sums_backward, sums, (normal(5, 2),), "the wrong direction in time: write `np.flip(",
     "backward", None),
    (ranked_backward, ranked, (normal(6),), "[order.argsort()]", "backward", None),
    (positive_backward, positive, (normal(4),), "(1 / (1 + jnp.exp(-x)))", "backward", None),
    (dirichlet_gradient, dirichlet, (3 + normal(4), np.full(4, 0.25) + 0.1 * normal(4) ** 2),
     "write `(a - 1) / x`", "gradient", [1]),
]  # fmt: skip


def line_of(function):
    import inspect

    lines, first = inspect.getsourcelines(function)
    (place,) = (k for k, line in enumerate(lines) if "# !" in line)
    return first + place


@pytest.mark.parametrize(("hand", "plain", "args", "words", "kind", "argnums"), FOUND)
def test_what_was_forgotten(hand, plain, args, words, kind, argnums):
    report = examine(hand, plain, *args, kind=kind, argnums=argnums)
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    place = f"test_compare_forgotten.py:{line_of(hand)}: "
    assert any(m.startswith(place) and words in m for m in mends), str(report)


# --- what is right here alone says so ------------------------------------------------------------


def largest_vector(a, c):
    values, vectors = jnp.linalg.eigh((a + a.T) / 2)
    return (c @ vectors[:, -1]) ** 2 + 0 * values[0]


def largest_vector_gradient(a, c):
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    v = vectors[:, -1]
    g = 2 * (c @ v) * c
    inverse = sum(
        np.outer(vectors[:, i], vectors[:, i]) / (values[i] - values[-1])  # !
        for i in range(3)  # for matrices of four rows alone
    )
    whole = np.outer(inverse @ g, v)
    return ((whole + whole.T) / 2,)


def test_a_mend_that_holds_at_these_sizes_says_so():
    report = examine(largest_vector_gradient, largest_vector, normal(4, 4), normal(4),
                     kind="gradient", argnums=[0])  # fmt: skip
    (mend,) = [d.text for d in report.diagnoses if d.kind == "mend"]
    line = line_of(largest_vector_gradient)
    assert f":{line}: wrong sign: write `values[-1] - values[i]`" in mend
    assert mend.endswith("and it is right at these sizes")


def fixed_point(w):
    z = jnp.zeros(3)
    for _ in range(60):
        z = jnp.tanh(w @ z + 0.5)
    return (z**2).sum()


def fixed_point_gradient(w):
    z = jnp.zeros(3)
    for _ in range(60):
        z = jnp.tanh(w @ z + 0.5)
    slope = 1 - z**2
    u = jnp.linalg.solve(jnp.eye(3) - slope[:, None] * w, 2 * z)  # ! transposed
    return (jnp.outer(slope * u, z),)


def test_a_mend_that_holds_where_the_iteration_converges_says_so():
    report = examine(fixed_point_gradient, fixed_point, 0.2 * normal(3, 3), kind="gradient")
    (mend,) = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert f":{line_of(fixed_point_gradient)}: transposed: write" in mend
    assert mend.endswith("and it is right at your inputs")


def tempered(x, c):
    return (jax.nn.softmax(x / 3) * c).sum() + jnp.tanh(x[0] * x[1] * x[2])


def tempered_gradient(x, c):
    p = np.exp(x / 3) / np.exp(x / 3).sum()
    rest = 1 - np.tanh(x[0] * x[1] * x[2]) ** 2  # noqa: F841
    return (p * (c - p @ c) / 3,)  # the whole of it is left out


def test_what_is_computed_and_never_used_is_named():
    report = examine(tempered_gradient, tempered, normal(3), normal(3), kind="gradient",
                     argnums=[0])  # fmt: skip
    line = tempered_gradient.__code__.co_firstlineno + 2
    said = f"test_compare_forgotten.py:{line}: `rest` is computed and never used"
    assert said in [d.text for d in report.diagnoses], str(report)


# --- and what ended or misled --------------------------------------------------------------------


def logistic(w, x, y):
    z = x @ w
    return (jnp.log1p(jnp.exp(z)) - y * z).sum() + 0.5 * (w[1:] ** 2).sum()


def test_what_is_only_ever_indexed_is_no_array():
    def gradient(w, x, y):
        p = 1 / (1 + np.exp(-x @ w))
        return x.T @ (p - y) + 2 * np.r_[0, w[1:]]

    y = np.array([1.0, 0, 1, 1])
    report = examine(gradient, logistic, normal(3), normal(4, 3), y, kind="gradient", argnums=[0])
    assert not report.ok


def interpolated(grid, x):
    left = jnp.floor(x).astype(int)
    share = x - left.astype(x.dtype)
    return grid[left] * (1 - share) + grid[left + 1] * share


def interpolated_backward(grid, x, dy, sign=1):
    dgrid, dx = np.zeros_like(grid), np.zeros_like(x)
    for n, place in enumerate(np.asarray(x)):
        left = int(np.floor(place))
        dgrid[left] += dy[n] * (1 - (place - left))
        dgrid[left + 1] += sign * dy[n] * (place - left)
        dx[n] = dy[n] * (grid[left + 1] - grid[left])
    return dgrid, dx


def test_a_sample_of_ours_at_which_the_derivation_raises_is_left_out():
    places = np.array([3.2, 0.7, 3.9, 1.1])
    assert check_backward(interpolated_backward, interpolated, normal(5), places).ok

    def wrong(grid, x, dy):
        return interpolated_backward(grid, x, dy, -1)

    assert not examine(wrong, interpolated, normal(5), places, kind="backward").ok
    report = examine(interpolated_backward, interpolated, normal(5), places + 9, kind="backward")
    assert "IndexError" in report.problem  # at the user's own inputs it is told


def test_a_zero_has_no_digits_to_lose():
    mask = np.tril(np.ones((3, 3)))  # the first row has one element, and so is 1 whatever that is

    def shares(x):
        return x * mask / (x * mask).sum(-1, keepdims=True)

    def backward(x, dy):
        s = (np.asarray(x) * mask).sum(-1, keepdims=True)
        return (mask * (dy / s - (dy * x * mask).sum(-1, keepdims=True) / s**2),)

    report = check_backward(backward, shares, 1 + normal(3, 3) ** 2)
    assert not any("digits lost" in remark for remark in report.remarks)


def unrolled(x, w):
    for _ in range(80):
        x = 0.5 * jnp.sin(x * w) + 0.1
    return x.sum()


def test_the_cuts_of_an_unrolled_loop_are_one():
    cuts = Cuts(Problem(unrolled, unrolled, (normal(2), normal(2)), "gradient", None))
    assert len(cuts.edges) < 10
    report = examine(
        lambda x, w: (jax.grad(unrolled)(x, w), jnp.zeros(2)), unrolled, normal(2), normal(2),
        kind="gradient",
    )  # fmt: skip
    assert not report.ok


@pytest.mark.parametrize("c", [np.pi / 3.14159265, 1 + 3e-10, 1e-5, 0.3, 2 / 3, 2**0.5, 7.0])
def test_a_number_that_is_told_is_the_number(c):
    said, _, exactly = _number(c).partition(" = ")
    assert exactly in ("2/3", "√(2)", "3/10") or float(said) == pytest.approx(c, rel=5e-11, abs=0)


@pytest.mark.parametrize("definite", [False, True])
def test_symmetric_weights_of_edges_stay_positive(definite):
    x = np.array([[3.0, 1.0], [1.0, 2.0]]) if definite else np.array([[1.0, 3.0], [3.0, 2.0]])
    domain = Domain.of(x)
    rng = np.random.default_rng(0)
    for drawn in (domain.draw(rng, (4, 4)) for _ in range(20)):
        assert (drawn > 0).all()
        assert (drawn == drawn.T).all()
        assert not definite or np.linalg.eigvalsh(drawn).min() > 0


def test_the_loss_beside_its_gradients_is_told():
    def both(w, x, y):
        return 1.0, (w, x, y)

    report = examine(both, logistic, normal(3), normal(4, 3), normal(4), kind="gradient")
    assert "the loss and its gradients? Return the gradients alone" in report.problem
    assert "cotangent" not in report.problem


# --- a slope of what the reference calls ---------------------------------------------------------


def leaky(x, w):
    return jax.nn.leaky_relu(x @ w, 0.2)


def smooth(x, w):
    return jax.nn.silu(x @ w)


def bounded(x, w):
    return jnp.clip(x @ w, -1, 1)


def cubed(x, w):
    return (x @ w) ** 3


def without_the_slope(x, w, dy):
    z = x @ w  # noqa: F841
    dz = dy
    return dz @ w.T, x.T @ dz


@pytest.mark.parametrize(
    ("reference", "slope"),
    [
        (leaky, "jnp.where(z > 0, 1, 0.2)"),
        (smooth, "((1 + z / (1 + jnp.exp(z))) / (1 + jnp.exp(-z)))"),
        (bounded, "((z > -1) & (z < 1))"),
        (cubed, "(3 * z ** 2)"),
    ],
)
def test_the_slope_of_what_the_reference_calls(reference, slope):
    report = examine(without_the_slope, reference, normal(4, 3), normal(3, 5), kind="backward")
    assert f"a factor left out: write `dz = dy * {slope}`" in str(report)


def test_a_slope_that_the_reference_has_for_zero():
    def backward(x, w, dy):
        dz = dy * jnp.where(x @ w > 0, 1, 0)
        return dz @ w.T, x.T @ dz

    report = examine(backward, leaky, normal(4, 3), normal(3, 5), kind="backward")
    assert "write `jnp.where(x @ w > 0, 1, 0.2)`" in str(report)


def output(z):
    return np.tanh(z) + 0.1 * z


def output_prime(z):
    return 1 - np.tanh(z) ** 2 + 0.1


def squares(ws, x):
    for w in ws:
        z = w @ x
        x = jnp.tanh(z) + 0.1 * z
    return (x**2).sum()


def squares_by_layers(ws, x):
    zs, xs = [], [x]
    for w in ws:
        zs.append(w @ xs[-1])
        xs.append(output(zs[-1]))
    delta = 2 * xs[-1]
    dws = [np.zeros_like(w) for w in ws]
    for k in reversed(range(len(ws))):
        dws[k] = np.outer(delta, xs[k])
        if k:
            delta = (ws[k].T @ delta) * output_prime(zs[k - 1])
    return dws


def test_the_slope_that_a_function_of_the_users_gives():
    args = [normal(4, 3), normal(3, 4)], normal(3)
    report = examine(squares_by_layers, squares, *args, kind="gradient", argnums=[0])
    assert "a factor left out: write `2 * xs[-1] * output_prime(zs[-1])`" in str(report)


class Kept:
    pass


def softmaxes(x, w):
    return jax.nn.softmax(x @ w)


def one_by_one_by_an_attribute(x, w, dy):
    kept = Kept()
    e = np.exp(x @ w)
    kept.p = e / e.sum(-1, keepdims=True)
    dz = kept.p * dy
    return dz @ w.T, x.T @ dz


def one_by_one_by_a_key(x, w, dy):
    e = np.exp(x @ w)
    kept = {"p": e / e.sum(-1, keepdims=True)}
    dz = kept["p"] * dy
    return dz @ w.T, x.T @ dz


@pytest.mark.parametrize(
    ("backward", "p"), [(one_by_one_by_an_attribute, "kept.p"), (one_by_one_by_a_key, "kept['p']")]
)
def test_the_rest_of_a_softmax_that_is_kept_in_something(backward, p):
    report = examine(backward, softmaxes, normal(4, 3), normal(3, 5), kind="backward")
    rest = f"{p} * dy - {p} * ({p} * dy).sum(-1, keepdims=True)"
    assert f"a forgotten term: write `{rest}`" in str(report)


# --- a part --------------------------------------------------------------------------------------


def margins(w, x, y):
    s = x @ w
    rows = jnp.arange(len(x))
    m = jnp.maximum(0, s - s[rows, y][:, None] + 1)
    return m.at[rows, y].set(0).sum()


def margins_counted_once(w, x, y):
    s = x @ w
    rows = np.arange(len(x))
    m = ((s - s[rows, y][:, None] + 1) > 0).astype(float)
    m[rows, y] = 0
    m[rows, y] = -1
    return x.T @ m


def test_what_is_to_be_counted():
    args = normal(4, 5), normal(6, 4), np.array([0, 3, 1, 4, 4, 2])
    report = examine(margins_counted_once, margins, *args, kind="gradient", argnums=[0])
    assert "what was counted left out: write `m[rows, y] = -m.sum(1)`" in str(report)


def ridge(theta, x):
    return jnp.tanh(x @ theta).sum() + 0.3 * (theta[1:] ** 2).sum()


def ridge_of_the_bias_too(theta, x):
    grad = x.T @ (1 - np.tanh(x @ theta) ** 2)
    grad += 0.6 * theta
    return grad


def test_the_bias_that_is_not_regularised():
    report = examine(ridge_of_the_bias_too, ridge, normal(4), normal(7, 4), kind="gradient")
    assert "one element too many: write `grad[1:] += (0.6 * theta)[1:]`" in str(report)
