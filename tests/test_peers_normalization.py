"""Normalisation and clipping against PyTorch's autograd, NHWC here and NCHW there."""

import functools

import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, channels_first, channels_last, normal  # noqa: E402

F = torch.nn.functional
GAMMA, BETA = normal(6, seed=1), normal(6, seed=2)


def test_layer_and_rms():
    x = normal(2, 3, 6)
    agree(manual.layer_norm, lambda x, g, b: F.layer_norm(x, (6,), g, b), x, GAMMA, BETA)
    agree(manual.rms_norm, lambda x, g: F.rms_norm(x, (6,), g, 1e-6), x, GAMMA)


@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 3, 2)])
def test_group_and_instance(space):
    x = normal(2, *space, 6)

    def group(x, g, b):
        return channels_last(F.group_norm(channels_first(x), 3, g, b))

    def instance(x, g, b):
        return channels_last(F.instance_norm(channels_first(x), weight=g, bias=b))

    agree(functools.partial(manual.group_norm, groups=3), group, x, GAMMA, BETA, rtol=1e-10)
    agree(manual.instance_norm, instance, x, GAMMA, BETA, rtol=1e-10)


@pytest.mark.parametrize(("gamma", "beta"), [(None, None), (GAMMA, None), (None, BETA)])
def test_without_scale_or_shift(gamma, beta):
    """Their elementwise_affine=False, affine=False and bias=False."""
    x = normal(2, 3, 4, 6)

    def channels(f, *args, **options):
        def theirs(x, g, b):
            if g is None and b is not None:  # of a shift alone, their group_norm has no gradient
                g = torch.ones_like(b)
            return channels_last(f(channels_first(x), *args, weight=g, bias=b, **options))

        return theirs

    def batch(x, g, b):
        y = channels(F.batch_norm, None, None, training=True)(x, g, b)
        return y, x.mean((0, 1, 2)), x.var((0, 1, 2), correction=0)

    agree(manual.layer_norm, lambda x, g, b: F.layer_norm(x, (6,), g, b), x, gamma, beta)
    group = functools.partial(manual.group_norm, groups=3)
    agree(group, channels(F.group_norm, 3), x, gamma, beta, rtol=1e-10)
    agree(manual.instance_norm, channels(F.instance_norm), x, gamma, beta, rtol=1e-10)
    agree(manual.batch_norm, batch, x, gamma, beta, rtol=1e-10)
    agree(
        lambda x, g, b, m, v: manual.batch_norm_inference(x, g, b, m, v),
        lambda x, g, b, m, v: (x - m) / torch.sqrt(v + 1e-5) * (1 if g is None else g)
        + (0 if b is None else b),
        x, gamma, beta, normal(6, seed=3), normal(6, seed=4) ** 2,
    )  # fmt: skip
    if beta is None:
        agree(manual.rms_norm, lambda x, g: F.rms_norm(x, (6,), g, 1e-6), x, gamma)


def test_weight_and_length():
    agree(
        manual.weight_norm,
        lambda v, g: torch._weight_norm(v, g[None], 1),
        normal(5, 6),
        GAMMA,
    )
    agree(manual.l2_normalize, lambda x: F.normalize(x, dim=-1), normal(3, 6))
    ours = functools.partial(manual.l2_normalize, axis=0, eps=2.0)
    agree(ours, lambda x: F.normalize(x, dim=0, eps=2.0), normal(3, 6))


def test_clipping():
    x, y = normal(3, 5), normal(4)
    by_value = functools.partial(manual.clip_by_value, low=-0.5, high=1.0)
    agree(by_value, lambda x: torch.clamp(x, -0.5, 1.0), x)

    def clipped(*arrays, max_norm):
        norm = torch.sqrt(sum((a * a).sum() for a in arrays))
        return tuple(a * torch.clamp(max_norm / norm, max=1.0) for a in arrays)

    for c in (0.7, 100.0):
        theirs = functools.partial(clipped, max_norm=c)
        agree(functools.partial(manual.clip_by_norm, max_norm=c), theirs, x)
        ours = functools.partial(manual.clip_by_global_norm, max_norm=c)
        agree(lambda x, y, f=ours: tuple(f([x, y])), theirs, x, y)
