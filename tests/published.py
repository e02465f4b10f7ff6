"""The means to compare with what other people print.

The inputs are theirs, mostly numbers evenly spaced or NumPy's legacy generator from a known seed,
in their layout, and turned into ours.
"""

import re

import jax.numpy as jnp
import numpy as np


def agree(found, printed, units=0.51):
    """To half a unit of every number's last place: 0.5 says less than 0.50, and 0 that it is 0.

    units: 1 where the source cuts figures off instead of rounding them.
    """
    numbers = re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?", printed)
    want = np.array([float(n) for n in numbers])
    digits, exponents = zip(*(n.partition("e")[::2] for n in numbers), strict=True)
    places = [
        len(d.partition(".")[2]) - int(e or 0) for d, e in zip(digits, exponents, strict=True)
    ]
    allowed = np.where(want == 0, 1e-12, units * 10.0 ** -np.array(places))
    found = np.ravel(np.asarray(found))
    assert found.shape == want.shape
    off = np.abs(found - want) > allowed
    assert not off.any(), f"{found[off]} where {want[off]} is printed"


def spread(low, high, *shape):
    return jnp.asarray(np.linspace(low, high, num=int(np.prod(shape))).reshape(shape))


def draws(seed, *shapes):
    rng = np.random.RandomState(seed)
    return [jnp.asarray(rng.randn(*shape)) for shape in shapes]


def backward(f, dy, *args, **options):
    """The output, and the cotangents of all arguments by hand."""
    y, residuals = f.forward(*args, **options)
    return y, f.pullback(residuals, dy, **options)


def channels_last(x):
    return jnp.moveaxis(x, 1, -1)


def channels_first(x):
    return jnp.moveaxis(x, -1, 1)


def slope(f, *x, **options):
    return backward(f, jnp.ones(len(x)), jnp.array(x), **options)[1][0]


def image(*rows):
    """A batch of one image of one channel."""
    return jnp.array(rows, float)[None, :, :, None]
