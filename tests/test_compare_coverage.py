"""Which parts of a derivation the inputs exercise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import examine
from handgrad.compare.coverage import Coverage, coverage, together
from handgrad.compare.interpret import Program
from handgrad.compare.laboratory import laboratory
from handgrad.compare.mutate import mutants

RNG = np.random.default_rng(0)
X, GAMMA = RNG.standard_normal((3, 5)), RNG.standard_normal(5)


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def scaled(x, gamma):
    return gamma * jax.nn.silu(x)


def scaled_backward(x, gamma, dy):
    s = jax.nn.sigmoid(x)
    dx = dy * gamma * s * (1 + x * (1 - s))
    return dx, (dy * x * s).sum(0)


def leaky_backward(x, dy):
    return jnp.where(x > 0, dy, 0.1 * dy)


def test_inputs_that_exercise_everything():
    found = coverage(scaled_backward, scaled, X, GAMMA, kind="backward")
    assert found.fraction == 1.0
    assert found.killed > 30
    assert found.survived == ()
    assert "100%" in str(found)


def test_a_branch_that_no_input_takes_is_named_with_its_line():
    positive = np.array([0.5, 2.0, 1.5])
    found = coverage(leaky_backward, lambda x: jax.nn.leaky_relu(x, 0.1), positive, kind="backward")
    assert found.fraction < 1.0
    assert any("0.1 * dy" in s.words for s in found.survived)
    line = leaky_backward.__code__.co_firstlineno + 1
    assert f"not verified by these inputs: test_compare_coverage.py:{line}: " in str(found)
    both = np.array([0.5, -2.0, 1.5])
    again = coverage(leaky_backward, lambda x: jax.nn.leaky_relu(x, 0.1), both, kind="backward")
    assert again.fraction == 1.0


def clipped_backward(x, dy):
    size = jnp.sqrt(x @ x)
    along = jax.lax.cond(size > 50, lambda: (x @ dy) / size**3, lambda: jnp.zeros_like(size))
    return jnp.where(size > 50, 50 * (dy / size - along * x), dy)


def test_a_branch_of_a_condition_that_no_input_takes_is_not_verified():
    """It is not run at further inputs either, so none of them could tell it from a right one."""

    def clipped(x):
        return x / jnp.maximum(1, jnp.sqrt(x @ x) / 50)

    short, long = np.array([1e-3, 2e-3]), np.array([300.0, 400.0])
    parts = [coverage(clipped_backward, clipped, x, kind="backward") for x in (short, long)]
    assert [p.fraction < 1.0 for p in parts] == [True, False]
    named = [str(s) for s in parts[0].survived if "no input tried comes there" in str(s)]
    assert any("(x @ dy) / size**3" in words for words in named)
    whole = together("clipped", parts)
    assert whole.fraction == 1.0


def test_what_cannot_be_traced_says_why():
    found = coverage(lambda x, dy: np.multiply(2 * x, dy), jnp.square, X, kind="backward")
    assert found.unavailable is not None
    assert "JAX cannot trace it" in str(found)
    found = coverage(lambda x, dy: dy, lambda x: x, np.arange(3), kind="backward")
    assert "coverage not available: no argument is a floating-point array" in str(found)


def test_a_changed_program_is_what_a_program_with_the_change_computes():
    """What follows from the changed equation is computed anew, and nothing else."""
    dy = RNG.standard_normal((3, 5))
    with laboratory():
        program = Program(scaled_backward, X, GAMMA, dy)
        values = program.values(X, GAMMA, dy)
        found = list(mutants(program))
        for mutant in found:
            eqn, change = next(iter(mutant.at.values()))

            def after(inner, inputs, results, eqn=eqn, change=change):
                return change(inputs, results, {}) if inner is eqn else results

            got, want = mutant.run(program, values), program(X, GAMMA, dy, after=after)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=str(mutant))
    assert len(found) > 30


# --- why it cannot be measured --------------------------------------------------------------------


def unavailable(backward):
    found = coverage(backward, jnp.square, X, kind="backward")
    assert found.unavailable is not None
    assert not found.reaches(0.0)
    # and the check itself still runs
    report = examine(backward, jnp.square, X, kind="backward")
    return str(found), report


def test_values_that_python_decides_on():
    def branching(x, dy):
        return 2 * x * dy if x.sum() > 1e9 else x * dy * 2

    text, report = unavailable(branching)
    assert "coverage not available: JAX cannot trace it (TracerBoolConversionError" in text
    assert report.ok


def test_callbacks():
    def calling(x, dy):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        two = jax.pure_callback(lambda a: 2 * np.asarray(a), like, x, vmap_method="sequential")
        return two * dy

    text, report = unavailable(calling)
    assert "it calls back into Python, and what that does cannot be seen" in text
    assert report.ok


def test_side_effects():
    def printing(x, dy):
        jax.debug.print("x {}", x)
        return 2 * x * dy

    text, report = unavailable(printing)
    assert "calls back into Python" in text or "it has side effects" in text
    assert report.ok


def test_random_numbers_without_a_key():
    def noisy(x, dy):
        return 2 * x * dy * np.random.uniform(0.5, 1.5)  # noqa: NPY002 (the mistake)

    text, report = unavailable(noisy)
    assert "it is not deterministic: traced twice it is two different programs" in text
    assert "not deterministic" in report.problem


# --- several samples together, and what makes no difference ---------------------------------------


def test_what_one_sample_misses_another_may_exercise():
    positive, both = np.array([0.5, 2.0]), np.array([0.5, -2.0])
    parts = [
        coverage(leaky_backward, lambda x: jax.nn.leaky_relu(x, 0.1), x, kind="backward")
        for x in (positive, both)
    ]
    assert [p.fraction < 1.0 for p in parts] == [True, False]
    whole = together("leaky", parts)
    assert whole.fraction == 1.0
    assert whole.survived == ()
    assert together("leaky", parts[:1]).fraction < 1.0


def test_what_cannot_be_measured_with_any_sample_says_so():
    parts = [Coverage("a", 0, unavailable="too slow"), Coverage("b", 0, unavailable="too slow")]
    assert together("f", parts).unavailable == "too slow"
    right = Coverage("c", 2, noticed=frozenset({("f", "negate"), ("f", "double")}))
    assert together("f", [*parts, right]).fraction == 1.0


def shifted_backward(x, dy):
    top = x.max(-1, keepdims=True)
    e = jnp.exp(x - top)
    p = e / e.sum(-1, keepdims=True)
    return p * (dy - (p * dy).sum(-1, keepdims=True)) + 0.0 * x


def test_a_change_that_makes_no_difference_has_a_reason():
    found = coverage(shifted_backward, jax.nn.softmax, X, kind="backward")
    assert found.fraction == 1.0
    reasons = {s.reason for s in found.equivalent}
    assert "the value is zero" in reasons
    assert "no result depends on the value" in reasons
    top = [s for s in found.equivalent if "x.max(-1, keepdims=True)" in s.words]
    assert {s.reason for s in top} == {"no result depends on the value"}


def test_what_no_result_depends_on_is_not_changed():
    def unused(x, dy):
        jnp.exp(x) * 3
        return 2 * x * dy

    found = coverage(unused, jnp.square, X, kind="backward")
    assert found.equivalent == ()
    assert not any("exp" in key[-1] for key in found.noticed)
