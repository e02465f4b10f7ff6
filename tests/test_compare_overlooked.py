"""What was not told, or told wrongly, of derivations that nobody here had seen before."""

import ast
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import check_backward, check_gradient, examine, mending
from handgrad.compare.looks import Looks
from handgrad.compare.substitutions import substitutions


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def line_of(function):
    lines, first = inspect.getsourcelines(function)
    (place,) = (k for k, line in enumerate(lines) if "# !" in line)
    return first + place


# --- what is right -------------------------------------------------------------------------------


def rows(table, scale, ids):
    return scale * table[ids]


def rows_backward(table, scale, ids, dy):
    return jnp.zeros_like(table).at[ids].add(scale * dy), (dy * table[ids]).sum()


def test_none_for_integers_need_not_be_returned():
    ids = np.array([0, 2, 2])
    args = normal(4, 2), np.array(0.7), ids
    assert [q.path for q in check_backward(rows_backward, rows, *args).gradients] == [
        "table", "scale",
    ]  # fmt: skip
    lacking = examine(lambda *a: rows_backward(*a)[:1], rows, *args, kind="backward")
    assert "returned 1 cotangent; it must return a tuple of 3" in lacking.problem


def test_a_cotangent_alone_where_the_other_arguments_are_integers():
    def gathered(table, ids):
        return table[ids]

    def backward(table, ids, dy):
        return jnp.zeros_like(table).at[ids].add(dy)

    check_backward(backward, gathered, normal(4, 2), np.array([0, 2, 2]))
    report = examine(lambda a, b, dy: dy * b, jnp.multiply, normal(2), normal(2), kind="backward")
    assert "returned float64[2]; it must return a tuple of 2" in report.problem


def test_nor_for_a_number_that_is_a_constant():
    def loss(x, ids, eps):
        return jnp.log(x[ids] ** 2 + eps).sum()

    def gradient(x, ids, eps):
        return (jnp.zeros_like(x).at[ids].add(2 * x[ids] / (x[ids] ** 2 + eps)),)

    report = check_gradient(gradient, loss, normal(4), np.array([0, 3, 3]), 1e-3)
    assert [q.path for q in report.gradients] == ["x"]


def spectrum(x):
    return jnp.fft.fft(x).imag


def spectrum_backward(x, dy):
    k = np.arange(x.shape[0])
    return (-dy @ jnp.sin(2 * np.pi * np.outer(k, k) / x.shape[0]),)


def test_the_sine_of_pi_is_zero():
    check_backward(spectrum_backward, spectrum, normal(8))

    def slightly(x, dy):
        return ((1 + 1e-11) * spectrum_backward(x, dy)[0],)

    assert not examine(slightly, spectrum, normal(8), kind="backward").ok


BIAS = np.array([[-0.5, -1e30, -1e30], [-0.25, -0.5, -1e30], [-0.125, -0.25, -0.5]])


def test_beside_a_masked_score_the_others_are_something():
    def biased(x):
        return jax.nn.softmax(x + BIAS)

    def backward(x, dy, slope=1.0):
        p = jax.nn.softmax(x + np.where(BIAS < -1e29, BIAS, slope * BIAS))
        return p * (dy - (p * dy).sum(-1, keepdims=True))

    check_backward(backward, biased, normal(3, 3))
    report = examine(lambda x, dy: backward(x, dy, 1 + 1e-6), biased, normal(3, 3), kind="backward")
    assert not report.ok


def test_the_loss_beside_its_gradients_is_told_where_labels_are_given():
    def loss(w, b, ids):
        return ((w * b)[ids] ** 2).sum()

    def both(w, b, ids):
        return loss(w, b, ids), jax.grad(loss, (0, 1))(w, b, ids)

    report = examine(both, loss, normal(4), 1 + normal(4), np.array([0, 1, 1]), kind="gradient")
    assert "the loss and its gradients? Return the gradients alone" in report.problem


# --- what mends it -------------------------------------------------------------------------------


def weighted(x, w):
    return (w * x**2).sum() / w.sum()


def unweighted_gradient(x, w):
    return 2 * w * x  # !


def masked(x, valid):
    return (valid * jnp.exp(x)).sum() / valid.sum()


def masked_gradient(x, valid):
    n = x.shape[0]
    return np.exp(x) * valid / n  # !


def chosen(x, ids, w):
    picked = jax.nn.log_softmax(x)[np.arange(len(ids)), ids]
    return -(w[ids] * picked).sum() / w[ids].sum()


def chosen_gradient(x, ids, w):
    g = jax.nn.softmax(x) - jax.nn.one_hot(ids, x.shape[1], dtype=x.dtype)
    return g * w[ids][:, None] / ids.shape[0]  # !


def coupling(x, w):
    s = jnp.tanh(x @ w)
    return x * jnp.exp(s), s.sum(1)


def coupling_backward(x, w, cotangents):
    dy, dlogdet = cotangents  # noqa: RUF059
    s = jnp.tanh(x @ w)
    ds = dy * x * jnp.exp(s)  # + dlogdet[:, None], here or in the next line
    dz = ds * (1 - s**2)  # !
    return dy * jnp.exp(s) + dz @ w.T, x.T @ dz


def ranked(s, gain):
    rank = jnp.argsort(jnp.argsort(-s)).astype(s.dtype)
    return (gain * s**2 / (rank + 2.0)).sum()


def ranked_gradient(s, gain):
    rank = jnp.asarray(jnp.argsort(-s), s.dtype)  # !
    return 2 * gain * s / (rank + 2.0)


def similarity(a, b):
    return 1 - (jnp.tanh(a) * b).sum() - (a * b**2).sum()


def similarity_gradient(a, b):
    t = np.tanh(a)
    da = b * (1 - t**2) + b**2
    db = t + 2 * a * b
    return da, db  # !


def centred(s, t, centre):
    return -(jax.lax.stop_gradient(jax.nn.softmax(t - centre)) * jax.nn.log_softmax(s)).sum()


def centred_gradient(s, t, centre):
    return jax.nn.softmax(s) - jax.nn.softmax(t)  # !


def wide(a, b):
    return (jnp.arccos(a @ b / 10) ** 2).sum()


def wide_gradient(a, b):
    t = np.arccos(a @ b / 10)
    return 2 * t @ b.T / 10  # !


FOUND = [
    (unweighted_gradient, weighted, (normal(5), 1 + normal(5) ** 2), "/ w.sum()`", "gradient",
     [0]),
    (masked_gradient, masked, (normal(6), np.array([1.0, 0, 1, 1, 1, 0])),
     "a mean over too many: write `np.exp(x) * valid / valid.sum()`", "gradient", [0]),
    (chosen_gradient, chosen, (normal(5, 3), np.array([0, 2, 1, 2, 2]), 1 + normal(3) ** 2),
     "a mean over too many: write `w[ids].sum()` for `ids.shape[0]`", "gradient", [0]),
    (coupling_backward, coupling, (normal(5, 3), normal(3, 3)), "+ dlogdet[:, None]", "backward",
     None),
    (ranked_gradient, ranked, (normal(6), normal(6)), "the order for the ranks", "gradient", [0]),
    (similarity_gradient, similarity, (normal(4), normal(4)), "write `return (-da, -db)`",
     "gradient", None),
    (centred_gradient, centred, (normal(5), normal(5)[::-1].copy(), 0.3 * normal(5)),
     "softmax(t - centre)`", "gradient", [0]),
    (wide_gradient, wide, (normal(3, 4), normal(4, 3)), "(-1 / np.sqrt(1 - ", "gradient",
     [0]),
]  # fmt: skip


@pytest.mark.parametrize(("hand", "plain", "args", "words", "kind", "argnums"), FOUND)
def test_what_was_meant(hand, plain, args, words, kind, argnums):
    report = examine(hand, plain, *args, kind=kind, argnums=argnums)
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    place = f"test_compare_overlooked.py:{line_of(hand)}: "
    assert any(m.startswith(place) and words in m for m in mends), str(report)


def test_what_is_indexed_in_the_source_is_as_good_as_a_name():
    (tree,) = ast.parse("def f(w, d, x):\n    e = w * d[:, None]\n    return x * x").body
    looks = Looks(fragments={ast.unparse(n): n for n in ast.walk(tree)
                             if isinstance(n, ast.Subscript | ast.BinOp)})  # fmt: skip
    first = {edit.words(): stage for stage, edit in reversed([*substitutions(tree, (), looks)])}
    by_name, by_column = (
        stage
        for factor in ("w", "d[:, None]")
        for words, stage in first.items()
        if words.endswith(f"write `x * x * {factor}` for `x * x`")
    )
    assert by_name == by_column


def test_a_mask_is_written_with_the_module_that_the_function_uses():
    def loss(a, t):
        return (jnp.tril(a) ** 2 * t).sum()

    def gradient(a, t):
        g = np.asarray(2 * a * t)
        return g

    report = examine(gradient, loss, normal(3, 3), 1 + normal(3, 3) ** 2, argnums=[0],
                     kind="gradient")  # fmt: skip
    assert "np.tril(" in str(report)
    assert "jnp.tril(" not in str(report)


def angles(n):
    return np.arange(n) / np.sqrt(n)


def turned(x):
    a, b = jnp.split(x, 2)
    c, s = jnp.cos(angles(len(a))), jnp.sin(angles(len(a)))
    return jnp.concatenate([a * c - b * s, a * s + b * c])


def turned_backward(x, dy):
    da, db = jnp.split(x, 2)  # !
    c, s = jnp.cos(angles(len(da))), jnp.sin(angles(len(da)))
    return (jnp.concatenate([da * c + db * s, db * c - da * s]),)


def test_nor_is_the_module_changed_that_another_function_uses():
    report = examine(turned_backward, turned, normal(6), kind="backward")
    (mend,) = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert f":{line_of(turned_backward)}: wrong operand: write `jnp.split(dy, 2)` for" in mend


# --- a mend that is one at these sizes only ------------------------------------------------------

DECAY, CHUNK = 0.9, 4


def decayed(x):
    t = jnp.arange(x.shape[0])
    return jnp.tril(DECAY ** jnp.abs(t[:, None] - t[None, :]).astype(x.dtype)) @ x


def decayed_backward(x, dy):
    t = np.arange(float(CHUNK))
    inner = np.triu(DECAY ** abs(t[:, None] - t[None, :])).astype(x.dtype)
    carry, out = 0.0, []
    for part in dy.reshape(-1, CHUNK)[::-1]:
        out.append(inner @ part + (DECAY ** (CHUNK - t)).astype(x.dtype) * carry)
        carry = part @ (DECAY**t).astype(x.dtype) + 0.5 * carry  # DECAY**CHUNK * carry
    return (jnp.concatenate(out[::-1]),)


def test_a_loop_of_chunks_is_a_longer_program_at_other_sizes():
    """It has more equations than those whose costs are known."""
    check_backward(decayed_backward, decayed, normal(8))  # two chunks hand on nothing
    assert not examine(decayed_backward, decayed, normal(12), kind="backward").ok


def decayed_in_two_backward(x, dy):
    chunk = CHUNK
    t = np.arange(float(chunk))
    inner = np.triu(DECAY ** abs(t[:, None] - t[None, :])).astype(x.dtype)
    carry, out = 0.0, []
    for part in dy.reshape(-1, chunk)[::-1]:
        out.append(inner @ part + carry)  # ! DECAY ** (chunk - t) * carry
        carry = part @ (DECAY**t).astype(x.dtype) + DECAY**chunk * carry
    return (jnp.concatenate(out[::-1]),)


def test_one_chunk_for_two_is_no_mend():
    report = examine(decayed_in_two_backward, decayed, normal(8), kind="backward")
    mends = [d.text for d in report.diagnoses if "2 * CHUNK" in d.text]
    assert all(m.endswith("at these sizes") for m in mends), str(report)


def test_the_derivation_is_run_once_with_arrays_of_other_sizes(monkeypatch):
    sizes, made = [], mending.instance

    def counted(p, candidate, args, *how):
        sizes.append(tuple(np.shape(a) for a in args))
        return made(p, candidate, args, *how)

    monkeypatch.setattr(mending, "instance", counted)

    def gradient(x):
        n = 3  # which may be the number of rows, or of columns, or 3
        return 2 * x * n

    report = examine(gradient, lambda x: (x**2).sum(), normal(3, 3), kind="gradient")
    assert any(d.kind == "mend" for d in report.diagnoses)
    searched = [s for s in sizes if sizes.count(s) > 3]
    assert not searched, sizes


# --- where to look -------------------------------------------------------------------------------


def union(p, a, b):
    u, v = ((p - c) ** 2 for c in (a, b))
    return (jnp.tanh(u) * jnp.exp(-v)).sum() + (a * b).sum()


def clipped(x, a, s):
    r = jnp.exp(x)
    return -jnp.minimum(r * a, jnp.clip(r, 0.5, 1.5) * a).sum() + (s**2).sum()


def clipped_gradient(x, a, s):
    r = jnp.exp(x)
    doubled = 2 * s
    halved = doubled / 2
    active = (r < 1.5) & (r > 0.5)  # ! depends on the sign of a
    return -jnp.where(active, a * r, 0), doubled + halved - s


def test_a_mask_is_suspected_too():
    x, a = np.array([1.0, 1.2, -1.0, -1.5, 0.1, -0.2]), np.array([1.0, -1, 1, -1, 1, -1])
    report = examine(clipped_gradient, clipped, x, a, normal(3), argnums=[0, 2], kind="gradient")
    (said,) = [d.text for d in report.diagnoses if d.kind == "place"]
    line = line_of(clipped_gradient)
    assert str(line) in said, str(report)


def two_lengths(a, b, s):
    return jnp.sqrt((a**2).sum()) * 2 + jnp.sqrt((b**2).sum()) * 3 + (s**3).sum()


def two_lengths_gradient(a, b, s):
    square = s**2
    ds = 3 * square
    da = 2 * a  # / |a|
    db = 3 * b  # / |b|
    return da, db, ds


def test_lines_that_change_a_part_of_what_is_wrong_are_named():
    args = normal(3), normal(3) + 1, normal(3)
    report = examine(two_lengths_gradient, two_lengths, *args, kind="gradient")
    first = two_lengths_gradient.__code__.co_firstlineno
    (said,) = [d.text for d in report.diagnoses if d.kind == "place"]
    assert f"py:{first + 3}-{first + 5}: look here first" in said
    assert "only those of these lines change some of what is wrong" in said


def test_a_size_that_nothing_reads_is_not_named():
    def gradient(s):
        n = s.shape[0]  # noqa: F841
        return np.arcsinh(s) * 1.3 + np.exp(-s)

    report = examine(gradient, lambda s: (s**3).sum(), normal(5), kind="gradient")
    assert not any(d.kind == "mend" for d in report.diagnoses), str(report)
    assert "never used" not in str(report)


def test_one_of_several_cotangents_left_out():
    args = normal(5, 3), normal(3, 3)
    report = examine(coupling_backward, coupling, *args, kind="backward")
    assert report.diagnoses[0].kind == "ignores-cotangent"
    assert report.diagnoses[0].text.endswith("ignores dy[1], the cotangent of output 1")


def test_a_factor_that_is_a_sum_of_weights():
    report = examine(unweighted_gradient, weighted, normal(5), 1 + normal(5) ** 2, argnums=[0],
                     kind="gradient")  # fmt: skip
    first = report.diagnoses[0]
    assert first.text == "the gradient of x is the right one times w.sum(): divide by it"
    over = examine(lambda x, w: 2 * w * x / w.sum() ** 2, weighted, normal(5),
                   1 + normal(5) ** 2, argnums=[0], kind="gradient")  # fmt: skip
    assert "is the right one over w.sum(): do not divide by it" in over.diagnoses[0].text


def test_four_signs_are_no_region():
    x = np.array([-1.0, -0.5, 0.7, -0.3])
    scope = {"np": np}  # without source: nothing mends it
    exec("def gradient(x): return np.where(x < 0, np.arcsinh(3 * x) - 0.1, 2 * x)", scope)
    report = examine(scope["gradient"], lambda x: (x**2).sum(), x, kind="gradient")
    assert not any(d.kind == "region" for d in report.diagnoses), str(report)


# --- what is computed and never used, and what is not turned round ------------------------------


def means_of_groups(x, groups):
    return jnp.array([x[groups == g].mean(0) for g in range(3)])


def means_of_groups_backward(x, groups, dy):
    members = np.bincount(groups, minlength=3)[groups]  # noqa: F841
    dx = np.zeros_like(x)
    dx += dy[groups] / x.shape[0]  # !
    return dx, None


def ranked(x):
    return jnp.sort(x) * jnp.arange(1.0, 1 + x.size)


def ranked_backward(x, dy):
    order = np.argsort(x)
    ranks = np.argsort(order)  # noqa: F841
    return dy * np.arange(1.0, 1 + x.size)  # !


def reverse_sum(x):
    return jnp.cumsum(x[::-1])[::-1] * x


def reverse_sum_backward(x, dy):
    later = np.cumsum(x[::-1])
    return dy * later + np.cumsum(dy * x)  # !


def counted(table, ids):
    return table[ids]


def counted_backward(table, ids, dy):
    out = np.zeros_like(table)
    np.add.at(out, ids, 1.0)  # !
    return out, None


GROUPS = np.array([0, 2, 1, 0, 0, 2, 1])


@pytest.mark.parametrize(
    ("backward", "forward", "args", "words"),
    [
        (means_of_groups_backward, means_of_groups, (normal(7, 2), GROUPS), "members[:, None]"),
        (ranked_backward, ranked, (normal(6),), "take_along_axis(dy * np.arange"),
        (reverse_sum_backward, reverse_sum, (normal(6),), "np.cumsum(x[::-1])[::-1]"),
        (counted_backward, counted, (normal(4, 2), GROUPS[:4]), "np.add.at(out, ids, dy)"),
    ],
    ids=["unused count", "unused ranks", "reversal left out", "counted and not summed"],
)
def test_what_is_at_hand_and_not_used(backward, forward, args, words):
    report = examine(backward, forward, *args, kind="backward")
    told = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert any(words in text for text in told), str(report)
    assert any(f":{line_of(backward)}:" in text for text in told), str(report)
    assert (GROUPS == [0, 2, 1, 0, 0, 2, 1]).all()  # nor have the arrays of the module changed


HELD = {"scale": np.ones((5, 3)), "rows": [np.array([0, 1, 4])]}


class Lookup:
    def __init__(self):
        self.cache = {"ones": np.ones((5, 3))}

    def backward(self, table, ids, dy):
        out = np.zeros_like(table)
        np.add.at(out, ids, 2 * dy)
        out += self.cache["ones"] * 0
        return out * HELD["scale"], None


def lookup_backward(table, ids, dy):
    out = np.zeros_like(table)
    np.add.at(out, HELD["rows"][0], 1.5 * dy)
    return out * HELD["scale"], None


@pytest.mark.parametrize("backward", [Lookup().backward, lookup_backward], ids=["object", "module"])
def test_no_edit_writes_into_what_is_the_users(backward):
    """np.add.at(out, …) with another array for out, as one of the edits has it."""

    def forward(table, ids):
        return jnp.sin(table[ids]) * 3.3

    ids = np.array([0, 1, 4])
    owner = getattr(backward, "__self__", None)
    report = examine(backward, forward, normal(5, 3), ids, kind="backward")
    assert not report.ok
    assert (ids == [0, 1, 4]).all()
    assert (HELD["scale"] == 1).all()
    assert (HELD["rows"][0] == [0, 1, 4]).all()
    assert owner is None or (owner.cache["ones"] == 1).all()


# --- NumPy's rounding, float32 constants, what only NumPy sorts ---------------------------------


@pytest.mark.parametrize("x", [-10.0, -14.0, -25.0])
def test_a_cancellation_in_numpy_is_no_mistake(x):
    def right(x):
        return 1 - 1 / (1 + np.exp(x))

    def wrong(x):
        return 1 - 1 / (1 + np.exp(x + 1e-6))

    def forward(x):
        return jnp.sum(jax.nn.softplus(x))

    at = np.array([x, 0.3])
    report = examine(right, forward, at, kind="gradient")
    assert report.ok, str(report)
    assert any("digits lost here" in remark for remark in report.remarks)
    assert not examine(wrong, forward, at, kind="gradient").ok


@pytest.mark.parametrize("numpy", [np, jnp], ids=["NumPy", "JAX"])
def test_a_constant_of_float32_is_right_for_float32(numpy):
    def gradient(x, times=1.0):
        return numpy.full(x.shape, times / x.size, dtype=np.float32)

    x = np.linspace(-1, 1, 10)
    single = x.astype(np.float32)
    assert examine(gradient, jnp.mean, single, kind="gradient").ok
    assert not examine(gradient, jnp.mean, x, kind="gradient")
    report = examine(lambda x: gradient(x, 1.00001), jnp.mean, single, kind="gradient")
    assert not report.ok
    exactly = examine(lambda x: (1 + 1e-9) * jnp.ones_like(x) / 10, jnp.mean, single,
                      kind="gradient")  # fmt: skip
    assert not exactly.ok  # with constants that are none of float32


def test_what_jax_traces_and_does_not_compile_runs_as_python():
    """np.argsort hands an array that is traced to itself, and what comes of it is not compiled."""

    def right(x, dy):
        return dy[np.argsort(np.argsort(x))]

    def wrong(x, dy):
        return dy[np.argsort(x)]

    report = examine(right, jnp.sort, normal(7), kind="backward")
    assert report.ok, str(report)
    assert any("it ran as plain Python" in remark for remark in report.remarks)
    report = examine(wrong, jnp.sort, normal(7), kind="backward")
    assert not report.ok
    assert any("np.argsort" in d.text for d in report.diagnoses if d.kind == "mend"), str(report)


# --- mends that were lacking, or wrong -----------------------------------------------------------


def shifted(u, d):
    return u * jnp.roll(d, 1)


def shifted_backward(u, d, dy):
    return dy * np.roll(d, 1), np.roll(dy * u, 1)  # !


def banded(x):
    return jnp.where((x > -0.5) & (x < 0.5), x**2, 0)


def banded_backward(x, dy):
    return dy * 2 * x * ((x > -0.5) | (x < 0.5))  # !


def leaky(x):
    return jnp.where(x < 0, 0.01 * x, x)


def leaky_backward(x, dy):
    dx = dy.copy()
    dx[x < 0] = 0.01  # !
    return dx


def scaled_by(x, w):
    return x * w


def scaled_by_backward(x, w, dy):
    dx = dy
    dx *= w  # !
    return dx, dy * x


OTHER = np.linspace(0, 1, 5)  # of another function, and as long


def mean_of_rows(h, w):
    return (h @ w).mean()


def mean_of_rows_gradient(h, w):
    n = h.shape[0]
    dy = np.full(n, 1.0 / len(w))  # !
    return np.outer(dy, w), h.T @ dy


@pytest.mark.parametrize(
    ("derivation", "forward", "args", "words"),
    [
        (shifted_backward, shifted, (normal(5), normal(5) + 1), "np.roll(dy * u, -1)"),
        (banded_backward, banded, (np.linspace(-1, 1, 8),), "(x > -0.5) & (x < 0.5)"),
        (leaky_backward, leaky, (normal(6),), "dx[x < 0] *= 0.01"),
        (scaled_by_backward, scaled_by, (normal(4), normal(4) + 1), "dx = dx * w"),
        (mean_of_rows_gradient, mean_of_rows, (normal(5, 3), normal(3)), ""),
    ],
    ids=["roll", "or for and", "set for multiplied", "changed in place", "another length"],
)
def test_a_mend_in_its_line(derivation, forward, args, words):
    kind = "backward" if derivation.__name__.endswith("backward") else "gradient"
    report = examine(derivation, forward, *args, kind=kind)
    told = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert any(words in text and f":{line_of(derivation)}:" in text for text in told), str(report)
    assert not any("OTHER" in text for text in told), str(report)


def test_a_mend_of_what_a_search_found_is_right_at_the_given_arguments_too():
    def square_mean(x):
        return (x**2).mean()

    def gradient(x):
        return x / 2  # of four

    report = examine(gradient, square_mean, normal(4), kind="gradient", search=True)
    assert not report.ok
    for told in (d.text for d in report.diagnoses if d.kind == "mend"):
        assert "right at these sizes" in told or "x.s" in told, str(report)


def test_a_helper_of_another_module_is_mended_there(tmp_path, monkeypatch):
    (tmp_path / "slopes_of_another_file.py").write_text(
        "import numpy as np\n\n\ndef slope(x):\n    return 1 - np.tanh(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    others = importlib.import_module("slopes_of_another_file")

    def by_name(x, dy):
        return dy * others.slope(x)

    scope = {"others": others, "slope": others.slope}
    for call in ("others.slope(x)", "slope(x)"):
        lines = f"def backward(x, dy):\n    return dy * {call}\n"
        exec(compile(lines, "<there>", "exec"), scope)
        report = examine(scope["backward"], jnp.tanh, normal(5), kind="backward")
        told = [d.text for d in report.diagnoses if d.kind == "mend"]
        assert any("slopes_of_another_file.py:5" in text for text in told), str(report)
    report = examine(by_name, jnp.tanh, normal(5), kind="backward")
    assert not report.ok
