"""Pooling against PyTorch's autograd, NHWC here and NCHW there."""

import functools

import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, channels_first, channels_last, normal  # noqa: E402

F = torch.nn.functional
SHAPES = [(2, 9, 3), (2, 7, 8, 3), (2, 5, 6, 7, 2)]
OPTIONS = [{}, {"stride": 2}, {"stride": 1, "padding": 1}, {"stride": 3, "padding": 1}]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape) - 2}d")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_max_and_average(shape, options):
    x, d = normal(*shape), len(shape) - 2

    def theirs(name, **more):
        f = getattr(F, f"{name}_pool{d}d")
        return lambda x: channels_last(f(channels_first(x), 3, **options, **more))

    agree(functools.partial(manual.max_pool, window=3, **options), theirs("max"), x)
    for include in (True, False):
        ours = functools.partial(
            manual.average_pool, window=3, count_include_pad=include, **options
        )
        agree(ours, theirs("avg", count_include_pad=include), x)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape) - 2}d")
def test_global(shape):
    d = len(shape) - 2
    for ours, name in ((manual.global_max_pool, "max"), (manual.global_average_pool, "avg")):
        f = getattr(F, f"adaptive_{name}_pool{d}d")
        agree(ours, lambda x, f=f: f(channels_first(x), 1).flatten(1), normal(*shape))
