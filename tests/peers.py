"""PyTorch as the peer that is not JAX: the same inputs, its layouts, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")


def channels_first(x):
    """(batch, *space, channels) → (batch, channels, *space); of a tensor or an array alike."""
    return torch.movedim(x, -1, 1)


def channels_last(x):
    """(batch, channels, *space) → (batch, *space, channels)."""
    return torch.movedim(x, 1, -1)


def kernel_first(kernel):
    """(*window, in / groups, out) → (out, in / groups, *window)."""
    return torch.movedim(kernel, (-1, -2), (0, 1))


def transposed(w):
    """(in, out) → (out, in), as torch.nn.functional.linear wants it."""
    return torch.swapaxes(w, -1, -2)


def agree(ours, theirs, *args, rtol=1e-12, seed=0):
    """Value and gradients of both functions at the same float64 arguments and cotangents.

    `theirs` takes tensors in our layout, translates them with the functions above, and gives its
    outputs (one, or a tuple) in our layout. Integer arguments have no gradient; None stays None.
    """
    with jax.enable_x64(True):
        tensors = [None if a is None else torch.tensor(np.asarray(a)) for a in args]
        leaves = [t.requires_grad_() for t in tensors if t is not None and t.is_floating_point()]
        outputs = theirs(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        rng = np.random.default_rng(seed)
        dys = [rng.standard_normal(tuple(y.shape)) for y in outputs]
        leaves_of_y, gradients = _value_and_gradients(ours, args, dys)
        expected = torch.autograd.grad(outputs, leaves, [torch.tensor(d) for d in dys])
    pairs = [*zip(leaves_of_y, outputs, strict=True), *zip(gradients, expected, strict=True)]
    for mine, other in pairs:
        other = other.detach().numpy()
        scale = max(1.0, np.abs(other).max(initial=0))
        np.testing.assert_allclose(np.asarray(mine), other, rtol=rtol, atol=rtol * scale)


def _value_and_gradients(f, args, dys):
    """Compiled as one, which takes less time than its operations one by one."""

    @jax.jit
    def run(args, dys):
        y, vjp = jax.vjp(f, *args)
        gradients = vjp(jax.tree.unflatten(jax.tree.structure(y), dys))
        return jax.tree.leaves(y), [
            g for g in jax.tree.leaves(gradients) if g.dtype != jax.dtypes.float0
        ]

    return run([None if a is None else jnp.asarray(a) for a in args], list(map(jnp.asarray, dys)))


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng([seed, *shape]).standard_normal(shape)
