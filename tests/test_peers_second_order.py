"""Second derivatives at kinks and ties, and a NaN among what is pooled, as PyTorch has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")
from handgrad import manual  # noqa: E402

GRID = [0, 2, -2, 6, 1, 6, 6, -1, 0, 0, 0, 3, -6, 2, 2, 5]


def grid_pool(x):
    return manual.max_pool(x.reshape(1, 4, 4, 1), window=3, stride=1, padding=1).ravel()


TORCH = torch.nn.functional
# the second derivative, on a kink too, as PyTorch has it
AS_TORCH = {
    "relu": (lambda x: (manual.relu(x) ** 2).sum(), lambda x: (torch.relu(x) ** 2).sum()),
    "relu6": (lambda x: (manual.relu6(x) ** 3).sum(), lambda x: (TORCH.relu6(x) ** 3).sum()),
    "mae": (
        lambda x: manual.mae(x, 0 * x) ** 2,
        lambda x: TORCH.l1_loss(x, 0 * x) ** 2,
    ),
    "max_pool": (
        lambda x: (grid_pool(x) ** 3).sum(),
        lambda x: (TORCH.max_pool2d(x.reshape(1, 1, 4, 4), 3, 1, 1) ** 3).sum(),
    ),
}


@pytest.mark.parametrize("name", AS_TORCH)
def test_hessians_are_those_of_torch(name):
    ours, theirs = AS_TORCH[name]
    x = np.array(GRID, np.float32)
    expected = torch.autograd.functional.hessian(theirs, torch.tensor(x)).numpy()
    for hessian in (jax.hessian(ours), jax.jacrev(jax.grad(ours))):
        found = np.asarray(hessian(jnp.array(x)))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_array_equal(found, found.T)


def test_a_relu_net_with_dead_units_has_the_hessian_products_of_torch():
    """A sample of zeros and biases of zero: every hidden unit of it stands on the kink."""
    r = np.random.default_rng(0)
    w1, w2 = (r.normal(size=s).astype(np.float32) for s in ((3, 4), (4, 2)))
    b1, b2 = np.zeros(4, np.float32), np.zeros(2, np.float32)
    x, t = (r.normal(size=s).astype(np.float32) for s in ((5, 3), (5, 2)))
    x[0] = 0
    leaves = [torch.tensor(a, requires_grad=True) for a in (w1, b1, w2, b2)]
    y = torch.relu(torch.tensor(x) @ leaves[0] + leaves[1]) @ leaves[2] + leaves[3]
    loss = 0.5 * ((y - torch.tensor(t)) ** 2).sum()
    along = [torch.cos(torch.arange(a.numel())).reshape(a.shape) for a in leaves]
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    slope = sum((g * v).sum() for g, v in zip(first, along, strict=True))
    expected = torch.autograd.grad(slope, leaves)

    params = [(jnp.array(w1), jnp.array(b1)), (jnp.array(w2), jnp.array(b2))]
    tangent = jax.tree.unflatten(jax.tree.structure(params), [jnp.array(v.numpy()) for v in along])
    gradient = jax.grad(lambda p: manual.mlp_loss(p, x, t, activation="relu"))
    found = jax.jvp(gradient, (params,), (tangent,))[1]
    for ours, theirs in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)  # sums of float32


def test_nan_in_a_window_takes_the_gradient():
    x = np.array(GRID, np.float32)
    x[[5, 14]] = np.nan
    ours = np.asarray(jax.grad(lambda x: grid_pool(x).sum())(x))
    values = np.asarray(grid_pool(jnp.array(x)))
    z = torch.tensor(x, requires_grad=True)
    y = TORCH.max_pool2d(z.reshape(1, 1, 4, 4), 3, 1, 1).ravel()
    np.testing.assert_array_equal(values, y.detach().numpy())
    y.sum().backward()
    np.testing.assert_array_equal(ours, z.grad.numpy())
