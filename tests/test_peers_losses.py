"""The catalogue's losses against PyTorch's autograd."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, normal  # noqa: E402

F = torch.nn.functional
X, Y, Z = (normal(4, 5, seed=k, scale=2.0) for k in range(3))
SIGNS = np.sign(Y)
LABELS = np.array([1, 0, 4, 2])


def no_reduction(f, **options):
    return lambda *args: f(*args, reduction="none", **options)


def summed(f, **options):
    return lambda *args: f(*args, reduction="none", **options).sum(-1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (manual.mae, F.l1_loss),
        (functools.partial(manual.huber, delta=0.5), summed(F.huber_loss, delta=0.5)),
        (functools.partial(manual.smooth_l1, beta=0.5), summed(F.smooth_l1_loss, beta=0.5)),
        (manual.log_cosh, lambda x, y: torch.log(torch.cosh(x - y)).sum(-1)),
        (manual.cosine_similarity_loss, lambda x, y: 1 - F.cosine_similarity(x, y, eps=0)),
        (
            manual.kl_divergence_with_logits,
            lambda p, q: summed(F.kl_div)(F.log_softmax(q, -1), F.softmax(p, -1)),
        ),
        (
            manual.gaussian_kl,
            lambda m, v: torch.distributions.kl_divergence(
                torch.distributions.Normal(m, torch.exp(v / 2)), torch.distributions.Normal(0, 1)
            ).sum(-1),
        ),
    ],
)
def test_of_two_arguments(ours, theirs):
    agree(ours, theirs, X, Y)


@pytest.mark.parametrize("weight", [2.5, np.array([0.2, 1.0, 3.0, 0.0, 7.5])], ids=["one", "each"])
def test_binary_cross_entropy_with_a_weight_of_positives(weight):
    theirs = no_reduction(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(weight))
    ours = functools.partial(manual.binary_cross_entropy_with_logits, pos_weight=weight)
    agree(ours, theirs, X, np.abs(np.sin(Y)))


def test_hinges():
    agree(manual.hinge, lambda s, c: torch.relu(1 - c * s), X, SIGNS)
    agree(manual.squared_hinge, lambda s, c: torch.relu(1 - c * s) ** 2, X, SIGNS)


def test_multiclass_hinge():
    """PyTorch divides by the number of classes."""
    labels = np.arange(len(X)) % X.shape[-1]

    def theirs(s, c):
        return s.shape[-1] * no_reduction(F.multi_margin_loss, margin=0.7)(s, c)

    agree(functools.partial(manual.multiclass_hinge, margin=0.7), theirs, X, labels)


def test_kl_divergence_of_probabilities():
    p, q = (np.exp(a) / np.exp(a).sum(-1, keepdims=True) for a in (X, Y))
    agree(manual.kl_divergence, lambda p, q: summed(F.kl_div)(torch.log(q), p), p, q)


def test_triplet_margin():
    theirs = no_reduction(F.triplet_margin_loss, margin=2.0, eps=0)
    agree(functools.partial(manual.triplet_margin, margin=2.0), theirs, X, Y, Z)


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce(symmetric):
    def theirs(q, k):
        s, own = q @ k.T / 0.7, torch.arange(len(q))
        there = no_reduction(F.cross_entropy)(s, own)
        return (there + no_reduction(F.cross_entropy)(s.T, own)) / 2 if symmetric else there

    agree(functools.partial(manual.info_nce, temperature=0.7, symmetric=symmetric), theirs, X, Y)


def test_label_smoothing():
    theirs = no_reduction(F.cross_entropy, label_smoothing=0.3)
    ours = functools.partial(manual.label_smoothing_cross_entropy, smoothing=0.3)
    agree(ours, theirs, X, LABELS)


@pytest.mark.parametrize("ignored", [[1], [0, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_ignored_labels(smoothing, ignored):
    """As the module of losses has it, and by a mask; of none a mean of NaN, which is flat."""
    labels = np.where(np.isin(np.arange(4), ignored), -100, LABELS)
    loss = manual.softmax_cross_entropy_with_integer_labels
    if smoothing:
        loss = functools.partial(manual.label_smoothing_cross_entropy, smoothing=smoothing)

    def theirs(reduction):
        return functools.partial(F.cross_entropy, label_smoothing=smoothing, reduction=reduction)

    agree(lambda x, c: loss(x, c).mean(where=c != -100), theirs("mean"), X, labels)
    agree(lambda x, c: jnp.where(c >= 0, loss(x, c), 0).sum(), theirs("sum"), X, labels)
    agree(lambda x, c: jnp.where(c >= 0, loss(x, c), 0), theirs("none"), X, labels)


def test_focal_loss():
    def theirs(x, labels):
        c = labels.to(x.dtype)
        p = torch.sigmoid(x)
        right = p * c + (1 - p) * (1 - c)
        entropy = no_reduction(F.binary_cross_entropy_with_logits)(x, c)
        return (0.25 * c + 0.75 * (1 - c)) * (1 - right) ** 2 * entropy

    ours = functools.partial(manual.focal_loss_with_logits, alpha=0.25)
    agree(ours, theirs, X, (Y > 0).astype(np.int64))


def test_gaussian_nll_and_reparametrisation():
    def theirs(mean, log_var, targets):
        return summed(F.gaussian_nll_loss, full=True, eps=0)(mean, targets, torch.exp(log_var))

    agree(manual.gaussian_nll, theirs, X, Y, Z)
    agree(manual.reparametrize, lambda m, v, e: m + torch.exp(v / 2) * e, X, Y, Z)


def test_elbo():
    def theirs(x, t, m, v):
        entropy = summed(F.binary_cross_entropy_with_logits)(x, t)
        code = torch.distributions.Normal(m, torch.exp(v / 2))
        prior = torch.distributions.Normal(0, 1)
        return -entropy - 3 * torch.distributions.kl_divergence(code, prior).sum(-1)

    ours = functools.partial(manual.elbo, beta=3.0)
    agree(ours, theirs, X, 1 / (1 + np.exp(-Y)), normal(4, 2), normal(4, 2, seed=1))
