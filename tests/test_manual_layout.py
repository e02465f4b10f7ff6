"""On a mesh with explicit axes, JAX's default, every operation runs and says how it lies."""

import os
import subprocess
import sys

import pytest

# In a process of its own, since the number of devices is settled when JAX starts.
START = """
import functools, importlib
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from handgrad import manual as m
from handgrad.compare import cases
from handgrad.manual import descent, optimizers

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
mesh = jax.make_mesh((2, 2), ("a", "b"))
jax.set_mesh(mesh)

def some(*shape):
    return rng.normal(size=shape)

def put(x, *spec):
    return jax.device_put(x, NamedSharding(mesh, P(*spec)))

def spec_of(x):
    spec = jax.typeof(x).sharding.spec
    return (*spec, *[None] * (x.ndim - len(spec)))

def floats(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]

def energy(y):
    return sum(jnp.sum(jnp.square(x)) for x in floats(y))

def close(ours, others, name):
    # the same real numbers, summed in another order: a few ulps of float64
    for a, b in zip(*map(jax.tree.leaves, (ours, others)), strict=True):
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, err_msg=name)
"""

EVERY = (
    START
    + """
def even(n):
    return n > 0 and n % 2 == 0

def samples_alone(x, samples):
    return ("a",) if x.ndim and x.shape[0] == samples else ()

def features_too(x, samples):
    last = "b" if x.ndim and even(x.shape[-1]) else None
    if x.ndim < 2:
        return (last,) * x.ndim
    return (*samples_alone(x, samples), None)[:1] + (None,) * (x.ndim - 2) + (last,)

seen = set()
for topic in cases.TOPICS:
    for case in importlib.import_module("handgrad.compare.cases." + topic).CASES:
        if case.function in seen:
            continue
        seen.add(case.function)
        args = jax.tree.map(jnp.asarray, case.draw())
        which = tuple(k for k, a in enumerate(args) if a is not None and floats(a) and
                      len(floats(a)) == len(jax.tree.leaves(a)))
        sizes = [x.shape[0] for x in jax.tree.leaves(args) if x.ndim and even(x.shape[0])]
        samples = max(sizes, key=sizes.count, default=None)
        laid = jax.tree.map(lambda x: put(x, *layout(x, samples)), args)
        if not which or all(x.sharding.is_fully_replicated for x in jax.tree.leaves(laid)):
            continue
        f = functools.partial(getattr(m, case.function), **case.config)

        @jax.jit
        def both(*args):
            return f(*args), jax.grad(lambda *a: energy(f(*a)), which)(*args)

        try:
            ours = both(*laid)
        except Exception as error:
            raise AssertionError(case.id) from error
        close(ours, both(*args), case.id)
        for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves([laid[k] for k in which])):
            same = a.sharding.is_equivalent_to(b.sharding, a.ndim)
            assert same, (case.id, a.sharding, b.sharding)
        print(case.function)
"""
)

ONE = (
    START
    + """
x, h, k = put(some(4, 6, 3), "a"), put(some(4, 5), "a"), put(some(2, 3, 4), None, None, "b")
net = put(some(3, 5)), put(some(5, 5)), put(some(5))

# what stands in the leading axes is laid out as in the argument, all else lies everywhere
y = jax.jit(m.conv)(x, k)
assert spec_of(y) == ("a", None, None), spec_of(y)
assert spec_of(jax.jit(m.rnn)(x, h, *net)) == ("a", None, None)
assert spec_of(jax.jit(m.affine)(x[:, 0], k[0], None)) == ("a", "b")  # JAX's own, where it has one

# outside of jit, on a part of the arrays, and twice differentiated
close(m.conv(x, k), y, "eager")
close(jax.jit(m.rnn)(x, h, *map(np.asarray, net)), m.rnn(*map(np.asarray, (x, h, *net))), "part")

def gradient(x, h, *net):
    return jax.grad(lambda *a: energy(m.rnn(*a)), tuple(range(5)))(x, h, *net)

def alone(*args):
    return [*map(np.asarray, args)]

again = jax.grad(lambda *a: energy(gradient(*a)), (0, 1, 2))
for f in (gradient, again, jax.checkpoint(gradient)):
    close(jax.jit(f)(x, h, *net), f(*alone(x, h, *net)), "gradient")
turned = jax.vmap(gradient, (1,) + (None,) * 4, 1)
twice = jnp.stack([x, x], 1)
close(jax.jit(turned)(twice, h, *net)[0][:, 0], gradient(*alone(x, h, *net))[0], "vmap")

# split by samples, each device multiplies its own: the weights' cotangents are added up at the end
gates = put(some(3, 20)), put(some(5, 20)), put(some(20))
for name, f, args in (
    ("rnn", m.rnn, (x, h, *net)),
    ("lstm", lambda x, h, *w: m.lstm(x, h, h, *w, None), (x, h, *gates)),
    ("recurrence", lambda x, h, *w: m.recurrence(x, (h,), w, cell="gru"), (x, h, *jax.tree.map(
        lambda g: put(g[..., :15]), gates))),
    ("conv", m.conv, (x, put(some(2, 3, 4)))),
):
    every = tuple(range(len(args)))
    program = jax.jit(jax.grad(lambda *a: energy(f(*a)), every)).lower(*args).compile().as_text()
    assert "all-reduce" in program and "all-gather" not in program, name

# known labels, and what is wrong with them, here as elsewhere
rows, w, b = put(some(4, 3), "a"), put(some(3, 6)), put(some(6))
fused = m.linear_softmax_cross_entropy
labels = np.array([0, 5, 2, 2])
for given in (labels, put(labels, "a")):
    close(fused(rows, w, b, given), fused(*alone(rows, w, b), labels), "labels")
for wrong, said in ((labels + 1, "labels[1] is 6"), (labels[:3], "labels")):
    for given in (wrong, put(wrong)):
        for call in (fused, jax.jit(lambda *a: fused(*a[:3], given))):
            try:
                call(rows, w, b, given)
            except ValueError as error:
                assert said in str(error), error
            else:
                raise AssertionError((said, given, call))

# all by hand, and a descent of it
t, first = put(some(4, 2), "a"), (put(some(3, 4), None, "b"), put(some(4), "b"))
params = [first, (put(some(4, 2), "b"), put(some(2)))]
by_hand = jax.jit(m.mlp_loss.value_and_gradient)
close(by_hand(params, rows, t), by_hand(*jax.tree.map(np.asarray, (params, rows, t))), "by hand")

def descended(params, *data):
    batches = jnp.array([[0, 1], [3, 2], [1, 1]])
    return descent.descend(m.mlp_loss, optimizers.adam(0.1), params, data, batches)

ours = jax.jit(descended)(params, rows, t)
close(ours, descended(*jax.tree.map(np.asarray, (params, rows, t))), "descend")
laid = [*map(spec_of, jax.tree.leaves(params))]
assert [*map(spec_of, jax.tree.leaves(ours[0]))] == laid

for make in (optimizers.adam, optimizers.adafactor, optimizers.lamb, optimizers.muon):
    optimizer = make(0.1)

    def stepped(params):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return optimizers.apply_updates(params, updates)

    ours = jax.jit(stepped)(params)
    close(ours, jax.jit(stepped)(jax.tree.map(np.asarray, params)), make.__name__)
    assert [*map(spec_of, jax.tree.leaves(ours))] == laid, make.__name__
"""
)

LAYOUTS = ["samples_alone", "features_too"]


def run(script):
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_operation_runs_and_its_gradients_lie_where_its_arguments_do(layout):
    script = EVERY.replace("seen = set()", f"layout, seen = {layout}, set()")
    assert len(run(script)) >= 40


def test_where_the_results_lie():
    run(ONE)
