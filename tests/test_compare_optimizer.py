"""The checker of optimisers: planted mistakes are found and named, and nothing is left behind."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from handgrad.compare import optimizer as module
from handgrad.compare import trajectory
from handgrad.compare.optimizer import (
    OptimizerMismatch,
    check_optimizer,
    declare_optimizer,
    declared,
    examine_optimizer,
    sample_gradients,
    sample_params,
)

RNG = np.random.default_rng(1)
PARAMS = {"matrix": RNG.standard_normal((2, 3)), "vector": RNG.standard_normal(4)}
GRADIENTS = sample_gradients(RNG, PARAMS, 200)


class State(NamedTuple):
    t: jax.Array
    m: dict
    v: dict


def my_adam(rate=0.01, *, first=lambda m, g: 0.9 * m + 0.1 * g, power=2, late=0, eps=1e-8):
    """Adam as a user writes it; the arguments plant the mistakes."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return State(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(grads, state, params=None):
        t = state.t + 1
        m = jax.tree.map(first, state.m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * jnp.abs(g) ** power, state.v, grads)

        def step(m, v):
            time = t.astype(m.dtype) + late
            return -rate * (m / (1 - 0.9**time)) / (jnp.sqrt(v / (1 - 0.999**time)) + eps)

        return jax.tree.map(step, m, v), State(t, m, v)

    return optax.GradientTransformation(init, update)


ADAM = optax.adam(0.01)


def test_a_users_adam_is_in_step():
    report = check_optimizer(my_adam(), ADAM, PARAMS, GRADIENTS, name="my adam")
    assert report.ok
    assert report.steps == 200
    assert report.float64.worst <= 1e-12
    assert report.compared == (
        "count",
        "mu['matrix']",
        "mu['vector']",
        "nu['matrix']",
        "nu['vector']",
        "params['matrix']",
        "params['vector']",
    )
    assert report.only_manual == report.only_reference == ()
    text = str(report)
    start = "✓ my adam: in step with its reference, 200 steps\n  in float64: right; departure "
    assert text.startswith(start)
    assert "\n  in float32: accurate; departure " in text
    assert "compared: count, mu['matrix'], " in text


def test_the_report_is_frozen():
    report = check_optimizer(my_adam(), ADAM, PARAMS, GRADIENTS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.steps = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert dataclasses.asdict(report)["float64"]["departures"] == ()


def test_state_without_counterpart_is_listed_and_can_be_named():
    class Other(NamedTuple):
        now: jax.Array
        average: dict
        squares: dict

    def update(grads, state, params=None):
        updates, state = my_adam().update(grads, State(*state))
        return updates, Other(*state)

    mine = optax.GradientTransformation(lambda params: Other(*my_adam().init(params)), update)
    report = check_optimizer(mine, ADAM, PARAMS, GRADIENTS)
    assert report.compared == ("params['matrix']", "params['vector']")
    assert report.only_manual[:2] == ("now", "average['matrix']")
    assert "without counterpart: now, average['matrix']" in str(report)
    assert "only in the reference: count, mu['matrix']" in str(report)
    names = {"now": "count", "average": "mu", "squares": "nu"}
    report = check_optimizer(mine, ADAM, PARAMS, GRADIENTS, fields=names)
    assert report.only_manual == report.only_reference == ()


# What is wrong, and the field of the first departure and its step.
MISTAKES = [
    (my_adam(first=lambda m, g: 0.9 * m + g), "mu", 1),
    (my_adam(first=lambda m, g: 0.9 * m + 0.1 * jnp.abs(g)), "mu", 1),
    (my_adam(power=1), "nu", 1),
    (my_adam(late=1), "params", 1),
    (my_adam(0.01 * (1 + 1e-9)), "params", 1),
    (my_adam(eps=1e-7), "params", 1),
]


@pytest.mark.parametrize(("wrong", "what", "step"), MISTAKES)
def test_a_planted_mistake_is_named(wrong, what, step):
    with pytest.raises(OptimizerMismatch) as caught:
        check_optimizer(wrong, ADAM, PARAMS, GRADIENTS)
    first = caught.value.report.float64.departures[0]
    assert (first.what, first.step) == (what, step)
    assert isinstance(caught.value, AssertionError)
    assert str(first) in str(caught.value)


def test_step_leaf_index_and_values_are_those_of_the_mistake():
    """One entry of one leaf goes wrong at one step, and by so much."""

    def update(grads, state, params=None):
        updates, (inner, *rest) = ADAM.update(grads, state, params)
        bump = jnp.where(inner.count == 57, 0.25, 0.0).astype(grads["vector"].dtype)
        return updates | {"vector": updates["vector"].at[2].add(bump)}, (inner, *rest)

    report = examine_optimizer(
        optax.GradientTransformation(ADAM.init, update), ADAM, PARAMS, GRADIENTS
    )
    for verdict in (report.float64, report.float32):
        (departure,) = verdict.departures
        assert (departure.step, departure.what, departure.path) == (57, "params", "['vector']")
        assert departure.index == (2,)
        assert departure.manual - departure.reference == pytest.approx(0.25, rel=1e-4)
        assert departure.relative > departure.allowed
    value = report.float64.departures[0].manual
    text = str(report)
    assert f"step 57: params['vector'][2] is {value:.12g}, the reference has " in text
    assert text.startswith("✗ optimizer: not in step with its reference, 200 steps\n")
    assert "\n  in float64: wrong; departure " in text
    assert "\n  in float32: inaccurate; departure " in text


def test_an_entry_that_departs_by_little_among_large_ones_is_found():
    """Nothing is scaled by the size of the leaf: the small entry is judged by itself."""
    params = np.array([1e6, 1e-6])
    gradients = np.ones((5, 2)) * 1e-9

    def update(grads, state, params=None):
        return -grads * jnp.array([1.0, 1.0 + 1e-6], grads.dtype), state

    wrong = optax.GradientTransformation(optax.sgd(1.0).init, update)
    report = examine_optimizer(wrong, optax.sgd(1.0), params, gradients)
    assert report.float64.departures[0].index == (1,)
    assert report.float32.ok  # there it is below a rounding of the parameter


def test_a_right_derivation_with_poor_accuracy_is_told_apart():
    """A moment kept in bfloat16 where there is room for more: right in float64, poor in float32."""

    def update(grads, state, params=None):
        updates, state = ADAM.update(grads, state, params)
        poor = jax.tree.map(
            lambda u: u.astype(jnp.bfloat16).astype(u.dtype) if u.dtype == jnp.float32 else u,
            updates,
        )
        return poor, state

    report = examine_optimizer(
        optax.GradientTransformation(ADAM.init, update), ADAM, PARAMS, GRADIENTS
    )
    assert report.float64.ok
    assert not report.float32.ok
    assert not report.ok


def test_an_objective_is_followed_together_or_freely():
    def gradients(params):
        return jax.tree.map(lambda p: p**3 - p, params)

    for free in (False, True):
        assert check_optimizer(my_adam(), ADAM, PARAMS, gradients, steps=50, free=free).steps == 50
    # where the step is unstable, a rounding grows without end, unless both are given the same
    unstable, start = optax.sgd(1.8), {"x": np.array([0.3, 0.7])}
    other = optax.chain(optax.scale(1.8 / 3), optax.scale(-3.0))
    assert examine_optimizer(other, unstable, start, gradients, steps=300).float64.ok
    assert not examine_optimizer(other, unstable, start, gradients, steps=300, free=True).float64.ok
    with pytest.raises(ValueError, match="free needs gradients that are a function"):
        examine_optimizer(my_adam(), ADAM, PARAMS, GRADIENTS, free=True)


def test_alarms():
    still = {"matrix": GRADIENTS["matrix"], "vector": np.zeros((200, 4))}
    report = examine_optimizer(my_adam(), ADAM, PARAMS, still)
    assert report.alarms == ("params['vector'] never moves: nothing is verified there",)
    assert not report.ok
    broken = {"matrix": GRADIENTS["matrix"].copy(), "vector": GRADIENTS["vector"]}
    broken["matrix"][20, 0, 0] = np.nan
    report = examine_optimizer(my_adam(), ADAM, PARAMS, broken)
    assert report.alarms == (
        "the reference is not finite from step 21 on (mu['matrix']): nothing is verified there",
    )


def test_one_sided_nan_is_a_departure():
    def update(grads, state, params=None):
        return jax.tree.map(
            lambda g: jnp.where(state.count == 3, jnp.nan, -0.1) * g, grads
        ), state._replace(count=state.count + 1)

    counting = optax.GradientTransformation(
        lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )
    report = examine_optimizer(counting, optax.sgd(0.1), PARAMS, GRADIENTS)
    assert report.float64.departures[0].step == 4
    assert report.float64.departures[0].relative == np.inf


def test_a_wrong_counter_is_exact():
    def update(grads, state, params=None):
        updates, (inner, *rest) = ADAM.update(grads, state, params)
        return updates, (inner._replace(count=inner.count + (inner.count == 9)), *rest)

    report = examine_optimizer(
        optax.GradientTransformation(ADAM.init, update), ADAM, PARAMS, GRADIENTS
    )
    first = report.float64.departures[0]
    assert (first.step, first.what, first.manual, first.reference) == (9, "count", 10, 9)


def test_in_pieces_it_is_the_same(monkeypatch):
    gradients = jax.tree.map(np.copy, GRADIENTS)
    gradients["vector"][130, 1] = 1e6
    wrong = my_adam(first=lambda m, g: jnp.where(g == 1e6, 0.0, 0.9 * m + 0.1 * g))
    whole = examine_optimizer(wrong, ADAM, PARAMS, gradients)
    assert whole.float64.departures[0].step == 131
    monkeypatch.setattr(trajectory, "BUDGET", 64 * 10 * 60)  # 60 steps of ten numbers at once
    pieces = examine_optimizer(wrong, ADAM, PARAMS, gradients)
    assert pieces == whole


def test_no_state_is_left_behind():
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            examine_optimizer(my_adam(), ADAM, PARAMS, GRADIENTS)
            assert jax.config.jax_enable_x64 is enabled
    assert jax.config.jax_enable_x64 is False

    def broken(params):
        raise RuntimeError("as planted")

    with pytest.raises(RuntimeError, match="as planted"):
        examine_optimizer(my_adam(), ADAM, PARAMS, broken)
    assert jax.config.jax_enable_x64 is False


def test_parameters_of_any_tree():
    for params in (np.ones(3), [np.ones(2), (np.ones(()),)], {"a": {"mu": np.ones(2)}}):
        gradients = jax.tree.map(lambda p: RNG.standard_normal((20, *p.shape)), params)
        report = check_optimizer(my_adam(), ADAM, params, gradients)
        assert report.only_manual == ()


def test_bad_input():
    for params, gradients, text in [
        ({"w": np.arange(3)}, None, "a leaf has dtype int64; parameters and gradients must be fl"),
        (PARAMS, {"matrix": np.ones((5, 2, 3))}, "the recorded gradients are the tree"),
        (PARAMS, {"matrix": np.ones((5, 2, 3)), "vector": np.ones((6, 4))}, r"have \[5, 6\] steps"),
        (
            PARAMS,
            {"matrix": np.ones((5, 3, 2)), "vector": np.ones((5, 4))},
            r"\['matrix'\] has sha",
        ),
    ]:
        with pytest.raises((TypeError, ValueError), match=text):
            examine_optimizer(my_adam(), ADAM, params, gradients)


def test_declaring(monkeypatch):
    monkeypatch.setattr(module, "_declared", [])
    mine = declare_optimizer(my_adam(), ADAM)
    declare_optimizer(my_adam(power=1), ADAM, name="wrong", params=PARAMS)
    right, wrong = declared()
    assert right.manual is mine
    assert (right.name, wrong.name) == ("my_adam", "wrong")
    assert right.file == __file__
    report = right.examine(seed=3)
    assert report.ok
    assert report.name == "my_adam"
    assert report.steps == 1000
    # the sample is that of the seed
    rng = np.random.default_rng(3)
    params = sample_params(rng)
    drawn = examine_optimizer(mine, ADAM, params, sample_gradients(rng, params), name="my_adam")
    assert drawn == report


class NumPyAdam:
    """As a course has it: NumPy, arrays changed in place, all that is kept in the object."""

    def __init__(self, first=0.9, kept=True):
        self.first, self.kept = first, kept

    def init(self, params):
        self.t = 0
        self.m = {name: np.zeros_like(p) for name, p in params.items()}
        self.v = {name: np.zeros_like(p) for name, p in params.items()}
        return {"mu": self.m, "nu": self.v} if self.kept else ()

    def update(self, grads, state, params):
        self.t += 1
        for name, g in grads.items():
            self.m[name] *= self.first
            self.m[name] += (1 - self.first) * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g**2
            m = self.m[name] / (1 - self.first**self.t)
            params[name] = -0.01 * m / (np.sqrt(self.v[name] / (1 - 0.999**self.t)) + 1e-8)
        return params, {"mu": self.m, "nu": self.v} if self.kept else ()


@pytest.mark.parametrize("kept", [True, False])
def test_an_optimizer_in_numpy_with_state_of_its_own(kept, monkeypatch):
    report = check_optimizer(NumPyAdam(kept=kept), ADAM, PARAMS, GRADIENTS)
    assert report.steps == 200
    assert ("mu['matrix']" in report.compared) == kept
    wrong = examine_optimizer(NumPyAdam(0.8, kept), ADAM, PARAMS, GRADIENTS)
    assert wrong.float64.departures[0].step == (1 if kept else 2)
    monkeypatch.setattr(trajectory, "BUDGET", 64 * 10 * 60)  # in pieces of 60 steps
    assert examine_optimizer(NumPyAdam(0.8, kept), ADAM, PARAMS, GRADIENTS) == wrong


def test_a_counter_kept_in_an_object_is_not_frozen_by_tracing():
    class Adam(NumPyAdam):
        def update(self, grads, state, params):
            self.t += 1
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["mu"], grads)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, state["nu"], grads)
            correct = 1 - 0.9**self.t, 1 - 0.999**self.t
            updates = jax.tree.map(
                lambda m, v: -0.01 * m / correct[0] / (jnp.sqrt(v / correct[1]) + 1e-8), m, v
            )
            return updates, {"mu": m, "nu": v}

        def init(self, params):
            self.t = 0
            return {what: jax.tree.map(jnp.zeros_like, params) for what in ("mu", "nu")}

    assert check_optimizer(Adam(), ADAM, PARAMS, GRADIENTS).ok


def test_an_error_of_the_optimizer_is_its_own():
    def update(grads, state, params):
        return grads["absent"], state

    with pytest.raises(KeyError, match="absent"):
        check_optimizer(optax.GradientTransformation(ADAM.init, update), ADAM, PARAMS, GRADIENTS)
