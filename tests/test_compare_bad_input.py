"""Bad input: one sentence that names the argument and says what to do; and no state left behind."""

import os
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import GradientMismatch, check, check_backward, examine

X = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4)
W = np.linspace(0.3, 1, 8, dtype=np.float32).reshape(4, 2)
B = np.array([0.5, -0.25], np.float32)


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def affine(x, w, b):
    return x @ w + b


def affine_backward(x, w, b, dy):
    return dy @ w.T, x.T @ dy, dy.sum(0)


def problem(candidate, reference, *args, kind="backward", **options):
    """The sentence; the report holds nothing else, and the text holds it."""
    report = examine(candidate, reference, *args, kind=kind, **options)
    assert not report.ok
    assert report.problem is not None, str(report)
    assert report.problem in str(report)
    assert "not compared" in str(report)
    assert "PyTreeDef" not in report.problem
    return report.problem


def says(text, *words):
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"


# --- the cotangents -------------------------------------------------------------------------------


def returning(change):
    return lambda x, w, b, dy: change(*affine_backward(x, w, b, dy))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda dx, dw, db: (dx, dw), ["2 cotangents", "tuple of 3", "x, w, b"]),
        (lambda dx, dw, db: (dx, dw, db, db), ["4 cotangents", "tuple of 3", "x, w, b"]),
        (lambda dx, dw, db: (dx,), ["1 cotangent;", "tuple of 3", "x, w, b"]),
        (lambda dx, dw, db: (), ["0 cotangents", "tuple of 3"]),
        (lambda dx, dw, db: dx, ["float64[3, 4]", "tuple of 3", "x, w, b"]),
        (lambda dx, dw, db: None, ["None", "tuple of 3"]),
        (lambda dx, dw, db: "dx", ["'dx'", "tuple of 3"]),
        (lambda dx, dw, db: {"x": dx}, ["dict", "tuple of 3"]),
        (lambda dx, dw, db: (dw, dx, db), ["'x'", "[4, 2]", "[3, 4]", "order"]),
        (lambda dx, dw, db: (dx, None, db), ["'w'", "None", "[4, 2]", "argnums"]),
        (lambda dx, dw, db: (None, None, None), ["'x'", "None", "argnums"]),
        (lambda dx, dw, db: (dx, dw.T, db), ["'w'", "[2, 4]", "[4, 2]", "transpose"]),
        (lambda dx, dw, db: (dx, dw, dx @ dw), ["'b'", "[3, 2]", "[2]"]),
        (lambda dx, dw, db: (dx, dw, db[None]), ["'b'", "[1, 2]", "[2]"]),
        (lambda dx, dw, db: (dx, dw, db.sum()), ["'b'", "[]", "[2]", "an axis lost"]),
        (lambda dx, dw, db: (dx, dw.ravel(), db), ["'w'", "[8]", "[4, 2]", "reshape"]),
        (lambda dx, dw, db: ((dx, dx), dw, db), ["'x'", "tuple of 2"]),
        (lambda dx, dw, db: (dx, dw, "b"), ["'b'", "'b'", "array"]),
        (lambda dx, dw, db: (dx, [dw], db), ["'w'", "list of 1"]),
        (lambda dx, dw, db: (dx, dw > 0, db), ["'w'", "bool[4, 2]", "floating-point"]),
        (lambda dx, dw, db: (dx, dw, len), ["'b'", "array"]),
    ],
)
def test_cotangents(change, words):
    says(problem(returning(change), affine, X, W, B), *words)


def test_a_sum_over_the_broadcast_axis_is_missing():
    text = problem(lambda x, w, b, dy: (dy @ w.T, x.T @ dy, dy), affine, X, W, B)
    says(text, "'b'", "[3, 2]", "[2]", "sum it over axis 0")


def test_cotangents_of_numpy_backwards():
    """A function that JAX cannot trace gets the same sentences."""

    def backward(x, w, b, dy):
        return np.asarray(dy) @ np.asarray(w).T, np.asarray(x).T @ np.asarray(dy)

    says(problem(backward, affine, X, W, B), "2 cotangents", "tuple of 3", "x, w, b")

    def transposed(x, w, b, dy):
        d = np.asarray(dy)
        return d @ np.asarray(w).T, (np.asarray(x).T @ d).T, d.sum(0)

    says(problem(transposed, affine, X, W, B), "'w'", "[2, 4]", "[4, 2]", "transpose")

    def objects(x, w, b, dy):
        return [[float(v) for v in row] for row in x], None, None

    says(problem(objects, affine, X, W, B), "'x'")


def test_a_dtype_of_its_own():
    text = problem(lambda x, dy: (2 * x * dy).astype(jnp.float32), jnp.square, X.astype(np.float16))
    says(text, "'x'", "float32", "float16", "astype")


def test_a_leaf_of_a_tree():
    params = {"w": W, "b": [B]}

    def reference(params, x):
        return x @ params["w"] + params["b"][0]

    def backward(params, x, dy):
        return {"w": x.T @ dy, "b": [dy.sum(0)]}, dy @ params["w"].T

    assert examine(backward, reference, params, X, kind="backward")

    def changed(leaf):
        return lambda p, x, dy: ({**backward(p, x, dy)[0], **leaf}, backward(p, x, dy)[1])

    says(problem(changed({"w": None}), reference, params, X), "params['w']", "None", "[4, 2]")
    says(problem(changed({"w": W.T}), reference, params, X), "params['w']", "[2, 4]", "[4, 2]")
    says(problem(changed({"b": [None]}), reference, params, X), "params['b'][0]", "None")
    says(problem(changed({"b": B}), reference, params, X), "'params'")
    says(problem(changed({"c": B}), reference, params, X), "'params'")


def test_a_gradient_of_a_loss():
    def loss(x, w):
        return jnp.sum((x @ w) ** 2)

    says(
        problem(lambda x, w: (2 * x @ w @ w.T,) * 3, loss, X, W, kind="gradient"),
        "3",
        "tuple of 2",
        "x, w",
    )
    says(problem(lambda x, w: (None, None), loss, X, W, kind="gradient"), "'x'", "None")


# --- outputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (lambda x: (x, x), ["structure", "tuple of 2", "float32[3, 4]"]),
        (lambda x: x[0], ["[4]", "[3, 4]"]),
        (lambda x: jnp.argsort(x), ["int", "float32"]),
        (lambda x: None, ["None"]),
        (lambda x: (x * x).astype(jnp.float16), ["float16", "float32"]),
    ],
)
def test_outputs(candidate, words):
    says(problem(candidate, jnp.square, X, kind="function"), "<lambda>", *words)


def test_a_loss_that_is_no_scalar():
    text = problem(lambda x: 2 * x, jnp.square, X, kind="gradient")
    says(text, "loss", "square", "scalar", "float32[3, 4]", "check_backward")


def test_a_reference_without_floats():
    says(problem(lambda x, dy: dy, jnp.argsort, X), "argsort", "floating-point", "int32[3, 4]")
    says(problem(lambda x, dy: dy, lambda x: None, X), "floating-point", "nothing")
    text = problem(lambda x, dy: dy, lambda x: "text", X)
    says(text, "reference", "str")
    assert "problem.py" not in text


# --- inputs ---------------------------------------------------------------------------------------


def test_no_arguments():
    says(problem(lambda dy: (), lambda: jnp.ones(3)), "no argument", "none at all", "np.ones")


@pytest.mark.parametrize(
    "value", [3, np.arange(3), jnp.arange(3), True, "text", None, np.array(["a"]), [1, 2]]
)
def test_no_floats(value):
    says(problem(lambda x, dy: dy, lambda x: jnp.ones(3), value), "no argument", "floating-point")


def test_integers_with_a_cotangent_are_passed_over():
    """Zeros for an integer argument do no harm."""

    def backward(x, i, dy):
        return jnp.zeros_like(x).at[i].add(dy), jnp.zeros(2)

    assert examine(backward, lambda x, i: x[i], X, np.array([0, 2]), kind="backward")


def test_nan_in_an_input():
    x = X.copy()
    x[1, 2] = np.nan
    says(problem(affine_backward, affine, x, W, B), "'x'", "nan", "[1, 2]")
    says(problem(affine_backward, affine, X, W, np.array([0.0, np.nan])), "'b'", "nan", "[1]")


def test_inf_in_an_input():
    x = X.copy()
    x[1, 2] = np.inf
    says(problem(affine_backward, affine, x, W, B), "'x'", "inf", "affine")
    mask = np.array([0.0, -np.inf, 0, 0], np.float32)  # where inf is meant, nothing is said

    def backward(x, mask, dy):
        p = jax.nn.softmax(x + mask)
        return p * (dy - (p * dy).sum(-1, keepdims=True)), None

    report = examine(
        backward, lambda x, m: jax.nn.softmax(x + m), X, mask, kind="backward", argnums=(0,)
    )
    assert report.ok, str(report)


def test_a_function_not_defined_at_the_inputs():
    text = problem(lambda x, dy: dy / x, jnp.log, np.array([1.0, -2.0]))
    says(text, "log", "nan", "[1]", "give inputs at which it is defined")
    text = problem(lambda x, dy: -dy / x**2, lambda x: 1 / x, np.array([1.0, 0.0]))
    says(text, "inf", "[1]")


def test_nan_on_one_side():
    x = np.array([0.25, 0.0, 4.0])
    report = examine(
        lambda x, dy: dy * x / x, lambda x: 1.0 * x, x, kind="backward"
    )  # 0 / 0 by hand
    assert not report.ok
    assert "has nan in 1 of 3 elements, where the true one is finite" in str(report)
    assert "worst at [1]" in str(report)


def test_infinite_derivatives_on_both_sides_agree():
    report = examine(
        lambda x, dy: dy / (2 * jnp.sqrt(x)), jnp.sqrt, np.array([4.0, 0.0]), kind="backward"
    )
    assert report.ok, str(report)


@pytest.mark.parametrize("value", [0.0, 5e5, -17.0])
def test_inf_of_autodiff_where_the_hand_is_finite(value):
    """The slope of the root at 0 is no number, and numbers do not side with one."""
    report = examine(
        lambda x, dy: dy * jnp.where(x == 0, value, 1 / (2 * jnp.sqrt(x))), jnp.sqrt,
        np.array([4.0, 0.0]), kind="backward",
    )  # fmt: skip
    assert not report.ok
    assert "worst at [1]" in str(report)


def test_the_wrong_thing_for_a_function():
    for wrong in (None, 3, X, "f"):
        with pytest.raises(TypeError, match="the candidate must be a function"):
            check(wrong, jnp.square, X)
        with pytest.raises(TypeError, match="the reference must be a function"):
            check_backward(affine_backward, wrong, X)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="kind is 'forward'; it must be 'function', 'backward' or"):
        examine(jnp.square, jnp.square, X, kind="forward")


@pytest.mark.parametrize("argnums", [(3,), (-1,), (0, 7)])
def test_argnums_out_of_range(argnums):
    with pytest.raises(
        ValueError, match=r"argnums names argument -?\d; there are 3, numbered from 0"
    ):
        examine(affine_backward, affine, X, W, B, kind="backward", argnums=argnums)


def test_argnums_are_no_names():
    with pytest.raises(TypeError, match=r"argnums names the argument 'x'; it takes numbers"):
        examine(affine_backward, affine, X, W, B, kind="backward", argnums=["x"])


def test_argnums_as_one_number():
    """As in jax.grad."""
    assert examine(affine_backward, affine, X, W, B, kind="backward", argnums=1).ok
    assert examine(lambda x, w, b, dy: x.T @ dy, affine, X, W, B, kind="backward", argnums=1).ok


def test_argnums_of_integers():
    text = problem(lambda x, i, dy: (dy, None), lambda x, i: x + i, X, np.arange(4), argnums=(1,))
    says(text, "'i'", "int")


def test_arguments_given_by_name_are_refused():
    with pytest.raises(TypeError, match="x"):
        check_backward(affine_backward, affine, x=X)


# --- functions that raise, or are not functions of their arguments --------------------------------


def raising(*args):
    raise ZeroDivisionError("the user's own words")


@pytest.mark.parametrize("side", ["candidate", "reference"])
@pytest.mark.parametrize("kind", ["backward", "function"])
def test_the_users_own_exception_comes_out(side, kind):
    functions = (raising, jnp.square) if side == "candidate" else (jnp.square, raising)
    run = check_backward if kind == "backward" else check
    with pytest.raises(ZeroDivisionError, match="the user's own words") as caught:
        run(*functions, X)
    assert any(name in "".join(caught.value.__notes__) for name in ("raising", "handgrad"))
    report = examine(*functions, X, kind=kind)
    says(report.problem, "raised", "ZeroDivisionError", "the user's own words")
    if side == "reference":
        says(report.problem, "reference")
    assert "test_compare_bad_input.py" in report.traceback
    assert "in raising" in report.traceback
    for inner in ("compare/problem", "compare/interpret", "site-packages/jax"):
        assert inner not in report.traceback
    assert report.traceback.strip().splitlines()[-1] in str(report)


def test_an_exception_in_a_numpy_backward():
    def backward(x, dy):
        x = np.asarray(x)
        raise KeyError("a user's key")

    report = examine(backward, jnp.square, X, kind="backward")
    says(report.problem, "backward raised", "KeyError", "a user's key")
    assert "raise KeyError" in report.traceback
    with pytest.raises(KeyError):
        check_backward(backward, jnp.square, X)


def test_an_exception_in_the_users_own_dtype_alone():
    """Float64 goes through; what the user would meet comes out, from the user's own line."""

    def backward(x, dy):
        if x.dtype == jnp.float32:
            raise RuntimeError("of the user, in float32")
        return 2 * x * dy

    report = examine(backward, jnp.square, X, kind="backward")
    says(report.problem, "backward raised under jit", "RuntimeError", "of the user, in float32")
    assert "raise RuntimeError" in report.traceback
    assert "concurrent" not in report.traceback
    with pytest.raises(RuntimeError, match="of the user, in float32"):
        check_backward(backward, jnp.square, X)


def test_a_shape_error_in_the_users_code():
    report = examine(lambda x, dy: x @ dy, jnp.square, X, kind="backward")
    assert "Error" in report.problem
    assert "test_compare_bad_input.py" in report.traceback


def test_a_missing_argument():
    report = examine(lambda x, w, b: x, affine, X, W, B, kind="backward")
    says(report.problem, "raised", "TypeError", "positional argument")
    says(report.problem, "a backward is called as f(x, w, b, dy)")
    text = problem(lambda x: x, lambda x, w: jnp.sum(x @ w), X, W, kind="gradient")
    says(text, "a gradient is called as f(x, w)")
    with pytest.raises(TypeError, match=r"called as f\(x, w, b, dy\)"):
        check_backward(lambda x, w, b: x, affine, X, W, B)


def test_the_function_given_before_the_backward():
    def backward(x, dy):
        return dy * jnp.cos(x)

    with pytest.raises(TypeError, match="'dy'; the derivation comes first and the function second"):
        check_backward(jnp.sin, backward, X)
    assert "comes first" not in problem(backward, lambda x, w: x * w, X)


def test_too_many_cotangents_for_one_argument():
    text = problem(lambda x, dy: (dy, dy), lambda x: jnp.sin(x), X)
    says(text, "returned 2 cotangents for the 1 argument, 'x'; return one cotangent for each")
    text = problem(lambda x, w, dy: (dy, dy, dy), lambda x, w: x * w, X, X, argnums=0)
    says(text, "returned 3 cotangents for the 1 argument that argnums names, 'x'")


def test_what_is_called_back_returns_another_dtype_in_float64():
    def doubled(x):
        two = jax.ShapeDtypeStruct(x.shape, np.float32)
        return x * jax.pure_callback(lambda a: 0 * np.asarray(a) + 2, two, jax.lax.stop_gradient(x))

    text = problem(lambda x, dy: 2 * dy, doubled, X)
    says(text, "what JAX calls back returned another dtype than was declared", "Expected: float32")


def test_the_cotangent_taken_first():
    def first(dy, x, w):
        return dy @ w.T, x.T @ dy

    text = problem(first, lambda x, w: x @ w, X, W)
    says(text, "ValueError: matmul", "its first parameter is dy", "called as f(x, w, dy): dy last")

    assert "first parameter" not in problem(lambda dy, g: dy @ g, lambda dy: dy**2, X)  # its name
    assert "first parameter" not in problem(lambda x, dy: x @ dy, jnp.square, X)


@pytest.mark.parametrize(
    "backward",
    [
        lambda x, dy: jnp.cos(x) * dy,
        lambda x, dy: np.asarray(dy)[0],
        lambda x, dy: 3 * dy,
        lambda x, dy: dy.sum(),
    ],
)
def test_dy_of_an_output_that_is_no_array(backward):
    text = problem(backward, lambda x: (jnp.sin(x), x.sum()), X)
    says(text, "dy is a tuple of 2 (float32[3, 4], float32[]), as the reference's output is")


def test_a_numpy_backward_of_two_outputs_is_no_beginners_slip():
    def backward(x, dy):
        return (np.multiply(np.asarray(dy[0]), np.cos(np.asarray(x))) + 2 * np.asarray(dy[1]),)

    report = examine(backward, lambda x: (jnp.sin(x), 2 * x), X, kind="backward")
    assert report.ok, str(report)
    assert "cannot trace" in str(report)
    assert "dy is" not in str(report)


def test_an_exception_of_the_users_stays_what_it_is():
    """Where nothing beginners do explains it, and when the same one is raised again."""
    known = ValueError("of the user")

    def backward(x, dy):
        raise known

    assert problem(backward, jnp.square, X).endswith("ValueError: of the user")
    assert problem(backward, lambda x: (x, x), X).count("dy is a tuple of 2") == 1


def test_keyboard_interrupt_is_not_kept():
    def interrupted(x, dy):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(interrupted, jnp.square, X, kind="backward")


def test_exiting_is_not_kept():
    def exiting(x, dy):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        examine(exiting, jnp.square, X, kind="backward")


def test_a_reference_in_numpy():
    text = problem(lambda x, dy: 2 * x * dy, lambda x: np.asarray(x) ** 2, X)
    says(text, "reference", "<lambda>", "jax.numpy")


class Tensor:
    """An array as torch has it: NumPy does not know its dtype."""

    dtype, shape = "torch.float64", (3, 4)


def torch_square(x):
    raise TypeError(f"square(): argument 'input' must be Tensor, not {type(x).__name__}")


def test_what_belongs_to_another_library():
    text = problem(lambda x, dy: Tensor(), jnp.square, X)
    says(text, "'x'", "torch.float64[3, 4]", "array of NumPy or JAX, of shape [3, 4]")
    says(problem(lambda x, dy: dy, lambda x: Tensor(), X), "reference", "NumPy or JAX", "a Tensor")
    text = problem(lambda x, dy: dy, torch_square, X)
    says(text, "the reference torch_square cannot be traced by JAX", "write it with jax.numpy")
    text = problem(lambda x, dy: dy, lambda x: x.misspelt, X)
    says(text, "the reference <lambda> raised AttributeError", "misspelt")


def test_a_reference_that_branches_on_values():
    text = problem(lambda x, dy: dy, lambda x: x if x[0, 0] > 0 else 2 * x, X)
    says(text, "reference")


@pytest.mark.parametrize("reference", ["loop", "callback"])
def test_a_reference_without_a_derivative(reference):
    """JAX's own words, and whose function it is."""

    def loop(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, x))[1]

    def callback(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    functions = {"loop": loop, "callback": callback}
    text = problem(lambda x, dy: dy, functions[reference], X)
    says(text, "reference", reference)


def noisy(function):
    rng = np.random.default_rng(0)
    return lambda *args: function(*args) * rng.random()


def test_randomness_in_the_candidate():
    says(problem(noisy(lambda x, dy: x * dy), jnp.square, X), "not deterministic", "key")


def test_randomness_in_a_numpy_candidate():
    says(problem(noisy(lambda x, dy: np.asarray(x) * dy), jnp.square, X), "not deterministic")


def test_randomness_in_the_reference():
    says(problem(lambda x, dy: 2 * x * dy, noisy(jnp.square), X), "reference", "not deterministic")


def test_randomness_behind_a_callback():
    rng = np.random.default_rng(0)

    def candidate(x, dy):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        noise = jax.pure_callback(
            lambda v: rng.random(v.shape).astype(v.dtype), shape, x, vmap_method="sequential"
        )
        return x * dy * noise

    says(problem(candidate, jnp.square, X), "not deterministic")


def test_a_candidate_that_remembers():
    calls = []

    def candidate(x, dy):
        calls.append(1)
        return 2 * x * dy * len(calls)

    says(problem(candidate, jnp.square, X), "not deterministic")


def test_what_is_raised_reads_as_the_report():
    with pytest.raises(GradientMismatch) as caught:
        check_backward(returning(lambda dx, dw, db: (dx, dw)), affine, X, W, B)
    assert isinstance(caught.value, AssertionError)
    assert str(caught.value).strip() == str(caught.value.report)


# --- nothing is left behind -----------------------------------------------------------------------


def outcomes():
    """A few checks of every outcome."""
    yield affine_backward, affine, (X, W, B), "backward"
    yield returning(lambda dx, dw, db: (dx, 2 * dw, db)), affine, (X, W, B), "backward"
    yield returning(lambda dx, dw, db: (dx, dw)), affine, (X, W, B), "backward"
    yield raising, jnp.square, (X,), "backward"
    yield (lambda x, dy: np.multiply(2 * x, dy)), jnp.square, (X,), "backward"
    yield (lambda x, dy: dy * (x >= 0)), jax.nn.relu, (np.array([0.0, 1.0]),), "backward"
    yield (lambda x: x**2), jnp.square, (X,), "function"


def everything():
    return [
        str(examine(candidate, reference, *args, kind=kind))
        for candidate, reference, args, kind in outcomes()
    ]


def settings():
    config = {name: getattr(jax.config, name, None) for name in sorted(jax.config.values)}
    filters = [tuple(str(part) for part in entry) for entry in warnings.filters]
    return (
        config,
        filters,
        dict(np.geterr()),
        dict(np.get_printoptions()),
        sorted(os.environ.items()),
    )


def test_settings_and_random_state_are_as_before():
    np.random.seed(3)  # noqa: NPY002  # the state that users have
    import random

    random.seed(3)
    state, other, before = np.random.get_state()[1].copy(), random.getstate(), settings()  # noqa: NPY002
    everything()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert random.getstate() == other
    assert settings() == before


def test_nothing_is_printed(capfd):
    everything()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_what_the_user_prints_while_debugging_is_not_repeated(capfd):
    """jax.debug.print in a function that is evaluated hundreds of times."""

    def backward(x, dy):
        jax.debug.print("x is {x}", x=x[0, 0])
        return 2 * x * dy

    def reference(x):
        jax.debug.print("x is {x}", x=x[0, 0])
        return x * x

    assert examine(backward, reference, X, kind="backward").ok
    jax.effects_barrier()
    assert len(capfd.readouterr().out.splitlines()) <= 4  # the runs in the user's own dtype


def test_no_warnings_come_out():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        everything()
        examine(lambda x, dy: dy / x, jnp.log, np.array([1.0, 1e-320]), kind="backward")
        examine(
            lambda x, dy: dy * 1e300 * x, lambda x: x * 1e300 * x, np.array([1e10]), kind="backward"
        )
    assert [str(w.message) for w in caught] == []


def test_users_own_warnings_are_errors_to_nobody():
    """Under `-W error` a warning in the user's code, or in JAX, must not become a failure."""

    def backward(x, dy):
        warnings.warn("of the user", stacklevel=1)
        return 2 * x * dy

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert examine(backward, jnp.square, X, kind="backward").ok


SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "nans": lambda: jax.debug_nans(True),
    "infs": lambda: jax.debug_infs(True),
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "matmul": lambda: jax.default_matmul_precision("bfloat16"),
    "no jit": lambda: jax.disable_jit(True),
    "leaks": lambda: jax.checking_leaks(),
    "prng": lambda: jax.default_prng_impl("rbg"),
    "device": lambda: jax.default_device(jax.devices("cpu")[0]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_verdicts_under_other_settings(name):
    def strict(x, w, b):
        return x @ w + b[None, :]

    def verdicts():
        reports = [
            examine(affine_backward, strict, X, W, B, kind="backward"),
            examine(
                returning(lambda dx, dw, db: (dx, 2 * dw, db)), strict, X, W, B, kind="backward"
            ),
            examine(lambda x, dy: dy * (x >= 0).astype(dy.dtype), jax.nn.relu, X, kind="backward"),
        ]
        return [(r.ok, r.problem, r.gradients, r.diagnoses) for r in reports]

    usual = verdicts()
    assert [ok for ok, *_ in usual] == [True, False, True]
    with SETTINGS[name]():
        before = settings()
        assert verdicts() == usual
        assert settings() == before


def test_users_x64_and_its_dtypes():
    with jax.enable_x64(True):
        report = examine(
            affine_backward, affine, *(np.float64(a) for a in (X, W, B)), kind="backward"
        )
    assert report.ok
    assert report.gradients[0].dtype == "float64"
    assert report.accuracy[0].dtype == "float64"


def test_the_users_function_still_compiles_after_a_check():
    """A NumPy constant that both close over is not kept in JAX in the form of the check."""
    constant = np.linspace(0.1, 0.4, 4)

    def reference(x):
        return constant * x * x

    def backward(x, dy):
        return 2 * constant * x * dy

    assert examine(backward, reference, X, kind="backward").ok
    y = jax.jit(reference)(X)
    assert y.dtype == np.float32
    assert jax.grad(lambda x: reference(x).sum())(X).dtype == np.float32


def test_a_check_inside_a_trace_says_so():
    """jit of a function that checks something: the values are not there."""

    def step(x):
        check_backward(lambda x, dy: 2 * x * dy, jnp.square, x)
        return x

    with pytest.raises(Exception, match=r"(?i)trac") as caught:
        jax.jit(step)(X)
    assert "x" in str(caught.value)


def test_inputs_are_not_changed():
    args = [a.copy() for a in (X, W, B)]
    everything()
    examine(affine_backward, affine, *args, kind="backward")
    for arg, before in zip(args, (X, W, B), strict=True):
        np.testing.assert_array_equal(arg, before)


def test_a_backward_that_writes_into_its_inputs():
    """It computes with copies: neither the user's arrays change nor what comes after."""
    x = X.copy()

    def backward(x, dy):
        x, dy = np.asarray(x), np.asarray(dy)
        x *= 2
        x *= dy
        dy[...] = 0
        return x

    report = examine(backward, jnp.square, x, kind="backward")
    assert report.ok, str(report)
    np.testing.assert_array_equal(x, X)


def test_a_backward_that_writes_into_a_constant_argument():
    counts = np.arange(4)

    def backward(x, counts, dy):
        counts = np.asarray(counts)
        counts += 1
        return np.asarray(dy) * (counts - 1), None

    report = examine(backward, lambda x, c: x * c, X, counts, kind="backward")
    assert report.ok, str(report)
    np.testing.assert_array_equal(counts, np.arange(4))


def test_a_candidate_that_keeps_what_it_returns():
    """One buffer, filled anew at every call: results are taken at once."""
    buffer = np.zeros(X.shape)

    def backward(x, dy):
        np.multiply(2 * np.asarray(x), np.asarray(dy), out=buffer)
        return buffer

    assert examine(backward, jnp.square, X, kind="backward").ok


def test_read_only_inputs():
    x = X.copy()
    x.flags.writeable = False
    assert examine(lambda x, dy: 2 * x * dy, jnp.square, x, kind="backward").ok


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "big-endian", "broadcast"])
def test_odd_layouts_of_numpy(layout):
    x = {
        "transposed": X.T,
        "strided": X[::2, ::2],
        "reversed": X[::-1],
        "big-endian": X.astype(">f4"),
        "broadcast": np.broadcast_to(X[:1], (5, 4)),
    }[layout]
    report = examine(lambda x, dy: 2 * x * dy, jnp.square, x, kind="backward")
    assert report.ok, str(report)


def test_an_array_that_jax_does_not_take():
    masked = np.ma.masked_array(X, X > 1)
    says(problem(lambda x, dy: 2 * x * dy, jnp.square, masked), "'x'", "masked")
    text = problem(lambda x, dy: 2 * x * dy, jnp.square, X.astype(np.longdouble))
    says(text, "'x'", np.dtype(np.longdouble).name)


def test_sizes_of_zero_and_one():
    for shape in ((0,), (2, 0), (1,), (1, 1), ()):
        x = np.full(shape, 0.5)
        assert examine(lambda x, dy: 2 * x * dy, jnp.square, x, kind="backward").ok, shape
        report = examine(lambda x, dy: 3 * x * dy, jnp.square, x, kind="backward")
        assert report.ok == (x.size == 0), shape


def test_importing_changes_nothing():
    code = textwrap.dedent(
        """
        import os, sys, warnings
        filters, environment = list(warnings.filters), dict(os.environ)
        import handgrad.compare
        assert "jax" not in sys.modules, "importing handgrad.compare imports jax"
        import jax
        before = dict(jax.config.values)
        from handgrad.compare import check
        assert dict(jax.config.values) == before
        from jax._src import xla_bridge
        assert not xla_bridge._backends, "importing starts a backend"
        assert dict(os.environ) == environment
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("seed", [-1, "a", 1.5, None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match=f"seed is {seed!r}; it must be a whole number from 0 on"):
        check(jnp.square, jnp.square, np.ones(2), seed=seed)
