"""Which parts of a derivation the inputs exercise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare.coverage import coverage
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
