"""Slips in layers with caches, loops over indices and recurrences, as courses have them written."""

import ast

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import examine, mending
from handgrad.compare.edits import sites
from handgrad.compare.looks import Looks
from handgrad.compare.mutate import Mend, Mutant
from handgrad.compare.scaled import recurring
from handgrad.compare.substitutions import substitutions


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def mends(backward, function, *args, kind="backward", argnums=None):
    report = examine(backward, function, *args, kind=kind, argnums=argnums)
    assert not report.ok
    return [d.text.partition(": ")[2] for d in report.diagnoses if d.kind == "mend"]


# --- sizes ---------------------------------------------------------------------------------------


def test_no_array_and_no_shape_stands_for_a_size():
    tree = ast.parse("def f(x, i, shape):\n    return np.tile(x, 2 * n)").body[0]
    looks = Looks(groups={"shape"}, shapes={"x": {(3,)}, "i": {(9,)}, "n": {()}, "m": {()}})
    looks.ranges |= {"n": (2.0, 2.0), "m": (4.0, 4.0)}
    (count,) = (s.node for s in sites(tree) if ast.unparse(s.node) == "2 * n")
    looks.of_node |= {id(count): (), id(count.right): ()}
    counts = {
        ast.unparse(edit.new)
        for _, edit in substitutions(tree, ("n", "m"), looks)
        if any(p is count for p in (edit.site.node, edit.site.parent))
    }
    assert "m" in counts
    assert not any(set(text.split()) & {"shape", "x", "i"} for text in counts), counts


def centred(x):
    return (x - x.mean(0, keepdims=True)) ** 3


def centred_backward(x, dy):
    N, D = dy.shape
    away = (x - np.mean(x, axis=0)).reshape(N, D)
    dmean = -np.sum(dy * 3 * away**2, axis=0)
    return (dy * 3 * away**2 + dmean / D,)


def test_a_size_for_another_is_said_before_a_term_that_makes_up_for_it():
    (mend,) = mends(centred_backward, centred, normal(6, 4))
    assert mend == "the wrong size: write `dmean / N` for `dmean / D`, and it is right"


def test_the_size_of_another_axis():
    def group_norm(x):
        g = x.reshape(4, -1)
        g = (g - g.mean(1, keepdims=True)) / jnp.sqrt(g.var(1, keepdims=True) + 1e-5)
        return g.reshape(x.shape)

    def backward(x, dy):
        g, d = x.reshape(4, -1), dy.reshape(4, -1)
        M = x.shape[0]
        rstd = 1 / np.sqrt(g.var(1, keepdims=True) + 1e-5)
        g = (g - g.mean(1, keepdims=True)) * rstd
        centred = M * d - d.sum(1, keepdims=True) - g * (d * g).sum(1, keepdims=True)
        return ((rstd / M * centred).reshape(x.shape),)

    found = mends(backward, group_norm, normal(2, 4, 3))
    assert found[0].startswith("the wrong size: write `g.shape[1]` for `x.shape[0]`")


def test_a_mean_without_the_diagonal():
    def loss(x):
        k = jnp.exp(-((x[:, None] - x[None, :]) ** 2)) * (1 - jnp.eye(x.shape[0]))
        return k.sum() / (x.shape[0] * (x.shape[0] - 1))

    def gradient(x):
        n = x.shape[0]
        apart = x[:, None] - x[None]
        return -4 * (np.exp(-(apart**2)) * apart).sum(1) / n**2

    found = mends(gradient, loss, normal(5), kind="gradient")
    assert any("write `n * (n - 1)` for `n ** 2`" in m for m in found)


# --- sums and axes -------------------------------------------------------------------------------


def lit(n, light, albedo):
    return albedo * (n * light).sum(-1, keepdims=True)


def lit_backward(n, light, albedo, dy):
    dlit = dy * albedo
    return dlit * light, (dlit * n).sum(0, keepdims=True), dy * (n * light).sum(-1, keepdims=True)


def test_a_sum_left_out_that_broadcasting_hides():
    (mend,) = mends(lit_backward, lit, normal(5, 3), normal(1, 3), normal(5, 3))
    assert mend == (
        "a sum left out: write `(dy * albedo).sum(-1, keepdims=True)` for `dy * albedo`, "
        "and it is right"
    )


def test_a_product_of_sums_for_a_sum_of_products():
    found = mends(
        lambda x, s, dy: (dy * s, jnp.sum(dy) * jnp.sum(x)), jnp.multiply, normal(4), normal()
    )
    assert found[0].startswith("a product of sums for a sum of products: write `jnp.sum(dy * x)`")


def test_axes_in_any_other_order():
    def columns(x, w):
        return x.reshape(x.shape[0], x.shape[1], -1).transpose(0, 2, 1) @ w

    def backward(x, w, dy):
        c = x.shape[1]
        dw = x.transpose(2, 1, 0, 3).reshape(c, -1) @ dy.reshape(-1, dy.shape[-1])
        return (dy @ w.T).transpose(0, 2, 1).reshape(x.shape), dw

    (mend,) = mends(backward, columns, normal(2, 3, 2, 2), normal(3, 4))
    assert mend.startswith("axes in another order: write `x.transpose(1, 0, 2, 3)`")


def test_means_for_sums_in_one_statement():
    def backward(x, w, b, dy):
        return dy @ w.T, (x[:, :, None] * dy[:, None]).mean(0), dy.mean(0)

    (mend,) = mends(
        backward, lambda x, w, b: x @ w + b[None], normal(4, 3), normal(3, 2), normal(2)
    )
    assert mend.startswith("a mean taken for a sum: write `return (dy @ w.T, ")


def test_repeated_indices_are_written_as_python_has_them():
    ids = np.array([0, 2, 2])

    def backward(table, dy):
        dtable = np.zeros_like(table)
        dtable[:, ids] += dy
        return (dtable,)

    (mend,) = mends(backward, lambda table: table[:, ids], normal(2, 4))
    assert "write `np.add.at(dtable, (slice(None), ids), dy)`" in mend


# --- loops ---------------------------------------------------------------------------------------


def test_an_index_shifted_twice_in_one_statement():
    def normalised(A, v):
        for _ in range(3):
            v = A @ v
            v = v / jnp.sqrt(v @ v)
        return v

    def backward(A, v, dv):
        vs, ns = [v], []
        for _ in range(3):
            w = A @ vs[-1]
            ns.append(np.sqrt(w @ w))
            vs.append(w / ns[-1])
        dA = np.zeros_like(A)
        for k in range(2, -1, -1):
            dw = (dv - vs[k] * (vs[k] @ dv)) / ns[k]
            dA += np.outer(dw, vs[k])
            dv = A.T @ dw
        return dA, dv

    (mend,) = mends(backward, normalised, normal(4, 4), normal(4))
    assert "write `dw = (dv - vs[k + 1] * (vs[k + 1] @ dv)) / ns[k]`" in mend


def stepped(y, a):
    for _ in range(3):
        y = y + jnp.tanh(a * y)
    return y


def stepped_backward(y, a, dy):
    ys = [y]
    for _ in range(3):
        ys.append(ys[-1] + jnp.tanh(a * ys[-1]))
    da = jnp.zeros_like(a)
    for y in ys[:0:-1]:
        slope = 1 - jnp.tanh(a * y) ** 2
        da = da + dy * slope * y
        dy = dy + dy * slope * a
    return dy, da


def test_the_states_before_the_steps_and_not_those_behind_them():
    (mend,) = mends(stepped_backward, stepped, normal(4), normal(4))
    assert mend == "off by one: write `ys[-2::-1]` for `ys[:0:-1]`, and it is right"


def test_what_is_to_be_changed_in_one_round_of_a_loop_says_so():
    once, again = (Mutant({}, words, None) for words in ("leave out `x`", "negate `x`"))
    alone = Mend(None, "negate `x`")
    assert mending._of_how_many(alone, [once, once, again]) == alone
    several = mending._of_how_many(Mend(None, "leave out `x`"), [once, once, again])
    assert several.words == "leave out `x`, in one of 2 rounds"


def test_how_often_a_term_is_lacking_of_which_a_recurrence_makes_powers():
    def results(factor):
        return [np.array([1 + factor, (1 + factor) ** 2, (1 + factor) ** 3])]

    found = recurring(results(0), results(1), results(0.4), results)
    assert found == pytest.approx(0.4)
    assert recurring(results(0), results(1), [np.array([0.0, 3.0, 1.0])], results) is None


def test_the_line_of_the_other_weight():
    def loss(p):
        return (p["W1"] @ p["W2"]).sum() + 0.1 * sum((w**2).sum() for w in p.values())

    def gradient(p):
        W1, W2 = p["W1"], p["W2"]
        grads = {"W1": np.zeros_like(W1) + W2.sum(1), "W2": np.zeros_like(W2) + W1.sum(0)[:, None]}
        grads["W2"] = grads["W2"] * 1.0
        grads["W1"] += 2 * 0.1 * W1
        return grads

    found = mends(gradient, loss, {"W1": normal(4, 3), "W2": normal(3, 2)}, kind="gradient")
    assert any("a forgotten line: write `grads['W2'] += 2 * 0.1 * W2` after" in m for m in found)


def test_the_line_of_the_other_index():
    def loss(W, x, y):
        s = x @ W
        rows = jnp.arange(len(y))
        margins = jnp.maximum(0, s - s[rows, y][:, None] + 1)
        return margins.at[rows, y].set(0).sum()

    def gradient(W, x, y):
        dW = np.zeros(W.shape)
        for i in range(len(x)):
            scores = x[i] @ W
            for j in range(W.shape[1]):
                if j != y[i] and scores[j] - scores[y[i]] + 1 > 0:
                    dW[:, j] += x[i]
        return dW

    args = normal(4, 3), normal(5, 4), np.array([0, 2, 1, 1, 0])
    found = mends(gradient, loss, *args, kind="gradient", argnums=[0])
    assert any("a forgotten line: write `dW[:, y[i]] -= x[i]` after" in m for m in found)


# --- factors and terms ---------------------------------------------------------------------------


def test_a_number_added_to_a_vector_may_lack_a_vector():
    tree = ast.parse("def f(d, k, slope):\n    return d + slope").body[0]
    total, slope = (
        next(s for s in sites(tree) if ast.unparse(s.node) == text)
        for text in ("d + slope", "slope")
    )
    looks = Looks(shapes={"k": {(3,)}, "w": {(2, 3)}})
    looks.of_node |= {id(total.node): (3,), id(slope.node): ()}
    assert looks.fits(slope, "k", alike=False)
    assert not looks.fits(slope, "w", alike=False)
    assert not looks.fits(slope, "k", alike=True)


def test_a_matrix_that_is_to_be_symmetrised():
    def loss(L, x):
        z = x @ L
        apart = ((z[:, None] - z[None, :]) ** 2).sum(-1)
        return jnp.exp(-apart).sum(1) @ jnp.arange(5.0)

    def gradient(L, x):
        z = x @ L
        weights = np.exp(-((z[:, None] - z[None]) ** 2).sum(-1)) * np.arange(5.0)[:, None]
        return -2 * x.T @ (np.diag(weights.sum(1)) - weights) @ z

    found = mends(gradient, loss, normal(3, 2), np.sin(normal(5, 3)), kind="gradient", argnums=[0])
    assert any(m.startswith("not symmetrised: write ") for m in found)
    assert not any("/ 2" in m for m in found)
