"""PyTorch's optimisers as the independent peer: 20 steps each on the same gradients, in float64."""

import inspect
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.manual import optimizers

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

RNG = np.random.default_rng(0)
PARAMS = [RNG.standard_normal((3, 5)), RNG.standard_normal(5)]
GRADIENTS = [
    [10.0 ** RNG.uniform(-2, 2) * RNG.standard_normal(p.shape) for p in PARAMS] for _ in range(20)
]


def by_torch(name, **options):
    """The parameters after 20 steps of torch.optim."""
    leaves = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in PARAMS]
    optimizer = getattr(torch.optim, name)(leaves, **options)
    for grads in GRADIENTS:
        for leaf, g in zip(leaves, grads, strict=True):
            leaf.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    return [leaf.detach().numpy() for leaf in leaves]


def by_hand(optimizer):
    with jax.enable_x64(True):
        params = [jnp.asarray(p) for p in PARAMS]

        @jax.jit
        def run(params, gradients):
            def step(carry, grads):
                updates, state = optimizer.update(grads, carry[1], carry[0])
                return (optimizers.apply_updates(carry[0], updates), state), None

            return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]

        stacked = [jnp.asarray(np.stack(g)) for g in zip(*GRADIENTS, strict=True)]
        return [np.asarray(p) for p in run(params, stacked)]


# torch's constructor and options · ours, with the arguments that make it the same method
PEERS = [
    ("SGD", {"lr": 0.1}, optimizers.sgd(0.1)),
    ("SGD", {"lr": 0.1, "momentum": 0.9}, optimizers.momentum(0.1)),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, optimizers.nesterov(0.1)),
    (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        optimizers.sgdw(0.1, 0.1, 0.9, decoupled=False),
    ),
    ("Adagrad", {"lr": 0.1}, optimizers.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False)),
    ("RMSprop", {"lr": 0.01}, optimizers.rmsprop(0.01, 0.99, eps_in_sqrt=False)),
    (
        "RMSprop",
        {"lr": 0.01, "centered": True, "momentum": 0.9},
        optimizers.rmsprop(
            0.01, 0.99, eps_in_sqrt=False, centered=True, momentum=0.9, rate_inside=False
        ),
    ),
    ("Adadelta", {}, optimizers.adadelta()),
    ("Adam", {"lr": 0.01}, optimizers.adam(0.01)),
    (
        "Adam",
        {"lr": 0.01, "weight_decay": 0.1},
        optimizers.chain(optimizers.l2_gradient(0.1), optimizers.adam(0.01)),
    ),
    ("Adam", {"lr": 0.01, "amsgrad": True}, optimizers.amsgrad(0.01, bias_correction_nu="after")),
    ("AdamW", {"lr": 0.01}, optimizers.adamw(0.01, weight_decay=1e-2)),
    ("Adamax", {"lr": 0.01}, optimizers.adamax(0.01)),
    ("NAdam", {"lr": 0.01}, optimizers.nadam(0.01, momentum_decay=0.004)),
    ("RAdam", {"lr": 0.01}, optimizers.radam(0.01)),
    (
        "Adafactor",
        {"lr": 0.01},
        optimizers.adafactor(optimizers.relative_step_schedule(0.01), min_dim_size_to_factor=2),
    ),
]

# RAdam: torch takes √v + ε before the bias correction, here (and in optax) √v̂ + ε after it: with
# v̂ ≥ 1e-5 the ε of 1e-8 makes a part of 1e-5 · η of the way. NAdam: torch keeps the product of its
# momenta in float32 (6e-8 of the way). The rest: 20 steps of roundings.
TOLERANCE = {"RAdam": 1e-5, "NAdam": 1e-8}


@pytest.mark.parametrize(
    ("name", "options", "ours"),
    PEERS,
    ids=[f"{name}({', '.join(f'{k}={v}' for k, v in o.items())})" for name, o, _ in PEERS],
)
def test_twenty_steps_with_pytorch(name, options, ours):
    for actual, expected in zip(by_hand(ours), by_torch(name, **options), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=TOLERANCE.get(name, 1e-12), atol=0)


def test_muon_with_pytorch():
    """PyTorch orthogonalises in bfloat16, takes matrices alone and decays them by default."""
    leaf = torch.tensor(PARAMS[0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Muon([leaf], lr=0.01, weight_decay=0.1)
    for grads in GRADIENTS:
        leaf.grad = torch.tensor(grads[0], dtype=torch.float64)
        optimizer.step()
    # torch's factor is √max(1, rows/columns), as its weights are (out, in): here (in, out)
    ours = optimizers.muon(
        0.01 / np.sqrt(5 / 3), weight_decay=0.1 * np.sqrt(5 / 3), bias_correction=False, eps=1e-7
    )
    way = np.abs(leaf.detach().numpy() - PARAMS[0]).max()
    # eight bits of bfloat16, stretched by the iteration
    assert np.abs(by_hand(ours)[0] - leaf.detach().numpy()).max() < 0.05 * way


def test_where_the_defaults_differ_the_methods_do():
    """Each of the differences in docs/optimizers.md is one that can be seen."""
    for name, options, default in [
        ("Adagrad", {"lr": 0.1}, optimizers.adagrad(0.1)),
        ("RMSprop", {"lr": 0.01}, optimizers.rmsprop(0.01)),
        ("Adam", {"lr": 0.01, "amsgrad": True}, optimizers.amsgrad(0.01)),
        ("AdamW", {"lr": 0.01}, optimizers.adamw(0.01)),
        ("NAdam", {"lr": 0.01}, optimizers.nadam(0.01)),
    ]:
        expected = by_torch(name, **options)
        way = max(np.abs(e - p).max() for e, p in zip(expected, PARAMS, strict=True))
        apart = max(np.abs(a - e).max() for a, e in zip(by_hand(default), expected, strict=True))
        assert apart > 1e-4 * way, name


def test_clipping_with_pytorch():
    leaves = [torch.tensor(p, requires_grad=True) for p in PARAMS]
    for clip, ours in [
        (torch.nn.utils.clip_grad_norm_, optimizers.clip_by_global_norm(1.0)),
        (torch.nn.utils.clip_grad_value_, optimizers.clip_by_value(1.0)),
    ]:
        for leaf, g in zip(leaves, GRADIENTS[0], strict=True):
            leaf.grad = torch.tensor(g)
        clip(leaves, 1.0)
        with jax.enable_x64(True):
            actual, _ = ours.update([jnp.asarray(g) for g in GRADIENTS[0]], ())
            # torch divides by the norm plus 1e-6
            for a, leaf in zip(actual, leaves, strict=True):
                np.testing.assert_allclose(a, leaf.grad.numpy(), rtol=2e-6)


SCHEDULES = [
    ("ExponentialLR", {"gamma": 0.9}, optimizers.exponential_schedule(0.1, 1, 0.9)),
    (
        "StepLR",
        {"step_size": 5, "gamma": 0.5},
        optimizers.exponential_schedule(0.1, 5, 0.5, staircase=True),
    ),
    (
        "MultiStepLR",
        {"milestones": [4, 11], "gamma": 0.5},
        optimizers.step_schedule(0.1, {4: 0.5, 11: 0.5}),
    ),
    (
        "CosineAnnealingLR",
        {"T_max": 20, "eta_min": 0.001},
        optimizers.cosine_schedule(0.1, 0.1, 0, 20, 0.001),
    ),
]


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize(
    ("name", "options", "ours"), SCHEDULES, ids=[name for name, *_ in SCHEDULES]
)
def test_schedules_with_pytorch(name, options, ours):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    expected = []
    for _ in range(20):
        expected.append(schedule.get_last_lr()[0])
        schedule.step()
    with jax.enable_x64(True):
        actual = jax.jit(jax.vmap(ours))(jnp.arange(20))
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_the_recorded_defaults_are_pytorchs():
    file = pathlib.Path(__file__).parents[1] / "docs" / "optimizers.py"
    for name, defaults in runpy.run_path(str(file))["TORCH"].items():
        parameters = inspect.signature(getattr(torch.optim, name)).parameters
        for argument, value in defaults.items():
            assert parameters[argument].default == value, (name, argument)
