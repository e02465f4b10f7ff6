"""Figures in the references of other libraries, to their last place, by `manual`."""

import jax
import jax.numpy as jnp
import pytest
from published import agree, backward, image, slope

from handgrad import manual
from handgrad.manual import graph, optimizers
from handgrad.manual.graph import Node


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# --- Keras ----------------------------------------------------------------------------------------


def test_keras_losses():
    """The figures of `keras.losses`, each a mean of two samples, of two outputs or of three."""
    t, y = jnp.array([[0.0, 1], [0, 0]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])
    agree(manual.binary_cross_entropy(y, t).mean(1), "0.916 0.714")
    agree(manual.huber(y, t).mean() / 2, "0.155")
    t, y = jnp.array([[0.0, 1], [0, 0]]), jnp.array([[1.0, 1], [1, 0]])
    agree(manual.mse(y, t), "0.5")
    agree(manual.mae(y, t), "0.5")
    t, y = jnp.array([[0.0, 1], [0, 0]]), jnp.array([[1.0, 1], [0, 0]])
    agree(manual.log_cosh(y, t).mean() / 2, "0.108")
    t, y = jnp.array([[-1.0, 1], [-1, -1]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])
    agree(manual.hinge(y, t).mean(), "1.3")
    agree(manual.squared_hinge(y, t).mean(), "1.86")
    logits, t = jnp.array([-18.6, 0.51, 2.94, -12.8]), jnp.array([0.0, 1, 0, 0])
    agree(manual.binary_cross_entropy_with_logits(logits, t).mean(), "0.865")
    t, y = jnp.eye(3)[1:], jnp.array([[0.05, 0.95, 0], [0.1, 0.8, 0.1]])
    agree(manual.categorical_cross_entropy(y, t).mean(), "1.177")
    t, y = jnp.array([[0.0, 1], [1, 1]]), jnp.array([[1.0, 0], [1, 1]])
    agree(manual.cosine_similarity_loss(y, t).mean() - 1, "-0.5")


def test_keras_activations():
    """The places that its float32 got right."""
    x = jnp.array([-3.0, -1, 0, 1, 3])
    agree(manual.gelu(x, approximate=False), "-0.00405 -0.158655 0 0.841345 2.99595")
    agree(manual.gelu(x), "-0.003637 -0.158808 0 0.841192 2.996363")
    x = jnp.array([-20.0, -1, 0, 1, 20])
    agree(manual.softplus(x), "2.06115e-09 0.313262 0.693147 1.31326 20.0")
    agree(manual.sigmoid(x), "2.06115e-09 0.268941 0.5 0.731059 1.0")
    agree(manual.softsign(jnp.array([-1.0, 0, 1])), "-0.5 0 0.5")


def test_keras_ops():
    """`keras.ops`, to the places that its float32 got right."""
    x = jnp.array([-1.0, 0, 1])
    agree(manual.softplus(jnp.array([-0.555, 0.0, 0.555])), "0.453666 0.693147 1.008666")
    agree(
        manual.softsign(jnp.array([-0.1, -10.0, 1.0, 0.0, 100.0])),
        "-0.09090909 -0.9090909 0.5 0.0 0.990099",
    )
    agree(manual.soft_threshold(x, threshold=0.5), "-0.5 0 0.5")
    z = jnp.array([-6.0, 1.0, 0.0, 1.0, 6.0])
    agree(manual.sigmoid(z), "0.00247262 0.7310586 0.5 0.7310586 0.9975274")
    agree(manual.silu(z), "-0.0148357 0.7310586 0.0 0.7310586 5.985164")
    agree(manual.squareplus(x), "0.6180 1.0000 1.6180")
    agree(
        manual.log_sigmoid(jnp.array([-0.541391, 0.0, 0.5, 5.0])),
        "-1.000042 -0.693147 -0.474077 -0.006715",
    )
    agree(manual.leaky_relu(x, negative_slope=0.2), "-0.2 0 1")
    z = jnp.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    agree(manual.hard_swish(z), "-0.0 -0.3333333 0.0 0.6666667 3.0")
    agree(manual.elu(x), "-0.63212056 0 1")
    agree(manual.selu(x), "-1.11133 0 1.050701")
    agree(manual.gelu(x, approximate=False), "-0.15865525 0 0.84134475")  # there by default
    agree(manual.celu(x), "-0.63212056 0 1")
    agree(manual.glu(jnp.array([-1.0, 0, 1, 1])), "-0.73105858 0")
    agree(manual.hard_tanh(jnp.array([-2.0, -1, 0, 1, 2])), "-1 -1 0 1 1")
    agree(manual.softmax(x), "0.09003057 0.24472847 0.66524096")
    agree(manual.log_softmax(x), "-2.40760596 -1.40760596 -0.40760596")


def test_keras_layers():
    """`keras.layers`."""
    x = jnp.arange(6.0).reshape(2, 3)
    agree(manual.l2_normalize(x), "0 0.4472136 0.8944272 0.42426407 0.56568542 0.70710678")
    agree(manual.softmax(jnp.array([1.0, 2, 1])), "0.21194156 0.57611688 0.21194156")
    x = jnp.array([-3.0, -1, 0, 2])
    agree(manual.leaky_relu(x, negative_slope=0.3), "-0.9 -0.3 0 2")
    agree(manual.relu(x), "0 0 0 2")
    x = jnp.arange(1.0, 6).reshape(1, 5, 1)
    for options, largest, mean in (
        ({"stride": 1}, "2 3 4 5", "1.5 2.5 3.5 4.5"),
        ({"stride": 2}, "2 4", "1.5 3.5"),
        ({"stride": 1, "padding": ((0, 1),)}, "2 3 4 5 5", "1.5 2.5 3.5 4.5 5.0"),
    ):
        agree(manual.max_pool(x, window=2, **options), largest)
        agree(manual.average_pool(x, window=2, count_include_pad=False, **options), mean)
    x, same = image([1, 2, 3], [4, 5, 6], [7, 8, 9]), {"stride": 1, "padding": ((0, 1), (0, 1))}
    agree(manual.max_pool(x, window=2, stride=1), "5 6 8 9")
    agree(manual.max_pool(x, window=2, **same), "5 6 6 8 9 9 8 9 9")
    agree(manual.average_pool(x, window=2, stride=1), "3.0 4.0 6.0 7.0")
    agree(
        manual.average_pool(x, window=2, count_include_pad=False, **same),
        "3.0 4.0 4.5 6.0 7.0 7.5 7.5 8.5 9.0",
    )
    y = manual.layer_norm(10 * jnp.arange(10.0).reshape(5, 2), jnp.ones(2), jnp.zeros(2), eps=1e-3)
    agree(y, "-1.0 1.0 " * 5)


def test_keras_focal_losses():
    """`keras.losses`: α = 0.25 where the classes are balanced."""
    x, t = jnp.array([[-18.6, 0.51], [2.94, -12.8]]), jnp.array([[0, 1], [0, 0]])
    for gamma, total, plain, balanced in (
        (2, jnp.mean, "0.691", "0.51"),
        (3, jnp.mean, "0.647", "0.482"),
        (4, lambda loss: loss.sum() / 2, "1.222", "0.914"),
        (5, lambda loss: loss.mean(1), "0.0017 1.1561", "0.0004 0.867"),
    ):
        agree(total(manual.focal_loss_with_logits(x, t, gamma=gamma)), plain)
        agree(total(manual.focal_loss_with_logits(x, t, gamma=gamma, alpha=0.25)), balanced)


def test_keras_divergence():
    """`keras.losses.KLDivergence`, which keeps zeros off by 1e-7."""
    t, y = jnp.array([[0.0, 1], [0, 0]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])
    t = jnp.maximum(t, 1e-7)
    losses = manual.kl_divergence(t, y)
    agree(losses.mean(), "0.458")
    agree(losses[0], "0.916")
    agree(losses[1], "-3.08e-06")


@pytest.mark.parametrize(
    ("optimizer", "first", "last"),
    [
        (
            optimizers.nadam(0.5, 0.5, 0.67, 1e-5, momentum_decay=1.0),
            "0.4281 -0.1738 -0.7115 -1.2335 -1.7492",
            "0.4281 -0.1717 -0.7084 -1.2299 -1.7454",
        ),
        (
            optimizers.adamax(0.2, 0.85, 0.95, 1e-6),
            "0.8 0.6827 0.5333 0.368 0.1933",
            "0.8 0.691 0.5466 0.3848 0.2126",
        ),
        (
            optimizers.adafactor(
                optimizers.relative_step_schedule(0.5),  # though it is asked for a constant one
                decay_rate=0.65,
                clipping_threshold=0.9,
                eps=1e-15,
            ),
            "0.55 0.3031 0.1671 0.0923 0.0554",
            "0.55 0.3024 0.1663 0.0914 0.0545",
        ),
        (
            optimizers.rmsprop(1e-3, 0.9, 1e-7, centered=True),
            *["0.9967 0.9933 0.9908 0.9885 0.9864"] * 2,
        ),
        (optimizers.adadelta(1.0, 0.8, 1e-6), *["0.9978 0.9947 0.9915 0.9882 0.9849"] * 2),
        # of these two, one row for all ten is printed, which is the last number's
        (optimizers.adam(1e-3, eps=1e-7), None, "0.999 0.9982 0.9974 0.9965 0.9955"),
        (optimizers.amsgrad(1e-3, eps=1e-7), None, "0.999 0.9982 0.9974 0.9965 0.9955"),
        (optimizers.lion(1e-3, 0.9, 0.99, 0.0), *["0.999 0.998 0.997 0.996 0.995"] * 2),
    ],
    ids="nadam adamax adafactor rmsprop adadelta adam amsgrad lion".split(),
)
def test_keras_optimizers(optimizer, first, last):
    """What its own tests hold `keras.optimizers` to: five steps of ten numbers, 1 at the start."""
    x, found = jnp.ones(10), []
    state = optimizer.init(x)
    for step in range(5):
        gradient = jnp.arange(1, 11) / 10 if step else jnp.full(10, 0.01)
        updates, state = optimizer.update(gradient, state, x)
        x = optimizers.apply_updates(x, updates)
        found.append(x)
    if first is not None:
        agree(jnp.stack(found)[:, 0], first)
    agree(jnp.stack(found)[:, -1], last)


def test_keras_adafactor_and_lamb():
    """One step, of a matrix whose moments are factored, and of a vector."""

    def stepped(optimizer, x, gradient):
        updates, _ = optimizer.update(gradient, optimizer.init(x), x)
        return optimizers.apply_updates(x, updates)

    x, gradient = jnp.array([1.0, 2, 3, 4]), jnp.array([1.0, 6, 7, 2])
    agree(stepped(optimizers.lamb(0.5, eps=1e-7), x, gradient), "-0.3693 0.6306 1.6306 2.6306", 1)
    factored = optimizers.adafactor(0.5, min_dim_size_to_factor=2)
    after = stepped(factored, x.reshape(2, 2), gradient.reshape(2, 2))
    agree(after, "0.7007 -0.0081 1.2492 3.4407")


# --- TensorFlow -----------------------------------------------------------------------------------


def test_tensorflow_nn():
    """`tf.nn`, `tf.math` and `tf.clip_by_*`, to the places that its float32 got right."""
    logits = jnp.array([[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]])
    labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.8, 0.2]])
    agree(manual.softmax_cross_entropy(logits, labels), "0.169846 0.824745")
    logits = jnp.array([[2.0, -5, 0.5, -0.1], [0, 0, 1.9, 1.4], [-100, 100, -100, -100]])
    losses = manual.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 3, 1]))
    agree(losses, "0.297508 1.14483 0")
    logits = jnp.array([1.0, -1, 0, 1, -1, 0, 0])
    labels = jnp.array([0.0, 0, 0, 1, 1, 1, 0.5])
    agree(
        manual.binary_cross_entropy_with_logits(logits, labels),
        "1.313262 0.313262 0.693147 0.313262 1.313262 0.693147 0.693147",
    )
    clipped = manual.clip_by_norm(jnp.array([[1.0, 2, 3, 4, 5]]), max_norm=2.0)
    agree(clipped, "0.269680 0.539360 0.809040 1.078720 1.348400")


# --- SciPy and scikit-learn -----------------------------------------------------------------------


def test_scipy_special():
    x = jnp.array([[1, 0.5, 0.2, 3], [1, -1, 7, 3], [2, 12, 13, 3]])
    agree(
        manual.softmax(x.ravel()),
        """4.48309e-06 2.71913e-06 2.01438e-06 3.31258e-05 4.48309e-06 6.06720e-07 1.80861e-03
        3.31258e-05 1.21863e-05 2.68421e-01 7.29644e-01 3.31258e-05""",
    )
    agree(
        manual.softmax(x, axis=0),
        """2.11942e-01 1.01300e-05 2.75394e-06 3.33333e-01 2.11942e-01 2.26030e-06 2.47262e-03
        3.33333e-01 5.76117e-01 9.99988e-01 9.97525e-01 3.33333e-01""",
    )
    agree(
        manual.softmax(x, axis=1),
        """1.05877e-01 6.42177e-02 4.75736e-02 7.82332e-01 2.42746e-03 3.28521e-04 9.79307e-01
        1.79366e-02 1.22094e-05 2.68929e-01 7.31025e-01 3.31885e-05""",
    )
    agree(manual.log_softmax(jnp.array([1000.0, 1.0])), "0 -999")
    agree(manual.log_sum_exp(jnp.arange(10.0)), "9.4586297444267")
    excluded = jnp.array([jnp.log(2.0), -jnp.inf, jnp.log(3.0)])
    agree(manual.log_sum_exp(excluded), "1.6094379124341")
    agree(
        manual.sigmoid(jnp.array([-jnp.inf, -1.5, 0, 1.5, jnp.inf])),
        "0 0.18242552 0.5 0.81757448 1",
    )
    agree(
        manual.log_sigmoid(jnp.array([-3.0, 0.25, 2.5, 5.0, -100, -500, -1000])),
        "-3.04858735 -0.57593942 -0.07888973 -0.00671535 -100 -500 -1000",
    )
    agree(
        manual.log_sigmoid(jnp.array([29.0, 120, 400])),
        "-2.54366565e-013 -7.66764807e-053 -1.91516960e-174",
    )
    agree(manual.softplus(jnp.array([-1.0, 0, 1])), "0.31326169 0.69314718 1.31326169")
    for delta, printed in (
        (1, "0.5 2 7.5 9.5"),
        (5, "0.5 3.125 27.5 37.5"),
        (9, "0.5 3.125 32 49.5"),
    ):
        r = jnp.array([[1.0], [2.5], [8.0], [10.0]])
        agree(manual.huber(r, jnp.zeros_like(r), delta=float(delta)), printed)


def test_scipy_entropy():
    """In bits, of a fair coin and of one that is not."""
    p, q = jnp.array([0.5, 0.5]), jnp.array([0.9, 0.1])
    agree(manual.kl_divergence(p, q) / jnp.log(2.0), "0.736965594166206")
    agree(manual.categorical_cross_entropy(q, p) / jnp.log(2.0), "1.73696559416621")
    agree(manual.categorical_cross_entropy(q, q) / jnp.log(2.0), "0.468995593589281")


def test_scikit_learn():
    p = jnp.array([[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]])
    agree(
        manual.categorical_cross_entropy(p, jnp.eye(2)[jnp.array([1, 0, 0, 1])]).mean(), "0.21616"
    )
    scores = jnp.array([-2.18, 2.36, 0.09])
    agree(manual.hinge(scores, jnp.array([-1.0, 1, 1])).mean(), "0.30")
    t, y = jnp.array([3, -0.5, 2, 7]), jnp.array([2.5, 0.0, 2, 8])
    agree(jnp.array([manual.mse(y, t), manual.mae(y, t)]), "0.375 0.5")
    t, y = jnp.array([[0.5, 1], [-1, 1], [7, -6]]), jnp.array([[0.0, 2], [-1, 2], [8, -5]])
    agree(jnp.array([manual.mse(y, t), manual.mae(y, t)]), "0.708 0.75")
    x = jnp.array([[-2.0, 1, 2], [-1, 0, 1]])
    agree(manual.l2_normalize(x), "-0.67 0.33 0.67 -0.71 0 0.71")


# --- Optax ----------------------------------------------------------------------------------------


def test_optax_losses():
    """`optax.losses`: values, and the gradient of the softmax that ranks."""
    logits = jnp.array([[1.2, -0.8, -0.5], [0.9, -1.2, 1.1]])
    labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    agree(manual.softmax_cross_entropy(logits, labels), "0.2761 2.9518")
    logits = jnp.arange(24.0).reshape(1, 2, 12)
    losses = manual.softmax_cross_entropy_with_integer_labels(logits, jnp.array([[5, 11]]))
    agree(losses, "6.4587 0.4587")
    anchors, positives = jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.array([[0.1, 0.1], [1.1, 1.1]])
    negatives = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    agree(manual.triplet_margin(anchors, positives, negatives), "0.1414 0.1414")
    scores, labels = jnp.array([2.0, 1.0, 3.0]), jnp.array([1.0, 0.0, 0.0])
    loss, (ds, _) = backward(manual.softmax_cross_entropy, jnp.ones(()), scores, labels)
    agree(loss, "1.408")
    agree(ds, "-0.755 0.09 0.665")
    scores = jnp.array([[2.0, 1.0, -jnp.inf], [1.0, 0.5, 1.5]])  # −∞ where a mask excludes
    labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    hard = manual.softmax_cross_entropy_with_integer_labels(scores, labels.argmax(1))
    agree(hard.mean(), "0.497")


@pytest.mark.parametrize(
    ("name", "rate", "printed"),
    [
        ("sgd", 0.003, "1.38e+01 1.37e+01 1.35e+01 1.33e+01 1.32e+01"),
        ("adagrad", 1.0, "5.01e+00 2.40e+00 1.25e+00 6.86e-01 3.85e-01"),
        ("adadelta", 10.0, "1.36e+01 1.32e+01 1.29e+01 1.25e+01 1.21e+01"),
        ("rmsprop", 0.003, "1.39e+01 1.38e+01 1.37e+01 1.37e+01 1.36e+01"),
        ("adam", 0.003, "1.40e+01 1.39e+01 1.39e+01 1.39e+01 1.38e+01"),
        ("adamw", 0.003, "1.40e+01 1.39e+01 1.39e+01 1.39e+01 1.38e+01"),
        ("adamax", 0.003, "1.40e+01 1.39e+01 1.39e+01 1.39e+01 1.38e+01"),
        ("amsgrad", 0.003, "1.40e+01 1.39e+01 1.39e+01 1.39e+01 1.38e+01"),
        ("nadam", 0.003, "1.39e+01 1.39e+01 1.39e+01 1.38e+01 1.38e+01"),
        ("radam", 0.003, "1.38e+01 1.37e+01 1.35e+01 1.33e+01 1.32e+01"),
        ("lion", 0.003, "1.40e+01 1.39e+01 1.39e+01 1.39e+01 1.38e+01"),
        ("lamb", 0.003, "1.39e+01 1.38e+01 1.38e+01 1.37e+01 1.36e+01"),
        ("adafactor", 0.003, "1.39e+01 1.38e+01 1.38e+01 1.37e+01 1.36e+01"),
    ],
)
def test_optax_optimizers(name, rate, printed):
    """Σ x² of five steps from (1, 2, 3), which each of its docstrings prints."""
    optimizer, x = getattr(optimizers, name)(rate), jnp.array([1.0, 2.0, 3.0])
    state, squares = optimizer.init(x), []
    for _ in range(5):
        _, (dx, _) = backward(manual.total_squared_error, 1.0, x, jnp.zeros(3))
        updates, state = optimizer.update(dx, state, x)
        x = optimizers.apply_updates(x, updates)
        squares.append(manual.total_squared_error(x, jnp.zeros(3)))
    agree(jnp.stack(squares), printed)


def test_optax_schedule():
    schedule = optimizers.step_schedule(1.0, {100: 0.1, 200: 0.01})
    agree(jnp.array([schedule(step) for step in (50, 150, 250)]), "1.0 0.1 0.001")


# --- PyTorch and JAX ------------------------------------------------------------------------------


def test_pytorch_examples():
    """Of `MaxUnpool2d`, which is max_pool's pullback of its own output; and of `AvgPool1d`."""
    x = jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    y, kept = manual.max_pool.forward(x, window=2)
    (dx,) = manual.max_pool.pullback(kept, y, window=2)
    agree(dx, "0 0 0 0 0 6 0 8 0 0 0 0 0 14 0 16")
    x = jnp.arange(1.0, 8).reshape(1, 7, 1)
    agree(manual.average_pool(x, window=3, stride=2), "2 4 6")


def test_pytorch_autograd_tutorials():
    """3 (x + 2)² in the mean of four ones; and 3 a³ − b², of (2, 3) and (6, 4)."""
    x = Node(jnp.ones((2, 2)))
    y = graph.mean(3 * (x + 2) ** 2)
    agree(y.value, "27")
    agree(graph.gradients(y, x)[0], "4.5000 4.5000 4.5000 4.5000")
    a, b = Node(jnp.array([2.0, 3.0])), Node(jnp.array([6.0, 4.0]))
    da, db = graph.gradients(graph.total(3 * a**3 - b**2), a, b)
    agree(jnp.stack([da, db]), "36 81 -12 -8")


def test_jax_quickstart():
    agree(slope(manual.tanh, 2.0), "0.0706508")
    agree(slope(manual.sigmoid, 0.0, 1.0, 2.0), "0.25 0.1966119 0.1049936")
