"""The optimisers by hand, in step with optax, with plain loops and with what the papers say."""

import inspect
import os
import pathlib
import re
import runpy
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from handgrad.compare.optimizer import (
    OptimizerMismatch,
    check_optimizer,
    examine_optimizer,
    sample_gradients,
)
from handgrad.manual import optimizers as manual
from handgrad.manual.descent import quadratic, rosenbrock
from handgrad.manual.networks import init_mlp, mlp_loss
from handgrad.manual.optimizers import printed
from handgrad.manual.optimizers.core import one_minus_power
from handgrad.manual.optimizers.rectified import effective_length
from handgrad.reference import optimizers as reference


@pytest.fixture(autouse=True)
def promotion():
    """optax raises an integer to a real power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def make(name, *args, **options):
    """The same constructor of both rooms."""
    return getattr(manual, name)(*args, **options), getattr(reference, name)(*args, **options)


def case(name, *args, **options):
    shown = ", ".join([*map(str, args), *(f"{key}={value}" for key, value in options.items())])
    return pytest.param(name, args, options, id=f"{name}({shown})")


RNG = np.random.default_rng(0)
PARAMS = {"matrix": RNG.standard_normal((3, 5)), "vector": RNG.standard_normal(5)}
GRADIENTS = sample_gradients(RNG, PARAMS)

# Every optimiser with optax's settings and with those of its paper or of PyTorch, where they
# differ: each row is a trajectory of 1,000 steps.
RECORDED = [
    case("sgd", 0.1),
    case("momentum", 0.1),
    case("momentum", 0.1, 0.5, rate_inside=True),
    case("nesterov", 0.1),
    case("nesterov", 0.1, 0.5, rate_inside=True),
    case("sgdw", 0.01, 0.1, 0.9),
    case("sgdw", 0.01, 0.1, 0.9, decoupled=False),
    case("proximal_sgd", 0.01, 0.1),
    case("adagrad", 0.1),
    case("adagrad", 0.1, 0.0, 1e-10, eps_in_sqrt=False),  # the paper, PyTorch
    case("rmsprop", 0.01),
    case("rmsprop", 0.01, 0.99, eps_in_sqrt=False),  # PyTorch
    case("rmsprop", 0.01, initial_scale=1.0, bias_correction=True),
    case("rmsprop", 0.01, centered=True, momentum=0.8, nesterov=True),
    case("rmsprop", 0.01, momentum=0.8, rate_inside=False),  # PyTorch
    case("adadelta"),
    case("adadelta", 0.5, 0.95),  # the paper's ρ
    case("adam", 0.01),
    case("adam", 0.01, eps_root=1e-8),
    case("adamw", 0.01),
    case("adamw", 0.01, weight_decay=1e-2, scale_decay=False),  # the paper
    case("amsgrad", 0.01),
    case("amsgrad", 0.01, eps=0.0, bias_correction_mu=False, bias_correction_nu=False),  # the paper
    case("amsgrad", 0.01, bias_correction_nu="after"),  # PyTorch
    case("adamax", 0.01),
    case("adamax", 0.01, eps=0.0),  # the paper
    case("nadam", 0.01),
    case("nadam", 0.01, momentum_decay=0.004),  # the paper, PyTorch
    case("radam", 0.01),
    case("radam", 0.01, threshold=4.0),  # the paper
    case("lion", 0.01),
    case("lion", 0.01, weight_decay=0.0),
    case("lamb", 0.01),
    case("lamb", 0.01, weight_decay=0.01),  # the paper
    case("adafactor", 0.01),
    case("adafactor", 0.01, 2, momentum=0.9, weight_decay_rate=1e-3),
    case("adafactor", 0.01, 2, clipping_threshold=None, multiply_by_parameter_scale=False),
    case("muon", 0.01),
    case("muon", 0.01, weight_decay=0.1, adam_weight_decay=0.1, consistent_rms=0.2),
    case("muon", 0.01, nesterov=False),
    case("muon", 0.01, bias_correction=False),  # the author
    case("l2_gradient", 0.1),
    case("clip_by_value", 1.0),
    case("clip_by_norm", 1.0),
    case("clip_by_global_norm", 1.0),
]

# State of ours that optax does not keep: the step where the rate is constant; the product of the
# momenta of NAdam; the momentum of the plain Muon, which the reference keeps under another name.
OWN_STATE = {"step", "mu_product", "mu['matrix']"}


@pytest.mark.sweep(3)
@pytest.mark.parametrize(("name", "args", "options"), RECORDED)
def test_in_step_for_a_thousand_steps(name, args, options):
    report = check_optimizer(*make(name, *args, **options), PARAMS, GRADIENTS)
    assert report.steps == 1000
    assert {label for label in report.only_manual if "mu_product" not in label} <= OWN_STATE


def test_adafactor_takes_the_two_longest_axes_for_rows_and_columns():
    params = {"tall": np.ones((5, 3)), "deep": np.ones((4, 2, 3)), "long": np.ones((2, 3, 4))}
    gradients = sample_gradients(np.random.default_rng(2), params, 100)
    report = check_optimizer(*make("adafactor", 0.01, 2), params, gradients)
    assert {"v_row['tall']", "v_col['deep']", "v_row['long']"} <= set(report.compared)


def test_every_constructor_is_tested():
    tested = {row.values[0] for row in RECORDED}
    untested = {"GradientTransformation", "apply_updates", "chain", "guard", "orthogonalize"}
    schedules = {name for name in manual.__all__ if name.endswith("_schedule")}
    assert set(manual.__all__) == tested | untested | schedules == set(reference.__all__)
    for name in set(manual.__all__) - untested:
        ours, theirs = (inspect.signature(getattr(room, name)) for room in (manual, reference))
        assert [p.replace(annotation=p.empty) for p in ours.parameters.values()] == list(
            theirs.parameters.values()
        )


# --- real objectives ------------------------------------------------------------------------------

CURVATURES = np.array([0.5, 2.0, 8.0], np.float32)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images[:32] / 16).astype(np.float32), labels[:32].astype(np.int32)


# Of the optimisers that follow their own gradients (free), each rounding comes back through the
# objective; the others oscillate about the minimum at these rates, where it grows without end
# (RMSProp on Rosenbrock by ten orders in a hundred steps): both are given the same gradients.
OBJECTIVES = [
    ("sgd", (1e-3,), {}, True),
    ("momentum", (1e-4,), {}, True),
    ("nesterov", (1e-4,), {}, True),
    ("sgdw", (1e-4, 0.1, 0.9), {}, True),
    ("proximal_sgd", (1e-3, 0.01), {}, True),
    ("adagrad", (0.1,), {}, True),
    ("rmsprop", (1e-3,), {"centered": True, "momentum": 0.9}, False),
    ("adadelta", (), {}, False),
    ("adam", (1e-2,), {}, True),
    ("adamw", (1e-2,), {}, True),
    ("amsgrad", (1e-2,), {}, True),
    ("adamax", (1e-2,), {}, True),
    ("nadam", (1e-2,), {}, True),
    ("radam", (1e-3,), {}, True),
    ("lion", (1e-3,), {}, True),
    ("lamb", (1e-2,), {"weight_decay": 0.01}, False),
    ("adafactor", (1e-2,), {"min_dim_size_to_factor": 8}, False),
    ("muon", (1e-2,), {}, False),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("name", "args", "options", "free"), OBJECTIVES, ids=[row[0] for row in OBJECTIVES]
)
def test_in_step_on_a_quadratic_on_rosenbrock_and_on_the_digits(name, args, options, free, digits):
    images, labels = digits
    bowl, valley = quadratic(jnp.asarray(CURVATURES)), rosenbrock()

    def gradients(params):
        dtype = params["plane"].dtype
        _, (mlp, *_) = mlp_loss.value_and_gradient(
            params["digits"],
            images.astype(dtype),
            labels,
            loss="softmax_cross_entropy_with_integer_labels",
            reduction="mean",
        )
        plane = bowl.gradient(params["plane"][:3]), valley.gradient(params["plane"][3:])
        return {"digits": mlp, "plane": jnp.concatenate(plane).astype(dtype)}

    layers = init_mlp((64, 8, 10), key=jax.random.key(0))
    params = {
        "digits": [(np.asarray(w), None) for w, _ in layers],
        "plane": np.array([1.0, -2.0, 3.0, -1.2, 1.0]),
    }
    check_optimizer(*make(name, *args, **options), params, gradients, free=free)


# --- schedules ------------------------------------------------------------------------------------

SCHEDULES = [
    case("constant_schedule", 0.1),
    case("step_schedule", 0.1, {10: 0.5, 25: 0.1}),
    case("exponential_schedule", 0.1, 10, 0.5),
    case("exponential_schedule", 0.1, 10, 0.5, staircase=True),
    case("cosine_schedule", 0.01, 0.1, 10, 60, 0.001),
    case("cosine_schedule", 0.0, 0.1, 0, 60),
    case("noam_schedule", 512, 20),
    case("one_cycle_schedule", 60, 0.1),
    case("linear_one_cycle_schedule", 60, 0.1),
    case("relative_step_schedule"),
]


@pytest.mark.parametrize(("name", "args", "options"), SCHEDULES)
def test_schedules_agree_with_optax(name, args, options):
    ours, theirs = make(name, *args, **options)
    with jax.enable_x64(True):
        # 70 steps go past the end of each schedule; a real count, since optax divides an int32
        # count in float32 even where x64 is on
        reals, counts = (jnp.arange(70, dtype=dtype) for dtype in (jnp.float64, jnp.int32))
        actual, expected = (np.asarray(jax.jit(jax.vmap(f))(reals)) for f in (ours, theirs))
        counted = np.asarray(jax.jit(jax.vmap(ours))(counts))
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-17)
    np.testing.assert_array_equal(counted, actual)


def test_schedules_at_their_landmarks():
    with jax.enable_x64(True):
        noam = manual.noam_schedule(64, 100, 2.0)
        assert float(noam(99)) == pytest.approx(2 / np.sqrt(64 * 100), rel=1e-14)  # the peak
        assert float(noam(0)) == pytest.approx(2 * 64**-0.5 * 100**-1.5, rel=1e-14)
        cosine = manual.cosine_schedule(0.0, 1.0, 10, 50, 0.1)
        assert [float(cosine(t)) for t in (0, 5, 10, 30, 50, 90)] == pytest.approx(
            [0, 0.5, 1, 0.55, 0.1, 0.1], rel=1e-14
        )
        cycle = manual.one_cycle_schedule(100, 1.0, 0.3, 25, 100)
        assert [float(cycle(t)) for t in (0, 15, 30, 65, 100)] == pytest.approx(
            [0.04, 0.52, 1, (1 + 0.0004) / 2, 0.0004], rel=1e-13
        )


@pytest.mark.parametrize("name", ["sgd", "adam", "nesterov", "rmsprop"])
def test_under_a_schedule(name):
    schedule = manual.cosine_schedule(0.0, 0.1, 20, 100)
    options = {"momentum": 0.9} if name == "rmsprop" else {}
    check_optimizer(
        *make(name, schedule, **options),
        PARAMS,
        jax.tree.map(lambda g: g[:200], GRADIENTS),
    )


def test_the_rate_inside_the_velocity_matters_only_under_a_schedule():
    few = jax.tree.map(lambda g: g[:20], GRADIENTS)
    for rate, same in ((0.1, True), (manual.exponential_schedule(0.1, 5, 0.5), False)):
        inside = manual.momentum(rate, rate_inside=True)
        report = examine_optimizer(
            inside, manual.momentum(rate), PARAMS, few, fields={"trace": "other"}
        )
        assert report.float64.ok is same


# --- formulas, in plain loops ---------------------------------------------------------------------


def run(optimizer, params, gradients, steps=20):
    """The parameters after so many steps, in float64."""
    with jax.enable_x64(True):
        params, gradients = (
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)
            for tree in (params, gradients)
        )

        @jax.jit
        def step(carry, grads):
            updates, state = optimizer.update(grads, carry[1], carry[0])
            return manual.apply_updates(carry[0], updates), state

        carry = params, optimizer.init(params)
        for t in range(steps):
            carry = step(carry, jax.tree.map(lambda g, t=t: g[t], gradients))
        return jax.tree.map(np.asarray, carry[0])


def same(actual, expected):
    # 20 steps of some ten roundings each
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


V, G = PARAMS["vector"], GRADIENTS["vector"]


def test_adam_line_by_line():
    theta, m, v = V.copy(), 0.0, 0.0
    for t, g in enumerate(G[:20], 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        theta = theta - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    same(run(manual.adam(0.01), V, G), theta)


def test_adagrad_of_the_paper_line_by_line():
    theta, total = V.copy(), 0.0
    for g in G[:20]:
        total = total + g**2
        theta = theta - 0.1 * g / (np.sqrt(total) + 1e-10)
    same(run(manual.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False), V, G), theta)


def test_nadam_with_the_momentum_schedule_line_by_line():
    theta, m, v, product = V.copy(), 0.0, 0.0, 1.0

    def mu(t):
        return 0.9 * (1 - 0.5 * 0.96 ** (0.004 * t))

    for t, g in enumerate(G[:20], 1):
        product *= mu(t)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        ahead = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        theta = theta - 0.01 * ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    same(run(manual.nadam(0.01, momentum_decay=0.004), V, G), theta)


def test_lamb_line_by_line():
    theta, m, v = V.copy(), 0.0, 0.0
    for t, g in enumerate(G[:20], 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.1 * theta
        theta = theta - 0.01 * np.linalg.norm(theta) / np.linalg.norm(r) * r
    same(run(manual.lamb(0.01, weight_decay=0.1), V, G), theta)


def test_adafactor_line_by_line():
    matrix, gradients = PARAMS["matrix"], GRADIENTS["matrix"]
    theta, rows, columns = matrix.copy(), np.zeros(3), np.zeros(5)
    for t, g in enumerate(gradients[:20], 1):
        decay = 1 - t**-0.8
        rows = decay * rows + (1 - decay) * (g**2 + 1e-30).mean(1)
        columns = decay * columns + (1 - decay) * (g**2 + 1e-30).mean(0)
        u = g / np.sqrt(np.outer(rows, columns) / rows.mean())
        u = u / max(1, np.sqrt((u**2).mean()))
        rate = min(1e-2, 1 / np.sqrt(t)) * max(1e-3, np.sqrt((theta**2).mean()))
        theta = theta - rate * u
    rate = manual.relative_step_schedule()
    same(run(manual.adafactor(rate, min_dim_size_to_factor=2), matrix, gradients), theta)


def test_muon_of_its_author_line_by_line():
    matrix, gradients = PARAMS["matrix"], GRADIENTS["matrix"]
    theta, buffer = matrix.copy(), 0.0
    for g in gradients[:20]:
        buffer = 0.95 * buffer + g  # the author sums; the orthogonal factor forgets the scale
        x = g + 0.95 * buffer
        x = x / np.linalg.norm(x)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        theta = theta - 0.01 * np.sqrt(max(1, 5 / 3)) * x
    # the quintic steps stretch a rounding by 3.4445⁵ ≈ 485; ε = 0 as there is none above
    actual = run(manual.muon(0.01, eps=0.0, bias_correction=False), matrix, gradients)
    np.testing.assert_allclose(actual, theta, rtol=1e-11)


def test_nesterov_is_the_classical_form_in_other_variables():
    curvatures, eta, beta = np.array([1.0, 5.0, 20.0]), 0.03, 0.9
    phi, velocity = np.ones(3), np.zeros(3)
    optimizer = manual.nesterov(eta, beta)
    with jax.enable_x64(True):
        theta = jnp.ones(3, jnp.float64)
        state = optimizer.init(theta)
        for _ in range(30):
            velocity = beta * velocity + curvatures * (phi - eta * beta * velocity)
            phi = phi - eta * velocity
            updates, state = optimizer.update(curvatures * theta, state)
            theta = theta + updates
            np.testing.assert_allclose(
                theta + eta * beta * state.trace, phi, rtol=1e-12, atol=1e-14
            )


def test_orthogonalize():
    with jax.enable_x64(True):
        for shape in ((4, 7), (7, 4)):
            matrix = jnp.asarray(RNG.standard_normal(shape))
            u, _, vt = np.linalg.svd(matrix, full_matrices=False)
            # (2, −3/2, 1/2) converges, quadratically at the end
            exact = jax.jit(manual.orthogonalize, static_argnums=(1, 2))(
                matrix, (2.0, -1.5, 0.5), 15
            )
            np.testing.assert_allclose(exact, u @ vt, atol=1e-12)
            quick = manual.orthogonalize(matrix)
            assert np.all(np.abs(np.linalg.svd(quick, compute_uv=False) - 0.95) < 0.30)
            np.testing.assert_allclose(
                quick, reference.orthogonalize(matrix), rtol=1e-12, atol=1e-13
            )
    with pytest.raises(
        ValueError, match=r"orthogonalize takes a matrix; it was given shape \(3,\)"
    ):
        manual.orthogonalize(jnp.ones(3))


# --- weight decay and L1 --------------------------------------------------------------------------


def test_l2_in_the_gradient_is_decay_for_sgd_and_not_for_adam():
    coupled = manual.chain(manual.l2_gradient(0.1), manual.sgd(0.01))
    same(run(coupled, V, G), run(manual.sgdw(0.01, 0.1), V, G))
    same(run(coupled, V, G), run(manual.sgdw(0.01, 0.1, decoupled=False), V, G))

    with_momentum = [run(manual.sgdw(0.01, 0.1, 0.9, decoupled=d), V, G) for d in (True, False)]
    assert np.abs(with_momentum[0] - with_momentum[1]).max() > 1e-3

    # without gradients but those of the penalty, Adam takes steps of η whatever λ is, while
    # decoupled decay shrinks the parameters by (1 − ηλ) a step
    still = np.zeros((20, 5))
    l2 = run(manual.chain(manual.l2_gradient(0.1), manual.adam(0.01)), V, still)
    np.testing.assert_allclose(V - l2, 20 * 0.01 * np.sign(V), rtol=0.1)
    decoupled = run(manual.adamw(0.01, weight_decay=0.1), V, still)
    same(decoupled, V * (1 - 0.001) ** 20)


def test_the_papers_decay_does_not_scale_with_the_rate():
    still = np.zeros((20, 5))
    for rate in (0.01, 0.1):
        papers = run(manual.adamw(rate, weight_decay=1e-3, scale_decay=False), V, still)
        same(papers, V * (1 - 1e-3) ** 20)


def test_the_proximal_step_reaches_the_lasso_and_its_zeros():
    curvatures, centre, l1 = np.array([1.0, 2.0, 4.0]), np.array([0.3, -0.4, 2.0]), 0.5
    # argmin ½λ(x − c)² + μ|x|, coordinate by coordinate
    expected = np.sign(centre) * np.maximum(np.abs(centre) - l1 / curvatures, 0)
    optimizer = manual.proximal_sgd(0.1, l1)
    with jax.enable_x64(True):
        x = y = jnp.ones(3, jnp.float64)
        state = optimizer.init(x)
        for _ in range(400):
            updates, state = optimizer.update(curvatures * (x - centre), state, x)
            x = manual.apply_updates(x, updates)
            y = y - 0.1 * (curvatures * (y - centre) + l1 * jnp.sign(y))
        x, y = np.asarray(x), np.asarray(y)
    np.testing.assert_allclose(x, expected, rtol=1e-14)
    assert x[0] == 0
    assert np.abs(y[0]) > 1e-3  # the subgradient step keeps jumping over zero


# --- clipping and the guard -----------------------------------------------------------------------


def test_clipping():
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([0.0, 12.0])}

    def clip(transformation):
        return transformation.update(grads, transformation.init(grads), grads)[0]

    by_value = clip(manual.clip_by_value(3.5))
    np.testing.assert_array_equal(by_value["a"], [3.0, -3.5])
    by_norm = clip(manual.clip_by_norm(6.5))
    np.testing.assert_array_equal(by_norm["a"], grads["a"])  # its norm is 5
    np.testing.assert_allclose(by_norm["b"], [0.0, 6.5])
    by_global = clip(manual.clip_by_global_norm(6.5))  # the norm is 13
    np.testing.assert_allclose(by_global["b"], [0.0, 6.0])
    np.testing.assert_allclose(by_global["a"], [1.5, -2.0])
    zero = jax.tree.map(jnp.zeros_like, grads)
    for room in (manual.clip_by_norm(1.0), manual.clip_by_global_norm(1.0)):
        assert not np.any(room.update(zero, room.init(zero))[0]["a"])
    half = {"a": jnp.full(4, 1e4, jnp.float16)}  # the squares overflow float16
    clipped, _ = manual.clip_by_global_norm(1.0).update(half, ())
    np.testing.assert_allclose(clipped["a"], 0.5, rtol=1e-3)


def test_the_guard_skips_and_counts_as_optax_does():
    gradients = jax.tree.map(lambda g: g[:30].copy(), GRADIENTS)
    gradients["vector"][[3, 11], 2] = [np.nan, np.inf]
    ours = manual.guard(manual.adam(0.01), nonfinite="skip")
    theirs = reference.guard(reference.adam(0.01), nonfinite="skip")
    report = check_optimizer(ours, theirs, PARAMS, gradients)
    assert "total_notfinite" in report.compared
    state = ours.init(jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS))
    step = jax.jit(lambda grads, state: ours.update(grads, state)[1])
    for t in range(12):
        state = step(jax.tree.map(lambda g, t=t: jnp.asarray(g[t], jnp.float32), gradients), state)
    assert int(state.total_notfinite) == 2
    assert int(state.inner_state.step) == 10


def test_the_guard_raises_and_passes():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    bad = {"w": jnp.ones(2), "b": jnp.array([1.0, jnp.nan])}
    guarded = manual.guard(manual.sgd(0.1))
    state = guarded.init(params)
    text = r"the gradient holds NaN or infinity at \['b'\]"
    with pytest.raises(FloatingPointError, match=text):
        guarded.update(bad, state)
    updates, state = jax.jit(guarded.update)(params, state)
    np.testing.assert_allclose(updates["b"], -0.1)

    def step():
        jax.block_until_ready(jax.jit(guarded.update)(bad, state))
        jax.effects_barrier()

    with pytest.raises(jax.errors.JaxRuntimeError, match=text):
        step()
    passing = manual.guard(manual.sgd(0.1), nonfinite="pass")
    updates, _ = passing.update(bad, passing.init(params))
    assert np.isnan(updates["b"][1])
    with pytest.raises(ValueError, match="nonfinite is 'ignore'; it must be"):
        manual.guard(manual.sgd(0.1), nonfinite="ignore")  # pyright: ignore[reportArgumentType]


# --- precision ------------------------------------------------------------------------------------


def test_bias_correction_and_rectification_keep_their_digits_in_float32():
    mpmath.mp.dps = 40
    steps = (1, 2, 6, 100, 3000)
    for beta in (0.9, 0.999, 0.9999):
        b = mpmath.mpf(beta)
        kept = [float(1 - b**t) for t in steps]
        length = [float(2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t)) for t in steps]

        def both(t, beta=beta):
            return one_minus_power(beta, t), effective_length(beta, t)

        # some four roundings of each precision; ρ adds numbers a few times its own size
        for wide, rtol in ((False, 4e-7), (True, 1e-14)):
            with jax.enable_x64(wide):
                actual = jax.vmap(both)(jnp.array(steps, jnp.int32))
                np.testing.assert_allclose(actual, (kept, length), rtol=rtol)
    # as printed, in float32: this is why it is not computed so
    count = jnp.int32(6)
    power = 0.999**count
    assert abs(float(2 / (1 - 0.999) - 1 - 2 * count * power / (1 - power)) - 5.99416) > 0.02


def test_radam_is_nearer_the_truth_than_optax_in_float32():
    report = examine_optimizer(*make("radam", 0.01), PARAMS, GRADIENTS)
    assert report.float32.worst < 0.1 * (report.float32.noise or 0)


def test_optax_computes_adafactors_decay_in_float32():
    few = jax.tree.map(lambda g: g[:50], GRADIENTS)
    report = examine_optimizer(manual.adafactor(0.01), optax.adafactor(0.01), PARAMS, few)
    assert 1e-9 < report.float64.worst < 1e-6  # hence the reference's own decay
    assert report.float32.ok


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    """Every update of half-precision leaves is the float32 update, rounded once."""
    params, grads = (
        {k: jnp.asarray(v / np.abs(v).max(), dtype) for k, v in tree.items()}
        for tree in (PARAMS, {k: v[0] for k, v in GRADIENTS.items()})
    )
    for row in RECORDED:
        name, args, options = row.values
        optimizer = getattr(manual, name)(*args, **options)
        updates, state = jax.eval_shape(optimizer.update, grads, optimizer.init(params), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}, name
        assert {s.dtype for s in jax.tree.leaves(state) if s.ndim} <= {jnp.dtype(dtype)}, name
    for optimizer in (manual.adam(0.01), manual.lamb(0.01), manual.clip_by_norm(0.1)):
        state = optimizer.init(params)
        exact = jax.tree.map(
            lambda s: s.astype(jnp.float32) if s.ndim else s, (grads, state, params)
        )
        update = jax.jit(optimizer.update)
        actual, expected = update(grads, state, params)[0], update(*exact)[0]
        for k in params:
            np.testing.assert_array_equal(actual[k], expected[k].astype(dtype))


def test_strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype in (jnp.bfloat16, jnp.float32):
            params = jax.tree.map(lambda p, dtype=dtype: jnp.asarray(p, dtype), PARAMS)
            for row in RECORDED:
                name, args, options = row.values
                optimizer = getattr(manual, name)(*args, **options)
                jax.eval_shape(optimizer.update, params, optimizer.init(params), params)
            scheduled = manual.adamw(manual.cosine_schedule(0.0, 1.0, 5, 20))
            jax.eval_shape(scheduled.update, params, scheduled.init(params), params)


# --- in a training loop ---------------------------------------------------------------------------


def test_in_chains_of_optax_and_of_our_own():
    few = jax.tree.map(lambda g: g[:20], GRADIENTS)
    expected = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
    for chain in (
        optax.chain(manual.clip_by_global_norm(1.0), manual.adam(0.01)),
        manual.chain(manual.clip_by_global_norm(1.0), optax.adam(0.01)),
        manual.chain(manual.clip_by_global_norm(1.0), manual.adam(0.01)),
    ):
        check_optimizer(chain, expected, PARAMS, few)


def test_in_wrappers_of_optax():
    few = jax.tree.map(lambda g: g[:20], GRADIENTS)
    mask = {"matrix": True, "vector": False}
    for wrap in (
        lambda room: optax.masked(room.adamw(0.01), mask),
        lambda room: optax.MultiSteps(room.adam(0.01), 4).gradient_transformation(),
        lambda room: optax.inject_hyperparams(room.adam)(learning_rate=0.01),
        lambda room: optax.partition(
            {"a": room.adam(0.01), "b": room.momentum(0.1)}, {"matrix": "a", "vector": "b"}
        ),
    ):
        check_optimizer(wrap(manual), wrap(reference), PARAMS, few)


@pytest.mark.parametrize("name", ["muon", "radam", "adamw", "lion"])
def test_injected_hyperparameters_are_traced(name):
    few = jax.tree.map(lambda g: jnp.asarray(g[0]), GRADIENTS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    made = getattr(manual, name)
    updates = []
    for optimizer in (made(0.01), optax.inject_hyperparams(made)(learning_rate=0.01)):
        update = jax.jit(optimizer.update)
        updates.append(update(few, optimizer.init(params), params)[0])
    # the same formulas, with constants that the compiler does not know: float32
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), *updates)


def test_what_decides_on_the_shapes_of_a_state_is_known():
    optimizer = optax.inject_hyperparams(manual.adafactor)(learning_rate=0.01)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    with pytest.raises(TypeError, match="adafactor: min_dim_size_to_factor is traced; it must be"):
        jax.jit(optimizer.update)(params, state, params)
    known = optax.inject_hyperparams(manual.adafactor, static_args="min_dim_size_to_factor")
    optimizer = known(learning_rate=0.01)
    jax.jit(optimizer.update)(params, optimizer.init(params), params)


def test_muon_with_a_weight_decay_that_is_traced():
    params = jax.tree.map(jnp.asarray, PARAMS)

    def update(weight_decay):
        optimizer = manual.muon(0.01, weight_decay=weight_decay)
        return optimizer.update(params, optimizer.init(params), params)[0]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8),
        jax.jit(update)(0.1),
        update(0.1),
    )


class Asked(NamedTuple):
    """A transformation whose update needs an argument by name, and takes no other."""

    init: Any = lambda params: ()
    update: Any = lambda grads, state, params=None, *, value: (
        jax.tree.map(lambda g: g * value, grads),
        state,
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: manual.chain(manual.clip_by_value(9.0), inner, optax.sgd(1.0)),
        lambda inner: manual.chain(manual.chain(inner), manual.sgd(1.0), optax.identity()),
        lambda inner: manual.chain(manual.guard(inner), manual.guard(manual.sgd(1.0))),
        lambda inner: manual.chain(manual.guard(inner, nonfinite="skip"), manual.sgd(1.0)),
        lambda inner: manual.chain(manual.guard(inner, nonfinite="pass"), manual.sgd(1.0)),
    ],
)
def test_more_arguments_go_to_those_that_take_them(wrap):
    optimizer, g = wrap(Asked()), jnp.ones(2)
    updates, _ = optimizer.update(g, optimizer.init(g), g, value=3.0, other=None)
    assert updates.tolist() == [-3, -3]
    with pytest.raises(TypeError, match="value"):
        optimizer.update(g, optimizer.init(g), g)


def test_a_plateau_of_optax_in_a_chain():
    rooms = (
        room.chain(part, optax.contrib.reduce_on_plateau(patience=1))
        for room, part in ((manual, manual.sgd(0.1)), (optax, optax.sgd(0.1)))
    )
    found = []
    for optimizer in rooms:
        state = optimizer.init(jnp.ones(2))
        for _ in range(5):
            updates, state = optimizer.update(jnp.ones(2), state, jnp.ones(2), value=1.0)
        found.append(updates)
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert float(abs(found[0]).max()) < 0.1  # it was reduced


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: manual.chain(0.1), r"chain: argument 0 is 0\.1; it must be an optimiser or an"),
        (lambda: manual.chain([manual.sgd(0.1)]), r"chain: argument 0 is \[Gradient.*; it must be"),
        (lambda: manual.chain(manual.sgd(0.1), manual.adam), "chain: argument 1 is <function adam"),
        (lambda: manual.guard(0.1), r"guard: inner is 0\.1; it must be an optimiser or another"),
    ],
)
def test_what_is_no_transformation(wrong, message):
    with pytest.raises(TypeError, match=message):
        wrong()


@pytest.mark.parametrize(("one", "other"), [("adam", "adamax"), ("adamax", "adam")])
def test_adam_and_adamax_do_not_take_each_others_state(one, other):
    state = getattr(manual, one)(0.1).init(jnp.ones(2))
    with pytest.raises(TypeError, match=r"the state is a Ada.*State; it must be the Ada.*State"):
        getattr(manual, other)(0.1).update(jnp.ones(2), state)


def test_under_jit_with_donation_and_under_vmap():
    optimizer = manual.adamw(0.01)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)
    grads = jax.tree.map(lambda g: jnp.asarray(g[0], jnp.float32), GRADIENTS)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return manual.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    expected, _ = step(params, optimizer.init(params), grads)
    actual, _ = donating(jax.tree.map(jnp.copy, params), optimizer.init(params), grads)
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_array_equal(a, b)

    several = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    states = jax.vmap(optimizer.init)(several)
    batched, _ = jax.vmap(step, (0, 0, None))(several, states, grads)
    for a, b in zip(*map(jax.tree.leaves, (batched, expected)), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=3e-7)  # compiled anew: an FMA more or less

    def at_rate(rate):
        tuned = manual.sgd(rate)
        return tuned.update(grads, tuned.init(params))[0]

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(
        jax.vmap(at_rate)(rates)["vector"], -rates[:, None] * grads["vector"][None, :]
    )


SHARDED = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from handgrad.manual import optimizers
assert jax.device_count() == 2
where = NamedSharding(jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,)), P("d"))
params = jax.device_put(jnp.ones((4, 6)), where)
for optimizer in (optimizers.adam(0.1), optimizers.muon(0.1)):
    state = optimizer.init(params)
    updates, state = jax.jit(optimizer.update)(params, state, params)
    assert updates.sharding.is_equivalent_to(where, 2), (optimizer, updates.sharding)
    assert state.mu.sharding.is_equivalent_to(where, 2), (optimizer, state.mu.sharding)
    alone = jnp.ones((4, 6))
    expected, _ = optimizer.update(alone, optimizer.init(alone), alone)
    assert jnp.allclose(updates, expected, rtol=1e-5), (updates, expected)
"""


def test_sharded():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_step_counter_stays_at_its_largest():
    optimizer = manual.adam(0.1)
    params = jnp.ones(2)
    last = np.iinfo(np.int32).max
    state = optimizer.init(params)._replace(step=jnp.int32(last))
    updates, state = optimizer.update(params, state)
    assert int(state.step) == last
    assert np.isfinite(updates).all()


@pytest.mark.parametrize("name", ["adam", "lamb", "adafactor", "amsgrad"])
def test_no_more_temporary_memory_than_optax(name):
    params = jnp.zeros((256, 512))
    used = []
    for optimizer in make(name, 0.01):
        args = params, jax.eval_shape(optimizer.init, params), params
        compiled = jax.jit(optimizer.update, donate_argnums=1).lower(*args).compile()
        used.append(compiled.memory_analysis().temp_size_in_bytes)
    assert used[0] <= used[1]


# --- what one document prints ---------------------------------------------------------------------

PRINTED = {
    "adagrad_halved": reference.adagrad(0.01, 0.0),
    "adagrad_reciprocals": reference.adagrad(0.01, 0.0),
    "rmsprop_halved": reference.rmsprop(0.01),
    "rmsprop_over_rate": reference.rmsprop(0.01),
    "adam_halved": reference.adam(0.01),
    "adam_linear": reference.adam(0.01),
}


@pytest.mark.parametrize("name", printed.__all__)
def test_the_printed_statements_depart_from_optax(name):
    wrong = getattr(printed, name)(0.01)
    with pytest.raises(OptimizerMismatch) as caught:
        check_optimizer(wrong, PRINTED[name], PARAMS, GRADIENTS)
    departure = caught.value.report.float64.departures[-1]
    assert departure.what == "params"
    # the halved rates and the straight lines are right once; the others never
    first = 1 if name in ("adagrad_reciprocals", "rmsprop_over_rate") else 2
    assert departure.step == first


def test_by_how_much_the_printed_statements_depart():
    steady = np.ones((1000, 3)) * [1.0, -2.0, 0.5]
    start = np.zeros(3)

    def way(optimizer, steps):
        return np.abs(run(optimizer, start, steady, steps))

    # halving: the whole way is that of two steps
    np.testing.assert_allclose(way(printed.adam_halved(0.01), 100), 0.02, rtol=1e-6)
    np.testing.assert_allclose(way(manual.adam(0.01), 100), 1.0, rtol=1e-6)
    # the square over 2η: every step √(2η) times as long
    ratio = way(printed.rmsprop_over_rate(0.01), 100) / way(manual.rmsprop(0.01), 100)
    np.testing.assert_allclose(ratio, np.sqrt(2 * 0.01), rtol=1e-5)
    # the sum of reciprocals: the step is c^(3/2) times as long for a gradient times c
    once = way(printed.adagrad_reciprocals(0.01), 1)
    np.testing.assert_allclose(once / once[0], [1, 2**1.5, 0.5**1.5], rtol=1e-5)


def test_the_formulas_printed_beside_them_hold():
    """Section 7's and 9's formulas, taken without the words, are optax's."""
    check_optimizer(manual.adagrad(0.1, 0.0), optax.adagrad(0.1, 0.0), PARAMS, GRADIENTS)
    check_optimizer(manual.adam(0.1), optax.adam(0.1), PARAMS, GRADIENTS)


# --- what docs/optimizers.md says -----------------------------------------------------------------


def test_the_page_has_the_defaults_of_the_constructors():
    file = pathlib.Path(__file__).parents[1] / "docs" / "optimizers.py"
    page = file.with_suffix(".md").read_text()
    assert runpy.run_path(str(file))["conventions"]() in page


def test_adadelta_of_optax_climbs_without_a_rate_and_ours_does_not():
    g = jnp.ones(3)
    for optimizer, downhill in ((optax.adadelta(), False), (manual.adadelta(), True)):
        updates, _ = optimizer.update(g, optimizer.init(g), g)
        assert bool((updates < 0).all()) is downhill


def test_a_state_in_float32_for_bfloat16_parameters():
    optimizer = manual.adam(0.01)
    params = jnp.ones(3, jnp.bfloat16)
    state = optimizer.init(params.astype(jnp.float32))
    updates, state = optimizer.update(params, state)
    assert (updates.dtype, state.mu.dtype, state.nu.dtype) == (jnp.bfloat16, *[jnp.float32] * 2)


# --- bad input ------------------------------------------------------------------------------------

OPTIMIZERS = sorted({row.values[0] for row in RECORDED if "clip" not in row.values[0]})


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "l2_gradient"])
def test_a_negative_rate(name):
    args = (-0.1, 0.1) if name == "proximal_sgd" else (-0.1,)
    with pytest.raises(ValueError, match=r"learning_rate is -0\.1; it must be ≥ 0, since the"):
        getattr(manual, name)(*args)


DECAYS = [
    (name, parameter)
    for name in OPTIMIZERS
    for parameter in ("decay", "rho", "b1", "b2", "momentum", "beta", "adam_b1", "adam_b2")
    if parameter in inspect.signature(getattr(manual, name)).parameters
]


@pytest.mark.parametrize(("name", "parameter"), DECAYS)
def test_a_decay_outside_its_interval(name, parameter):
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"{parameter} is {value}; it must lie in \[0, 1\)"):
            getattr(manual, name)(0.1, **{parameter: value})


def test_other_bad_arguments():
    for call, text in [
        (
            lambda: manual.sgd("fast"),
            "learning_rate is 'fast'; it must be a number, a 0-d array or",
        ),
        (lambda: manual.sgd(jnp.ones(3)), r"learning_rate is an array of shape \(3,\); it must be"),
        (lambda: manual.adam(0.1, eps=-1e-8), "eps is -1e-08; it must be ≥ 0"),
        (lambda: manual.adamw(0.1, weight_decay=-1.0), r"weight_decay is -1\.0; it must be ≥ 0"),
        (lambda: manual.clip_by_value(0.0), r"max_delta is 0\.0; it must be > 0"),
        (lambda: manual.radam(0.1, threshold=3.0), r"threshold is 3\.0; it must be ≥ 4"),
        (lambda: manual.amsgrad(0.1, bias_correction_nu="no"), "bias_correction_nu is 'no'; it"),
        (lambda: manual.muon(0.1, (1.0, 2.0)), "ns_coeffs has 2 numbers; it must have 3"),
        (lambda: manual.cosine_schedule(0, 1, 10, 10), "decay_steps is 10; it counts the warm-up"),
        (lambda: manual.one_cycle_schedule(2, 1.0), r"the steps \[0, 0, 2\]; they must increase"),
        (lambda: manual.step_schedule(1, {5: -1}), r"the scale at 5 is -1\.0; it must be ≥ 0"),
        (
            lambda: manual.step_schedule(0.1, 0.1),
            r"boundaries_and_scales is 0\.1; it must be a dict",
        ),
        (
            lambda: manual.cosine_schedule(0, 1, 10, None),
            "decay_steps is None; it must be a number",
        ),
        (
            lambda: manual.one_cycle_schedule(9, 1.0, div_factor=0),
            r"div_factor is 0\.0; it must be",
        ),
        (lambda: manual.one_cycle_schedule(9, 1.0, div_factor=-2), r"div_factor is -2\.0; it must"),
        (
            lambda: manual.linear_one_cycle_schedule(9, 1.0, final_div_factor=0),
            r"final_div_factor is 0\.0",
        ),
        (
            lambda: manual.one_cycle_schedule(9, 1.0, pct_start="a"),
            "pct_start is 'a'; it must be a",
        ),
        (lambda: manual.adafactor(decay_offset="a"), "decay_offset is 'a'; it must be a number"),
        (lambda: manual.adafactor(decay_offset=-1), r"decay_offset is -1\.0; it must be ≥ 0"),
        (lambda: manual.adafactor(min_dim_size_to_factor="a"), "min_dim_size_to_factor is 'a'; it"),
        (lambda: manual.muon(0.1, ns_steps=-1), "muon: ns_steps is -1; it must be 0 or more"),
        (
            lambda: manual.muon(0.1, ns_steps="5"),
            "muon: ns_steps is '5'; it must be a whole number",
        ),
        (lambda: manual.muon(0.1, "abc"), "muon: ns_coeffs is 'abc'; it must be three numbers"),
        (
            lambda: manual.orthogonalize(jnp.ones((2, 2)), ns_steps=1.5),
            "orthogonalize: ns_steps is",
        ),
        (
            lambda: manual.muon(0.1, consistent_rms="a"),
            "consistent_rms is 'a'; it must be a number",
        ),
    ]:
        with pytest.raises((ValueError, TypeError), match=text):
            call()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_that_do_not_fit(name):
    args = (0.1, 0.1) if name == "proximal_sgd" else (0.1,)
    optimizer = getattr(manual, name)(*args)
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state = optimizer.init(params)
    for grads, text in [
        (
            {"w": jnp.ones((2, 3))},
            r"the parameters have a leaf \['b'\] and the gradients have none",
        ),
        (params | {"c": jnp.ones(1)}, r"the gradients have a leaf \['c'\] and the parameters have"),
        (
            params | {"w": jnp.ones((3, 2))},
            r"the gradient \['w'\] has shape \(3, 2\); it must have",
        ),
    ]:
        with pytest.raises(ValueError, match=text):
            jax.eval_shape(optimizer.update, grads, state, params)


@pytest.mark.parametrize(
    "name", ["adamw", "lamb", "adafactor", "lion", "sgdw", "proximal_sgd", "l2_gradient", "muon"]
)
def test_parameters_are_asked_for(name):
    args = (0.1, 0.1) if name == "proximal_sgd" else (0.1,)
    options = {"weight_decay": 0.1} if name == "muon" else {}
    optimizer = getattr(manual, name)(*args, **options)
    params = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=rf"{name}.* reads the parameters: call update\(grads, st"):
        optimizer.update(params, optimizer.init(params))


def test_updates_that_do_not_fit_the_parameters():
    for updates, text in [
        ({"w": jnp.ones((3, 2))}, r"the update \['w'\] has shape \(3, 2\); it must .*, \(2,\)"),
        ({}, r"the parameters have a leaf \['w'\] and the updates have none"),
    ]:
        with pytest.raises(ValueError, match=text):
            jax.eval_shape(manual.apply_updates, {"w": jnp.ones(2)}, updates)


STATEFUL = [name for name in OPTIMIZERS if name not in ("sgd", "proximal_sgd", "l2_gradient")]


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("shape", [(3, 1), (2,)])
def test_a_state_of_other_parameters(name, shape):
    """It would be broadcast."""
    optimizer, params = getattr(manual, name)(0.1), {"w": jnp.ones((3, 2))}
    state = optimizer.init({"w": jnp.ones(shape)})
    with pytest.raises(ValueError, match=r"\['w'\] has shape .*; it must have its parameter's, "):
        jax.eval_shape(optimizer.update, params, state, params)


def test_factored_means_of_other_parameters():
    optimizer, params = manual.adafactor(min_dim_size_to_factor=2), jnp.ones((3, 2))
    state = optimizer.init(jnp.ones((4, 2)))
    with pytest.raises(ValueError, match=r"v_col has shape \(4,\); it must have .*, \(3,\)"):
        jax.eval_shape(optimizer.update, params, state, params)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "guard", "chain"])
def test_a_state_of_another_optimiser(name):
    args = {
        "proximal_sgd": (0.1, 0.1),
        "guard": (manual.sgd(0.1),),
        "chain": (manual.sgd(0.1), manual.sgd(0.1)),
    }.get(name, (0.1,))
    optimizer = getattr(manual, name)(*args)
    for state in (None, (1,)):
        text = f"the state is a {type(state).__name__}.*; it must be the .* that `init`, or the la"
        with pytest.raises((TypeError, ValueError), match=text):
            optimizer.update(jnp.ones(2), state, jnp.ones(2))


def test_a_schedule_that_returns_no_number():
    for name, value, error in [("sgd", jnp.ones((2, 1)), ValueError), ("adam", None, TypeError)]:
        optimizer = getattr(manual, name)(lambda t, value=value: value)
        with pytest.raises(error, match=r"what the schedule returns is .*; it must be a number or"):
            optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)))
    with pytest.raises(ValueError, match=r"learning_rate is an array of shape \(2,\); it must be"):
        jax.eval_shape(lambda rate: manual.sgd(rate).init(rate), jnp.ones(2))


def test_integers_are_refused():
    """Every update would be rounded to zero."""
    whole, real = {"w": jnp.arange(3)}, {"w": jnp.ones(3)}
    for transformation in (manual.sgd(0.1), manual.clip_by_global_norm(0.1), manual.adam(0.1)):
        state = transformation.init(real)
        with pytest.raises(
            TypeError, match=r"the gradient \['w'\] is int32; it must be of floating"
        ):
            transformation.update(whole, state)
    for name in ("adam", "adafactor", "muon"):
        with pytest.raises(
            TypeError, match=r"the parameter \['w'\] is int32; it must be of floati"
        ):
            getattr(manual, name)(0.1).init(whole)


@pytest.mark.parametrize("name", ["muon", "adafactor", "adam"])
def test_parameters_that_are_python_numbers(name):
    optimizer = getattr(manual, name)(0.1)

    def step(theta, gradient):
        updates, _ = optimizer.update(gradient, optimizer.init(theta), theta)
        return manual.apply_updates(theta, updates)

    assert float(step(1.0, 0.5)) == float(step(jnp.array(1.0), jnp.array(0.5)))


def test_muon_of_an_empty_matrix():
    params = {"empty": jnp.ones((0, 2)), "full": jnp.ones((3, 2))}
    updates, _ = manual.muon(0.1).update(params, manual.muon(0.1).init(params))
    alone, _ = manual.muon(0.1).update(params["full"], manual.muon(0.1).init(params["full"]))
    assert updates["empty"].shape == (0, 2)
    np.testing.assert_array_equal(updates["full"], alone)


def test_adafactor_before_its_offset_counts_every_step_as_the_first():
    """And after it, the steps from there on."""
    late, plain, params = manual.adafactor(decay_offset=2), manual.adafactor(), jnp.array([1.0, 2])
    state = late.init(params)
    for g in (params, 3 * params):
        updates, state = late.update(g, state, params)
        np.testing.assert_array_equal(state.v, g * g + 1e-30)
    kept = plain.init(params)
    for g in (3 * params, 2 * params):
        expected, kept = plain.update(g, kept, params)
    for g in (3 * params, 2 * params):
        updates, state = late.update(g, state, params)
    np.testing.assert_array_equal(updates, expected)


@pytest.mark.parametrize("name", sorted(set(manual.__all__) - {"GradientTransformation"}))
def test_every_docstring_speaks_of_every_parameter(name):
    function = getattr(manual, name)
    doc = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"\b{parameter}\b", doc), f"{name} does not speak of {parameter}"
