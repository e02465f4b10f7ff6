"""The search: mistakes that show at special inputs only are found, right derivations pass."""

import functools
import itertools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.compare import GradientMismatch, cases, check_backward, cli, examine, inputs
from handgrad.compare.fuzz import _Search, search
from handgrad.compare.reproduce import literal, spelled

X = np.random.default_rng(0).standard_normal((3, 4))


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# --- mistakes that the samples do not show --------------------------------------------------------


def softmax_backward(x, dy):
    y = jax.nn.softmax(x)
    return y * (dy - (dy * y).sum(-1, keepdims=True))


def beyond_five(x, dy):
    return (dy * jnp.cos(x) * jnp.where(x > 5, 2.0, 1.0),)


def all_of_the_ties(x, dy):
    return ((x == x.max(-1, keepdims=True)) * dy[..., None],)


def lone_sample(x, dy):
    n = x.shape[0]
    return (jnp.broadcast_to(dy / n, x.shape) * (2 if n == 1 else 1),)


def two_classes(x, dy):
    return (softmax_backward(x, dy) * (2 if x.shape[-1] == 2 else 1),)


def overflowing(x, dy):
    e = jnp.exp(x)
    return (dy * e / (1 + e) ** 2,)  # nan from 355 on


def equal_rows(x, dy):
    same = (x[0] == x[-1]).all() & (x.shape[0] > 1)
    return ((dy + dy.T) @ x * jnp.where(same, 0.5, 1.0),)


def zero_weights(x, w, dy):
    return dy @ w.T, x.T @ dy * jnp.where((w == 0).all(), 0.0, 1.0)


def a_label_of_zero(x, labels, dy):
    y = jax.nn.softmax(x) - jax.nn.one_hot(labels, x.shape[-1])
    return dy[:, None] * y * jnp.where((labels == 0).all(), 2.0, 1.0), None


def cross_entropy(x, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1)[:, 0]


PLANTED = {
    beyond_five: (jnp.sin, (X,), 1),
    all_of_the_ties: (lambda x: x.max(-1), (X,), 2),
    lone_sample: (lambda x: x.mean(0), (X,), 1),
    two_classes: (jax.nn.softmax, (X,), 2),
    overflowing: (jax.nn.sigmoid, (X,), 1),
    equal_rows: (lambda x: x @ x.T, (X,), 3),
    zero_weights: (lambda x, w: x @ w, (X, X.T[:, :2]), 2),
    a_label_of_zero: (cross_entropy, (X, np.array([1, 0, 2])), 3),
}


@pytest.mark.parametrize("wrong", PLANTED, ids=lambda f: f.__name__)
def test_a_mistake_that_shows_at_special_inputs_is_found_and_made_small(wrong):
    function, args, largest = PLANTED[wrong]
    assert examine(wrong, function, *args, kind="backward").ok
    found = search(wrong, function, args, kind="backward")
    assert found.args is not None
    assert sum(a.size for a in jax.tree.leaves(found.args) if a.dtype.kind == "f") <= largest
    assert not examine(wrong, function, *found.args, kind="backward").ok


def test_values_are_made_simple():
    (x,) = search(beyond_five, jnp.sin, (X,), kind="backward").args
    assert 5 < x.item() < 6
    assert len(repr(x.item())) <= 3
    (x,) = search(all_of_the_ties, lambda x: x.max(-1), (X,), kind="backward").args
    assert not x.any()


def test_the_same_seed_finds_the_same():
    first, again = (search(beyond_five, jnp.sin, (X,), kind="backward", seed=3) for _ in range(2))
    assert first.trials == again.trials
    np.testing.assert_array_equal(first.args[0], again.args[0])


def test_a_gradient_and_a_function_are_searched_too():
    def gradient(w):
        return 2 * w * jnp.where(jnp.abs(w) > 100, 0.0, 1.0)

    found = search(gradient, lambda w: jnp.sum(w**2), (X,), kind="gradient")
    assert abs(found.args[0]).max() > 100

    @jax.custom_vjp
    def f(x):
        return jnp.where(x == 0, 1.0, x)

    f.defvjp(lambda x: (f(x), None), lambda _, dy: (dy,))
    assert not search(f, lambda x: x, (X,)).args[0].all()


# --- right derivations ----------------------------------------------------------------------------

RIGHT = (
    "relu", "selu", "gelu", "softmax", "log_softmax", "affine", "squared_error", "elastic_net",
    "binary_cross_entropy_with_logits", "softmax_cross_entropy_with_integer_labels", "batch_norm",
    "soft_threshold", "categorical_cross_entropy", "embedding", "conv", "dropout",
)  # fmt: skip
ROWS = {case.function: case for case in reversed(cases.load())}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_derivation_fails_nowhere(name):
    case = ROWS[name]
    sides = [functools.partial(getattr(room, name), **case.config) for room in (manual, reference)]
    found = search(*sides, case.draw(), trials=100)
    assert found.args is None, found
    assert found.trials == 100
    assert found.shapes > 1


def test_digits_that_autodiff_loses_raise_no_alarm():
    x, p = np.array([5e-31, 1.0]), np.array([0.1, 0.3])  # autodiff: log σ(x) - log σ(-x), zero
    name = "binary_cross_entropy_with_logits"
    report = examine(getattr(manual, name), getattr(reference, name), x, p, digits=40)
    assert report.ok
    assert not any(a.inaccurate for a in report.exactness.agreements)


def test_inputs_at_which_the_reference_is_not_defined_are_left_out():
    found = search(lambda x, dy: (dy / x,), jnp.log, (np.array([0.5, 3.0]),), kind="backward")
    assert found.args is None


def test_sizes_that_do_not_go_together_are_left_out():
    def affine(x, w):
        return x @ w.reshape(4, 2)

    def backward(x, w, dy):
        return dy @ w.reshape(4, 2).T, (x.T @ dy).reshape(w.shape)

    found = search(backward, affine, (X, np.arange(8.0) - 3), kind="backward", trials=150)
    assert found.args is None


def test_a_budget_ends_it():
    found = search(manual.tanh, reference.tanh, (X,), trials=10**6, seconds=1e-9)
    assert found.trials == 0


def solve_backward(a, b, dy, sign=-1, turned=lambda a: a.T):
    z = jnp.linalg.solve(turned(a), dy)
    return sign * jnp.outer(z, jnp.linalg.solve(a, b)), z


A, B = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([1.0, 2.0])


@pytest.mark.parametrize("seed", [0, 3])
def test_a_singular_matrix_is_no_counterexample(seed):
    found = search(solve_backward, jnp.linalg.solve, (A, B), kind="backward", seed=seed, trials=320)
    assert found.args is None


def test_a_small_element_beside_large_ones_is_no_counterexample():
    found = search(
        lambda a, dy: dy * jnp.linalg.inv(a).T, lambda a: jnp.linalg.slogdet(a)[1], (A,),
        kind="backward", trials=125,
    )  # fmt: skip
    assert found.args is None


def test_a_wrong_backward_of_solve_is_found():
    for wrong in ({"sign": 1}, {"turned": lambda a: a}):
        report = examine(
            functools.partial(solve_backward, **wrong), jnp.linalg.solve, A, B, kind="backward"
        )
        assert not report.ok

    def half_turned(a):  # right but for symmetric matrices
        return jnp.where((a == a.T).all(), 2 * a, a.T)

    wrong = functools.partial(solve_backward, turned=half_turned)
    assert search(wrong, jnp.linalg.solve, (A, B), kind="backward").args is not None


def test_numbers_that_cancel_are_no_counterexample():
    def other_order(x):
        return (x[0] + x[2]) + x[1]

    at = np.array([2.0, 1e-31, -2.0])
    assert not _Search(jnp.sum, other_order, (at,), "function", None, 0, 9)._wrong([at])
    wrong = _Search(lambda x: jnp.sum(x) + 1e-9, other_order, (at,), "function", None, 0, 9)
    assert wrong._wrong([at])


def product_backward(x, dy):
    return dy * x.prod() / x


def test_what_was_kept_positive_is_said():
    options = dict(kind="backward", search=True)
    report = examine(product_backward, jnp.prod, np.array([1.0, 2.0, 3.0]), **options)
    assert report.ok
    said = "a was kept positive, as your inputs are (it fails where an element is 0)"
    assert said in str(report.search)
    assert not examine(product_backward, jnp.prod, np.array([-1.0, 2.0, 3.0]), **options).ok
    report = examine(lambda x, dy: dy / x, jnp.log, np.array([1.0, 2.0, 3.0]), **options)
    assert report.ok
    assert "kept" not in str(report.search)  # nothing is defined elsewhere


def relu_backward(x, dy):
    return dy * (x > 0)


def test_a_mend_holds_at_the_inputs_that_were_given_too():
    at = np.array([-1.0, 2.0, 3.0])
    report = examine(relu_backward, jax.nn.relu6, at, kind="backward", search=True)
    assert not report.ok
    assert not any(d.kind == "mend" for d in report.diagnoses), report.diagnoses
    report = examine(beyond_five, jnp.sin, X, kind="backward", search=True)
    assert any(d.kind == "mend" for d in report.diagnoses), report.diagnoses


# --- inputs ---------------------------------------------------------------------------------------

KINDS = {
    "free": X,
    "positive": np.exp(X),
    "negative": -np.exp(X),
    "unit interval": np.array([[0.2, 0.9], [0.0, 0.4]]),
    "bits": np.array([0.0, 1.0, 1.0]),
    "signs": np.array([-1.0, 1.0, 1.0]),
    "probabilities": np.array([[0.2, 0.8], [0.5, 0.5]]),
    "one-hot": np.eye(3),
    "unit vectors": np.array([[0.6, 0.8], [-0.8, 0.6]]),
    "symmetric": np.array([[1.0, 2.0], [2.0, 1.0]]),
    "positive definite": np.array([[2.0, 1.0], [1.0, 2.0]]),
    "integers": np.array([0, 2, 1]),
    "fixed": np.zeros((0, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_entries_satisfy_is_read_off_and_kept(kind):
    sample = KINDS[kind]
    domain, rng = inputs.Domain.of(sample), np.random.default_rng(0)
    assert domain.kind == kind
    for _ in range(30):
        (x,) = inputs.draw([sample], {}, rng)
        assert x.dtype == sample.dtype
        assert x.shape == sample.shape
        assert np.isfinite(x).all()
        match kind:
            case "probabilities":
                assert (x >= 0).all()
                np.testing.assert_allclose(x.sum(-1), 1)
            case "one-hot":
                assert ((x == 1).sum(-1) == 1).all()
            case "unit vectors":
                np.testing.assert_allclose((x * x).sum(-1), 1)
            case "symmetric" | "positive definite":
                np.testing.assert_array_equal(x, x.T)
                assert kind == "symmetric" or np.linalg.eigvalsh(x).min() > 0
            case "integers":
                assert set(x.tolist()) <= {0, 1, 2}
            case _:
                assert all(domain.allows(v) for v in x.flat)
        for (simple,) in inputs.simpler([x], [domain]):
            assert simple.shape == x.shape
            assert all(domain.allows(v) for v in simple.flat)


def test_equal_sizes_stay_equal_and_multiples_follow():
    rng = np.random.default_rng(0)
    leaves = [np.ones((2, 5)), np.ones((5, 20)), np.ones(6), np.ones((1, 7))]
    seen = set()
    for _, sizes in zip(range(200), inputs.resizings(leaves, rng), strict=False):
        if any(isinstance(n, tuple) for n in sizes):  # of one axis
            continue
        a, b, c, d = inputs.draw(leaves, sizes, rng)
        assert a.shape[1] == b.shape[0]
        assert d.shape[0] == 1
        seen.add((b.shape == (b.shape[0], 4 * b.shape[0]), c.shape[0] == b.shape[0] + 1))
    assert len(seen) == 4  # together, and each alone


def test_equal_sizes_are_told_apart_and_an_axis_of_one_grows():
    rng = np.random.default_rng(0)
    leaves = [np.ones((3, 3)), np.ones((1, 4)), np.ones(3)]

    def shapes(leaves):
        some = itertools.islice(inputs.resizings(leaves, rng), 20)
        return [[np.shape(x) for x in inputs.draw(leaves, sizes, rng)] for sizes in some]

    floats = shapes(leaves)
    assert [(5, 3), (1, 4), (5,)] in floats  # the first axes
    assert [(3, 3), (3, 4), (3,)] in floats
    assert [(3, 5), (1, 4), (3,)] in floats
    labelled = shapes([*leaves[:2], np.zeros(3, int)])
    assert [(5, 3), (1, 4), (5,)] in labelled
    assert all(rows[0] == labels[0] for rows, _, labels in labelled)


def centre_backward(x, dy):
    return (dy - dy.sum(0) / x.shape[1],)  # the size of the other axis


def mean_square_gradient(w, x):
    return (2 * x.T @ (x @ w),)  # the mean's 1/N is left out


def test_a_search_finds_what_a_square_and_a_batch_of_one_hide():
    square, one = np.arange(9.0).reshape(3, 3), np.ones((1, 3))
    report = examine(centre_backward, lambda x: x - x.mean(0), square, kind="backward", search=True)
    assert not report.ok
    report = examine(
        mean_square_gradient, lambda w, x: ((x @ w) ** 2).mean(), np.ones(3), one,
        kind="gradient", argnums=[0], search=True,
    )  # fmt: skip
    assert not report.ok


def test_labels_stay_below_the_number_of_classes():
    rng = np.random.default_rng(0)
    for _ in range(20):
        _, labels = inputs.draw([np.ones((7, 5)), np.array([4, 0, 1])], {5: 2, 7: 9}, rng)
        assert labels.max() < 2


def test_a_part_of_every_block():
    x = np.arange(6.0)
    (y,) = inputs.shrunk([x], {3: 1, 6: 2}, 1)
    assert y.tolist() == [1, 4]


# --- as Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        X, X.astype(np.float32), np.array(0.1), np.zeros((0, 3)), np.array([1, 2], np.int32),
        np.array([True, False]), jnp.array([1.5, -2.0], jnp.bfloat16),
        jnp.array([0.1], jnp.float32), [X, (np.ones(2), None)], {"w": np.ones(1)}, (np.ones(1),),
        "tanh", 0.1, np.arange(2000.0) / 7, jax.random.key(3),
    ],
)  # fmt: skip
def test_a_value_is_written_as_python_has_it(value):
    spelled_out = literal(value)
    room = {}
    exec("\n".join(spelled_out.needs), room)
    again = eval(spelled_out.text, room)
    assert jax.tree.structure(again) == jax.tree.structure(value)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(value), strict=True):
        if isinstance(b, jax.Array | np.ndarray):
            assert a.dtype == b.dtype
            if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def test_a_function_is_written_as_it_is_imported():
    assert spelled(manual.relu).text == "manual.relu"
    assert spelled(reference.relu).text == "reference.relu"
    assert spelled(jax.nn.softmax).text == "jax.nn.softmax"
    part = spelled(functools.partial(manual.elu, alpha=2.0))
    assert part.text == "functools.partial(manual.elu, alpha=2.0)"
    assert set(part.needs) == {"import functools", "from handgrad import manual"}
    assert spelled(beyond_five).text.endswith("beyond_five")
    unknown = spelled(lambda x: x)
    assert unknown.text == "your_function"
    assert unknown.needs == ("# your_function: the function that you gave to the check",)


def test_check_searches_and_prints_what_reproduces_the_failure():
    with pytest.raises(GradientMismatch, match="found by a search, the last of ") as caught:
        check_backward(beyond_five, jnp.sin, X, search=True)
    code = caught.value.report.search.code
    assert code in "\n".join(line[4:] for line in str(caught.value).splitlines())
    with pytest.raises(GradientMismatch, match="the gradient is wrong for x"):
        exec(code, {"beyond_five": beyond_five, __name__: sys.modules[__name__]})
    assert caught.value.report.to_dict()["search"]["code"] == code


def test_check_says_that_it_searched():
    report = examine(manual.tanh, reference.tanh, X, search=True)
    assert report.ok
    assert "  searched 500 inputs of " in str(report)
    assert str(report.search).endswith(" shapes: it fails at none")
    assert examine(manual.tanh, reference.tanh, X).search is None


def test_what_is_wrong_already_is_not_searched():
    report = examine(lambda x, dy: (dy,), jnp.sin, X, kind="backward", search=True)
    assert not report.ok
    assert report.search is None


# --- the command ----------------------------------------------------------------------------------

FILE = """
    import jax.numpy as jnp
    from handgrad.compare import backward_of
    from handgrad.compare.cases import normal

    @backward_of(lambda x: x.max(-1), normal(3, 4))
    def max_backward(x, dy):
        return ((x == x.max(-1, keepdims=True)) * dy[..., None],)

    @backward_of(jnp.sin, normal(2))
    def sin_backward(x, dy):
        return (dy * jnp.cos(x),)
"""


PICKY = """
    import jax.numpy as jnp, numpy as np
    from handgrad.compare import backward_of

    @backward_of(jnp.sin, np.ones(1))
    def at_one(x, dy):
        if abs(float(np.asarray(x).item()) - 1) > 1e-2:
            raise ValueError
        return np.asarray(dy) * np.cos(np.asarray(x))
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(FILE), "utf-8")
    return str(path)


def test_the_command_finds_a_mistake_in_a_file_and_prints_a_script(mine, capsys):
    assert cli.main(["fuzz", f"{mine}::max_backward", "--trials", "200"]) == 1
    printed = capsys.readouterr().out
    assert f"✗ {mine}::max_backward: the gradient is wrong for x" in printed
    lines = printed.split("made as small as it went:\n")[1].split("\n  seed")[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "GradientMismatch" in done.stderr
    assert "the gradient is wrong for x" in done.stderr


def test_the_command_finds_nothing_in_what_is_right(mine, capsys):
    assert cli.main(["fuzz", f"{mine}::sin_backward", "--trials", "50"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"✓ {mine}::sin_backward: searched 50 inputs of ")
    assert cli.main(["fuzz", "activations.softmax[ties]", "--trials", "25", "--seed", "4"]) == 0
    assert "✓ activations.softmax[ties]: searched 25 inputs of 1 shape:" in capsys.readouterr().out


def test_nothing_searched_is_not_nothing_found(mine, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fuzz", mine, "--trials", "0"])
    assert "argument --trials: '0' is not a whole number from 1 on" in capsys.readouterr().err
    assert cli.main(["fuzz", f"{mine}::sin_backward", "--budget", "1e-9"]) == 1
    assert capsys.readouterr().out == (
        f"! {mine}::sin_backward: not searched: no time was left; give a longer --budget\n"
    )
    picky = tmp_path / "picky.py"
    picky.write_text(textwrap.dedent(PICKY), "utf-8")
    assert cli.main(["fuzz", str(picky), "--trials", "50"]) == 1
    assert capsys.readouterr().out == (
        f"! {picky}::at_one: searched 50 inputs of 0 shapes: it fails at none; none of them could "
        "be used\n"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("softmx", "there is no function 'softmx'; the nearest are: softmax"),
        ("nowhere.py", "there is no file nowhere.py"),
        ("MINE::sine_backward", "declares no function 'sine_backward'"),
    ],
)
def test_a_name_that_is_none(name, text, mine, capsys):
    assert cli.main(["fuzz", name.replace("MINE", mine)]) == 2
    assert text in capsys.readouterr().err


def test_a_file_that_cannot_be_used(tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0", "utf-8")
    assert cli.main(["fuzz", str(path)]) == 2
    assert "it raised ZeroDivisionError: division by zero" in capsys.readouterr().err


# --- signs that a small sample owes to chance -----------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_signs_of_a_specification_are_those_of_many_draws(seed, tmp_path, capsys):
    file = tmp_path / "one_number.py"
    file.write_text(
        "import jax\n"
        "from handgrad.compare import backward_of\n"
        "from handgrad.compare.cases import normal\n"
        "@backward_of(jax.nn.relu, normal(1))\n"
        "def half(x, dy):\n"
        "    return (jax.numpy.where(x > 0, dy, 0.5 * dy),)\n"
    )
    assert cli.main(["fuzz", str(file), "--seed", str(seed)]) == 1
    assert "the gradient is wrong for x" in capsys.readouterr().out


def test_signs_that_all_draws_have_are_kept():
    one, others = np.array([0.5]), [np.array([x]) for x in (0.3, 2.0)]
    assert inputs.Domain.of_draws(one, *others).kind == "unit interval"
    assert inputs.Domain.of_draws(one, *others, np.array([-1.0])).kind == "free"
    assert inputs.Domain.of_draws(np.array([1, 2]), np.array([-1, 5])).kind == "integers"
