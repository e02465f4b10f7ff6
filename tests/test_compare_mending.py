"""A mistake planted in one line is found there, with the words for what was meant."""

import ast
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import diagnose, examine, fuzz, mending
from handgrad.compare.eager import Array, Names
from handgrad.compare.edits import _short, edits, together
from handgrad.compare.mending import Search
from handgrad.compare.mutate import _said_of
from handgrad.compare.patience import patience
from handgrad.compare.rewrite import written
from handgrad.compare.substitutions import substitutions

RNG = np.random.default_rng(0)
EPS, SLOPE = 1e-5, 0.3


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def normal(*shape):
    return RNG.standard_normal(shape)


X, SQUARE, W, H0 = normal(3, 5), normal(4, 4), normal(4, 4), normal(4)


def softmax(x):
    return jax.nn.softmax(x)


def scaled(x):
    return x / jnp.sqrt((x * x).sum(-1, keepdims=True) + EPS)


def leaky(x):
    return jnp.where(x > 0, x, SLOPE * x)


def rnn(x, h0, w):
    def step(h, xt):
        h = jnp.tanh(xt + h @ w)
        return h, h

    return jax.lax.scan(step, h0, x)[1]


def two(a, b):
    return jnp.tanh(a) * jnp.exp(b)


def conv(x, k):
    return jax.lax.conv_general_dilated(x, k, (1, 1), [(1, 1), (1, 1)])


# --- the mistakes; each stands in the line that ends with `!` ------------------------------------


def another_axis(x, dy):
    p = jax.nn.softmax(x)
    return p * (dy - (p * dy).sum(0, keepdims=True))  # !


def softmax_over_another_axis(x, dy):
    p = jax.nn.softmax(x, axis=0)  # !
    return p * (dy - (p * dy).sum(-1, keepdims=True))


def axis_lost(x, dy):
    p = jax.nn.softmax(x)
    return p * (dy - (p * dy).sum(keepdims=True))  # !


def factor_inside_a_sum(x, dy):
    p = jax.nn.softmax(x)
    return p * (dy - dy.sum(-1, keepdims=True))  # !


def eps_outside(x, dy):
    norm = jnp.sqrt((x * x).sum(-1, keepdims=True)) + EPS  # !
    y = x / norm
    return (dy - y * (y * dy).sum(-1, keepdims=True)) / norm


def eps_left_out(x, dy):
    norm = jnp.sqrt((x * x).sum(-1, keepdims=True))  # !
    y = x / norm
    return (dy - y * (y * dy).sum(-1, keepdims=True)) / norm


def slope_left_out(x, dy):
    return jnp.where(x > 0, dy, dy)  # !


def wrong_side(x, dy):
    return jnp.where(x < 0, dy, SLOPE * dy)  # !


def states(x, h0, w):
    hs = rnn(x, h0, w)
    return hs, jnp.concatenate([h0[None], hs[:-1]])


def rnn_by_numbers_of_another_step(x, h0, w, dy):
    hs, previous = states(x, h0, w)

    def step(dh, now):
        h, dyt = now
        da = (dh + dyt) * (1 - h**2)
        return da @ w.T, da

    dh0, da = jax.lax.scan(step, 0 * hs[0], (previous, dy), reverse=True)  # !
    return da, dh0, previous.T @ da


def rnn_forwards(x, h0, w, dy):
    hs, previous = states(x, h0, w)

    def step(dh, now):
        h, dyt = now
        da = (dh + dyt) * (1 - h**2)
        return da @ w.T, da

    dh0, da = jax.lax.scan(step, jnp.zeros_like(h0), (hs, dy))  # !
    return da, dh0, previous.T @ da


def exchanged_names(a, b, dy):
    return dy * (1 - jnp.tanh(b) ** 2) * jnp.exp(a), dy * jnp.tanh(a) * jnp.exp(b)  # !


def softmax_in_numpy(x, dy):
    x, dy = np.asarray(x), np.asarray(dy)
    dx = np.zeros_like(x)
    for n in range(x.shape[0]):
        p = np.exp(x[n]) / np.exp(x[n]).sum()
        for i in range(1, x.shape[1]):  # !
            dx[n, i] = p[i] * (dy[n, i] - (p * dy[n]).sum())
    return dx


def affine_in_numpy(x, w, dy):
    x, w, dy = map(np.asarray, (x, w, dy))
    dw = np.zeros_like(w)
    for n in range(len(x)):
        dw = np.outer(x[n], dy[n])  # !
    return dy @ w.T, dw


def kernel_as_it_is(x, k, dy):
    k = jnp.swapaxes(k, 0, 1)
    x, out = jnp.swapaxes(x, 0, 1), jnp.swapaxes(dy, 0, 1)
    return conv(dy, k), jnp.swapaxes(conv(x, out), 0, 1)  # !


def kernel_half_turned(x, k, dy):
    k = jnp.swapaxes(k, 0, 1)[:, :, ::-1]
    dx = jax.lax.conv_general_dilated(dy, k, (1, 1), [(1, 1), (1, 1)])  # !
    x, dy = jnp.swapaxes(x, 0, 1), jnp.swapaxes(dy, 0, 1)
    return dx, jnp.swapaxes(conv(x, dy), 0, 1)


MISTAKES = [
    (kernel_as_it_is, conv, (normal(2, 3, 4, 5), normal(2, 3, 3, 3)), "k[:, :, ::-1, ::-1]"),
    (kernel_half_turned, conv, (normal(2, 3, 4, 5), normal(2, 3, 3, 3)), "k[:, :, :, ::-1]"),
    (another_axis, softmax, (X,), "wrong axis: write `(p * dy).sum(-1, keepdims=True)`"),
    (softmax_over_another_axis, softmax, (X,), "write `jax.nn.softmax(x, axis=-1)`"),
    (axis_lost, softmax, (X,), "wrong axis: write `(p * dy).sum(keepdims=True, axis=-1)`"),
    (factor_inside_a_sum, softmax, (X,), "a factor left out: write `(p * dy).sum(-1"),
    (eps_outside, scaled, (X,), "wrong side of a parenthesis: write `jnp.sqrt((x * x).sum(-1, k"),
    (eps_left_out, scaled, (X,), "1e-05"),
    (slope_left_out, leaky, (X,), "dy * SLOPE"),
    (wrong_side, leaky, (X,), "write `jnp.where(x < 0, SLOPE * dy, dy)`"),
    (rnn_by_numbers_of_another_step, rnn, (SQUARE, H0, W), "(hs, dy), reverse=True)` for"),
    (rnn_forwards, rnn, (SQUARE, H0, W), "the wrong direction in time"),
    (exchanged_names, two, (X, X + 1), "order exchanged"),
    (softmax_in_numpy, softmax, (X,), "write `range(0, x.shape[1])` for `range(1, x.shape[1])`"),
    (affine_in_numpy, jnp.matmul, (X, normal(5, 2)), "overwritten where it is to be added to"),
]


def line_of_the_mistake(function):
    code = function.__code__
    with open(code.co_filename, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return next(n for n, s in enumerate(lines, 1) if n > code.co_firstlineno and s.endswith("# !"))


@pytest.mark.parametrize(("backward", "reference", "args", "words"), MISTAKES)
def test_the_line_and_what_was_meant(backward, reference, args, words):
    report = examine(backward, reference, *args, kind="backward")
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    place = f"test_compare_mending.py:{line_of_the_mistake(backward)}: "
    assert any(m.startswith(place) and words in m for m in mends), str(report)
    assert all(m.endswith(", and it is right") for m in mends)


# --- whose source is edited ----------------------------------------------------------------------


def wrong_slope(y):
    return 1 + y**2  # !


def calls_a_helper(x, dy):
    return dy * wrong_slope(jnp.tanh(x))


def of_another_scale(scale):
    def backward(x, dy):
        return dy + scale * jnp.cos(x)  # !

    return backward


@jax.custom_vjp
def squared(x):
    return x**2


def squared_backward(x, dy):
    return (3 * x * dy,)  # !


squared.defvjp(lambda x: (x**2, x), squared_backward)


@pytest.mark.parametrize(
    ("candidate", "marked", "reference", "kind"),
    [
        (calls_a_helper, wrong_slope, jnp.tanh, "backward"),
        (of_another_scale(0.5), of_another_scale(0.5), lambda x: x, "backward"),
        (functools.partial(of_another_scale(0.5)), of_another_scale(0.5), lambda x: x, "backward"),
        (jax.jit(calls_a_helper), wrong_slope, jnp.tanh, "backward"),
        (squared, squared_backward, jnp.square, "function"),
    ],
)
def test_helpers_closures_and_rules(candidate, marked, reference, kind):
    report = examine(candidate, reference, X, kind=kind)
    place = f"test_compare_mending.py:{line_of_the_mistake(marked)}: "
    assert any(d.text.startswith(place) for d in report.diagnoses), str(report)


def test_a_function_without_source_is_told_what_can_be_seen_without():
    scope = {"jnp": jnp}
    exec("def backward(x, dy):\n    return -2 * x * dy", scope)
    report = examine(scope["backward"], jnp.square, X, kind="backward")
    assert [d.kind for d in report.diagnoses][:1] == ["sign"]


def test_the_functions_themselves_stay_as_they_were():
    before = another_axis.__code__
    examine(another_axis, softmax, X, kind="backward")
    assert another_axis.__code__ is before
    assert another_axis.__globals__["jnp"] is jnp


def test_nothing_that_variants_print_is_seen(capsys):
    def talkative(x, dy):
        print("called")
        return dy * (1 + jnp.tanh(x) ** 2)

    examine(talkative, jnp.tanh, X, kind="backward")
    calls = capsys.readouterr().out.count("called")
    assert calls < 20  # by the check itself; of the variants there are many more


# --- edits ---------------------------------------------------------------------------------------

SOURCE = """
def f(x, mask, dy):
    '''Some - words.'''
    y = jnp.sqrt(x.sum(0) + 1e-5)
    while y > 0:
        y = y - 1
    a, b = x[1:] - x[:-1], mask[::-1]
    return (a @ b).T * dy / 2, -y
"""


def variants(edit_of, source=SOURCE):
    definition = ast.parse(source).body[0]
    before = ast.dump(definition)
    for edit in edit_of(definition):
        words = edit.words()
        with edit.applied():
            yield words, ast.unparse(definition)
        assert ast.dump(definition) == before, edit.words()


def brought_in(tree):
    return (edit for _, edit in substitutions(tree))


@pytest.mark.parametrize("edit_of", [edits, together, brought_in])
def test_every_edit_changes_the_source_and_is_taken_back(edit_of):
    plain = ast.unparse(ast.parse(SOURCE).body[0])
    found = list(variants(edit_of))
    assert len(found) > 5
    for words, source in found:
        assert source != plain, words
        compile(source, "", "exec")


@pytest.mark.parametrize(
    "written_instead",
    [
        "jnp.sqrt(x.sum(-1) + 1e-05)", "jnp.sqrt(x.sum(0)) + 1e-05", "x.mean(0)", "x[1:] + x[:-1]",
        "(mask[::-1], x[1:] - x[:-1])", "mask[:]", "(b @ a).T", "(a.T @ b).T", "a @ b * dy",
        "(a, y)", "dy / 3", "jnp.sqrt(x.sum(0, keepdims=True) + 1e-05)", "x[:-1] - x[1:]",
    ],
)  # fmt: skip
def test_what_may_have_been_meant(written_instead):
    found = [source for _, source in variants(edits)]
    source = SOURCE if written_instead != "(a, y)" else SOURCE.replace("(a @ b).T * dy / 2", "a")
    if source is not SOURCE:
        found = [text for _, text in variants(edits, source)]
    assert any(written_instead in text for text in found)


def test_a_loop_that_may_not_end_is_left_alone():
    assert not any("y + 1" in source for _, source in variants(edits))


def counts_down(x, dy):
    k, power = 4, 1.0
    while k > 1:
        power = power * x
        k = k - 1
    return 4 * dy * power * jnp.sin(x)


def test_a_loop_whose_end_an_edit_takes_away_is_stopped():
    (found,) = written(counts_down)
    compiled = found.compiled()
    assert compiled(2.0, 1.0) == counts_down(2.0, 1.0)
    (loop,) = [n for n in ast.walk(found.tree) if isinstance(n, ast.While)]
    assert len(loop.body) == 2  # as it was written
    loop.test = ast.fix_missing_locations(ast.copy_location(ast.Constant(True), loop.test))
    with patience(0.05), pytest.raises(TimeoutError):
        found.compiled()(2.0, 1.0)
    report = examine(counts_down, lambda x: jnp.sum(x**4), X[0], kind="backward")
    assert not report.ok


def root(a):
    """By Newton, which comes to no end where a < 0."""
    start = jnp.ones_like(a)
    off = functools.partial(lambda a, x: jnp.any(jnp.abs(x * x - a) > 1e-6), a)
    return jax.lax.while_loop(off, lambda x: 0.5 * (x + a / x), start)


def newton():
    function = jax.custom_vjp(root)
    function.defvjp(lambda a: (root(a), a), lambda a, dy: (dy * 0.5 / jnp.sqrt(a),))
    return function


def soon(monkeypatch):
    for module, name in ((mending, "ELSEWHERE"), (diagnose, "SECONDS"), (fuzz, "PATIENCE")):
        monkeypatch.setattr(module, name, 0.05)


def test_a_loop_that_ends_at_the_users_inputs_alone_is_stopped_elsewhere(monkeypatch):
    soon(monkeypatch)
    report = examine(
        lambda a, dy: (dy / root(a),), newton(), np.array([1.0, 2, 3]), kind="backward"
    )
    assert not report.ok
    assert [q.worst.index for q in report.gradients] == [(0,)]


def test_a_search_goes_on_where_a_loop_has_no_end(monkeypatch):
    soon(monkeypatch)
    function = newton()
    args = (lambda a, dy: (dy * 0.5 / jnp.sqrt(a),), function, (np.array([1.0, 2, 3]),))
    assert fuzz.search(*args, kind="backward", trials=25).args is None


def test_an_explanation_that_runs_out_of_time_leaves_what_is_known(monkeypatch):
    def without_end(*_):
        raise TimeoutError

    monkeypatch.setattr(Search, "likely", without_end)
    report = examine(lambda x, dy: (2 * dy * jnp.cos(x),), jnp.sin, X, kind="backward")
    assert [d.kind for d in report.diagnoses] == ["factor"]


def test_slices_of_a_line_are_dropped_together():
    found = dict(variants(together))
    assert any("a, b = (x - x, mask)" in source for source in found.values())


# --- NumPy in the place of JAX -------------------------------------------------------------------


def everything(x, w):
    def step(carry, row):
        carry = jnp.tanh(carry @ w + row)
        return carry, {"y": carry}

    last, out = jax.lax.scan(step, jnp.zeros(w.shape[0]), x, reverse=True)
    rows = jax.vmap(lambda a, b: a * b, (0, None))(x, last)
    total = jax.lax.fori_loop(0, 3, lambda i, a: a + i * rows, rows)
    picked = total.at[0, 1].add(2.0).at[1].multiply(3.0).at[2].set(0.5)
    picked += jax.nn.log_softmax(x) * jax.nn.sigmoid(x) - jax.nn.softmax(x, axis=0)
    picked -= jax.scipy.special.erf(x) + jnp.where(x > 0, x, 0) + jax.nn.softplus(x)
    folded = jnp.einsum("ij,kj->ik", picked, out["y"]) + jnp.linalg.inv(w + 9 * jnp.eye(4))
    return folded, jax.scipy.special.logsumexp(x, axis=1), x.T[::-1].reshape(2, -1)


def test_stand_ins_compute_what_jax_computes():
    (found,) = [w for w in written(everything) if w.function is everything]
    by_numpy = found.compiled(Names())
    with jax.enable_x64(True):
        expected = everything(jnp.asarray(SQUARE), jnp.asarray(W))
        got = by_numpy(SQUARE.view(Array), W.view(Array))
    for a, b in zip(got, expected, strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)  # sums in another order


def test_stand_ins_change_nothing_in_place():
    x = SQUARE.copy().view(Array)
    y = x
    y += 1
    assert (x == SQUARE).all()
    assert (x.at[0].set(7.0)[1:] == SQUARE[1:]).all()
    assert (x == SQUARE).all()


# --- as it is worded -----------------------------------------------------------------------------


def test_the_product_of_an_operand_is_not_taken_for_the_place_of_the_expression():
    assert _said_of("h", "take tanh of `x @ w` in @") == "take tanh of `x @ w` in `h`"
    assert _said_of("x @ w", "negate @") == "negate `x @ w`"


@pytest.mark.parametrize(
    ("unparsed", "written"),
    [
        ("hs[t + -1]", "hs[t - 1]"),
        ("a - -b", "a + b"),
        ("dx[:, --2:]", "dx[:, 2:]"),
        ("range(n - 1 + 1)", "range(n)"),
        ("x - 1 + 1 * y", "x - 1 + 1 * y"),
        ("x[i]--2", "x[i]--2"),
    ],
)
def test_an_edit_is_shown_as_one_writes_it(unparsed, written):
    assert _short(unparsed) == written
