"""The catalogue's activations against PyTorch's autograd."""

import functools

import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, normal  # noqa: E402

F = torch.nn.functional
X = normal(4, 6, scale=3.0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (manual.relu6, F.relu6),
        (manual.hard_tanh, F.hardtanh),
        # F.hardsigmoid itself multiplies float64 by a float32 sixth
        (manual.hard_sigmoid, lambda x: F.relu6(x + 3) / 6),
        (manual.hard_swish, F.hardswish),
        (manual.mish, F.mish),
        (manual.softsign, F.softsign),
        (manual.squareplus, lambda x: (x + torch.sqrt(x * x + 4)) / 2),
        (functools.partial(manual.celu, alpha=1.5), lambda x: F.celu(x, alpha=1.5)),
        (manual.glu, F.glu),
        (functools.partial(manual.glu, axis=0), lambda x: F.glu(x, dim=0)),
        (manual.log_sum_exp, lambda x: torch.logsumexp(x, -1)),
    ],
)
def test_of_one_argument(ours, theirs):
    agree(ours, theirs, X)


def test_prelu():
    agree(manual.prelu, F.prelu, X, normal(6))


@pytest.mark.parametrize("approximate", [True, False])
def test_gated(approximate):
    agree(manual.swiglu, lambda g, v: F.silu(g) * v, X, normal(4, 6, seed=1))
    agree(
        functools.partial(manual.geglu, approximate=approximate),
        lambda g, v: F.gelu(g, approximate="tanh" if approximate else "none") * v,
        X,
        normal(4, 6, seed=1),
    )
