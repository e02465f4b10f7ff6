"""Figures that books, articles and papers print, to their last place, by `manual`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import agree, backward, channels_first, draws, image, slope

from handgrad import manual
from handgrad.manual import graph
from handgrad.manual.graph import Node


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# --- Kinsley and Kukieła, "Neural networks from scratch" (2020) -----------------------------------


def test_neural_networks_from_scratch():
    agree(manual.softmax(jnp.array([4.8, 1.21, 2.385])), "0.89528266 0.02470831 0.08000903")
    p = jnp.array([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.02, 0.9, 0.08]])
    t = jnp.eye(3)[jnp.array([0, 1, 1])]
    losses = manual.categorical_cross_entropy(p, t)
    agree(losses, "0.35667494 0.69314718 0.10536052")
    agree(losses.mean(), "0.38506088005216804")
    _, (ds, _) = backward(manual.softmax_cross_entropy, jnp.ones(3) / 3, jnp.log(p), t)
    agree(
        ds,
        """-0.1 0.03333333 0.06666667 0.03333333 -0.16666667 0.13333333 0.00666667 -0.03333333
        0.02666667""",
    )


def test_a_layer_of_neural_networks_from_scratch():
    """Chapter 9: a step of −0.001 times the gradient of a layer with a ReLU behind it, of ȳ = y."""
    x = jnp.array([[1.0, 2, 3, 2.5], [2, 5, -1, 2], [-1.5, 2.7, 3.3, -0.8]])
    w = jnp.array([[0.2, 0.8, -0.5, 1], [0.5, -0.91, 0.26, -0.5], [-0.26, -0.27, 0.17, 0.87]]).T
    b = jnp.array([2.0, 3, 0.5])
    dy = jnp.outer(jnp.array([1.0, 2, 3]), jnp.ones(3))
    z, kept = manual.affine.forward(x, w, b)
    dx, dw, db = manual.affine.pullback(kept, dy)
    agree(
        dx,
        "0.44 -0.38 -0.07 1.37 0.88 -0.76 -0.14 2.74 1.32 -1.14 -0.21 4.11",
    )
    agree(dw[:, 0], "0.5 20.1 10.9 4.1")
    agree(db, "6 6 6")
    y, kept_relu = manual.relu.forward(z)
    _, dw, db = manual.affine.pullback(kept, *manual.relu.pullback(kept_relu, y))
    agree(
        w - 0.001 * dw,
        """0.179515 0.5003665 -0.262746 0.742093 -0.9152577 -0.2758402 -0.510153 0.2529017
        0.1629592 0.971328 -0.5021842 0.8636583""",
    )
    agree(b - 0.001 * db, "1.98489 2.997739 0.497389")


# --- Karpathy, micrograd (2020) -------------------------------------------------------------------


def test_micrograds_expression():
    relu = functools.partial(graph.apply, manual.relu)
    a, b = Node(jnp.asarray(-4.0)), Node(jnp.asarray(2.0))
    c, d = a + b, a * b + b**3
    c = c + (c + 1.0)
    c = c + (1.0 + c + (-a))
    d = d + (d * 2.0 + relu(b + a))
    d = d + (3.0 * d + relu(b - a))
    f = (c - d) ** 2
    g = f / 2.0 + 10.0 / f
    agree(jnp.stack([g.value, *graph.gradients(g, a, b)]), "24.7041 138.8338 645.5773")


def test_micrograds_neuron():
    w, x = jnp.array([[-3.0], [1.0]]), jnp.array([[2.0, 0.0]])
    net = [(w, jnp.array([6.8813735870195432]))]
    y, kept = manual.mlp.forward(net, x, output_activation="tanh")
    ((dw, _),), dx = manual.mlp.pullback(kept, jnp.ones((1, 1)), output_activation="tanh")
    agree(y, "0.7071")
    agree(jnp.concatenate([dw[:, 0], dx[0]]), "1.0000 0 -1.5000 0.5000")


# --- nets of a few lines, worked through ----------------------------------------------------------


def test_mazurs_step_of_backpropagation():
    """Matt Mazur, "A step by step backpropagation example" (2015)."""
    x, t = jnp.array([[0.05, 0.10]]), jnp.array([[0.01, 0.99]])
    layers = [
        (jnp.array([[0.15, 0.25], [0.20, 0.30]]), jnp.full(2, 0.35)),
        (jnp.array([[0.40, 0.50], [0.45, 0.55]]), jnp.full(2, 0.60)),
    ]
    net = {"activation": "sigmoid", "output_activation": "sigmoid"}

    def cost(layers):
        return manual.mlp_loss(layers, x, t, loss="half_squared_error", **net)

    agree(manual.mlp(layers, x, **net), "0.75136507 0.772928465")
    agree(cost(layers), "0.298371109")

    def stepped(layers):
        """By a rate of ½; the biases he leaves as they are."""
        _, (gradient, *_) = manual.mlp_loss.value_and_gradient(
            layers, x, t, loss="half_squared_error", **net
        )
        return [(w - 0.5 * dw, b) for (w, b), (dw, _) in zip(layers, gradient, strict=True)]

    (w, _), (v, _) = after = stepped(layers)
    agree(w.T, "0.149780716 0.19956143 0.24975114 0.29950229")
    agree(v.T, "0.35891648 0.408666186 0.511301270 0.561370121")
    # the errors he prints of them, 0.291027924 and after 10,000 steps 0.0000351085, are not theirs
    agree(cost(after), "0.291027774")


def test_gomezs_lstm():
    """Aidan Gomez, "Backpropogating an LSTM: a numerical example" (2016)."""
    x, t = jnp.array([[[1.0, 2.0], [0.5, 3.0]]]), jnp.array([[[0.5], [1.25]]])
    a, i, f, o = (
        jnp.array(w)
        for w in (
            [0.45, 0.25, 0.15, 0.20],
            [0.95, 0.80, 0.80, 0.65],
            [0.70, 0.45, 0.10, 0.15],
            [0.60, 0.40, 0.25, 0.10],
        )
    )
    weights = jnp.stack([i, f, a, o], 1)
    zero = jnp.zeros((1, 1))
    args = x, zero, zero, weights[:2], weights[2:3], weights[3], None
    (h, c), kept = manual.lstm.forward(*args)
    agree(h, "0.53631 0.77198", 1)
    agree(c, "0.78572 1.5176", 1)
    _, (dh, _) = backward(manual.half_squared_error, jnp.ones((1, 2)), h, t)
    dx, _, _, dwx, dwh, db, _ = manual.lstm.pullback(kept, (dh, jnp.zeros_like(c)))
    agree(dh, "0.0363 -0.4780")  # of outputs cut off after five places
    agree(dx, "-0.00817 -0.00487 -0.04743 -0.03073", 1)
    after = weights - 0.1 * jnp.concatenate([dwx, dwh, db[None]])
    agree(
        after.T,
        """0.95022 0.80067 0.80006 0.65028 0.70031 0.45189 0.10034 0.15063
        0.45267 0.25922 0.15104 0.20364 0.60259 0.41626 0.25297 0.10536""",
        1,
    )


def test_the_exclusive_or_of_goodfellow():
    """Goodfellow, Bengio and Courville, "Deep learning" (2016), section 6.1: the net as it is."""
    layers = [
        (jnp.ones((2, 2)), jnp.array([0.0, -1])),
        (jnp.array([[1.0], [-2]]), jnp.array([0.0])),
    ]
    corners = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert manual.mlp(layers, corners, activation="relu")[:, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("w", "first", "last"), [(0.6, "0.82", "0.09"), (2.0, "0.98", "0.20")])
def test_nielsens_slow_neuron(w, first, last):
    """Nielsen, "Neural networks and deep learning" (2015), ch. 3: 300 steps of rate 0.15."""
    x, t = jnp.ones((1, 1)), jnp.zeros((1, 1))
    net = {"output_activation": "sigmoid"}

    def step(_, layers):
        _, (gradient, *_) = manual.mlp_loss.value_and_gradient(layers, x, t, **net)
        return jax.tree.map(lambda p, g: p - 0.15 * g, layers, gradient)

    layers = [(jnp.full((1, 1), w), jnp.array([0.9 if w < 1 else w]))]
    agree(manual.mlp(layers, x, **net), first)
    agree(manual.mlp(jax.lax.fori_loop(0, 300, step, layers), x, **net), last)


def test_trasks_nets():
    """Andrew Trask, "A neural network in 11 lines of Python" (2015): steps of rate 1."""
    x = jnp.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    net = {"activation": "sigmoid", "output_activation": "sigmoid"}

    def trained(steps, weights, t):
        def step(_, weights):
            layers = [(w, None) for w in weights]
            _, (gradient, *_) = manual.mlp_loss.value_and_gradient(layers, x, t, **net)
            return [w - dw for w, (dw, _) in zip(weights, gradient, strict=True)]

        return jax.lax.fori_loop(0, steps, step, weights)

    def output(weights):
        return manual.mlp([(w, None) for w in weights], x, **net)

    rng = np.random.RandomState(1)
    weights = [jnp.asarray(2 * rng.random_sample((3, 1)) - 1)]
    t = jnp.array([[0.0], [0], [1], [1]])
    agree(output(trained(9999, weights, t)), "0.00966449 0.00786506 0.99358898 0.99211957")
    rng = np.random.RandomState(1)
    weights = [jnp.asarray(2 * rng.random_sample(shape) - 1) for shape in ((3, 4), (4, 1))]
    t, errors = jnp.array([[0.0], [1], [1], [0]]), []
    for _ in range(6):
        errors.append(manual.mae(output(weights), t))
        weights = trained(10000, weights, t)
    agree(
        jnp.stack(errors),
        """0.496410031903 0.00858452565325 0.00578945986251 0.00462917677677 0.00395876528027
        0.00351012256786""",
    )


def test_brownlees_backpropagation():
    """Brownlee, "How to code a neural network with backpropagation in Python" (2016)."""
    layers = [
        (
            jnp.array([[0.13436424411240122], [0.8474337369372327]]),
            jnp.array([0.763774618976614]),
        ),
        (
            jnp.array([[0.2550690257394217, 0.4494910647887381]]),
            jnp.array([0.49543508709194095, 0.651592972722763]),
        ),
    ]
    x, t = jnp.array([[1.0, 0]]), jnp.array([[0.0, 1]])
    net = {"activation": "sigmoid", "output_activation": "sigmoid"}
    agree(manual.mlp(layers, x, **net), "0.662997012985289 0.725316072527975")
    hidden = jnp.array([[0.7105668883115941]])
    agree(manual.mlp(layers[:1], x, output_activation="sigmoid"), "0.710566888311594")
    # the deltas that he prints are of the opposite sign, and of outputs with other weights
    y = jnp.array([[0.6213859615555266, 0.6573693455986976]])
    _, (dy, _) = backward(manual.half_squared_error, jnp.ones(1), y, t)
    _, (dz,) = backward(manual.sigmoid, dy, jnp.log(y / (1 - y)))
    agree(dz, "0.146190646835828 -0.0771723774346327")
    _, (dh, _, _) = backward(manual.affine, dz, hidden, *layers[1])
    _, (dz,) = backward(manual.sigmoid, dh, jnp.log(hidden / (1 - hidden)))
    agree(dz, "0.00053480480466105")


def test_hmkcodes_step():
    """hmkcode, "Backpropagation step by step" (2019): a net without biases or slopes, rate 0.05."""
    x, t = jnp.array([[2.0, 3.0]]), jnp.array([[1.0]])
    layers = [
        (jnp.array([[0.11, 0.12], [0.21, 0.08]]), None),
        (jnp.array([[0.14], [0.15]]), None),
    ]
    error, (gradient, *_) = manual.mlp_loss.value_and_gradient(layers, x, t, activation="identity")
    agree(manual.mlp(layers, x, activation="identity"), "0.191")
    agree(error, "0.327")
    layers = [(w - 0.05 * dw, None) for (w, _), (dw, _) in zip(layers, gradient, strict=True)]
    (w, _), (v, _) = layers
    agree(w.T, "0.12 0.23 0.13 0.10")
    agree(v, "0.17 0.17")
    agree(manual.mlp(layers, x, activation="identity"), "0.26")


def test_karpathys_circuits():
    """Karpathy, "Hacker's guide to neural networks" (2014): forward, backward and a step."""
    x, y = Node(jnp.asarray(-2.0)), Node(jnp.asarray(3.0))
    f = x * y
    gradient = jnp.stack(graph.gradients(f, x, y))
    agree(jnp.array([f.value, *gradient]), "-6 3 -2")
    agree(jnp.prod(jnp.array([-2.0, 3]) + 0.01 * gradient), "-5.87", 1)
    w, x = jnp.array([[1.0], [2.0]]), jnp.array([[-1.0, 3.0]])
    net = {"output_activation": "sigmoid"}
    layers = [(w, jnp.array([-3.0]))]
    s, kept = manual.mlp.forward(layers, x, **net)
    (((dw, db),), dx) = manual.mlp.pullback(kept, jnp.ones((1, 1)), **net)
    agree(s, "0.8808")
    agree(jnp.concatenate([dw[:, 0], db, dx[0]]), "-0.105 0.315 0.105 0.105 0.210")
    after = manual.mlp([(w + 0.01 * dw, -3 + 0.01 * db)], x + 0.01 * dx, **net)
    agree(after, "0.8825")


def test_britzs_net():
    """Britz, "Implementing a neural network from scratch in Python" (2015): the moons."""
    datasets = pytest.importorskip("sklearn.datasets")
    np.random.seed(0)  # noqa: NPY002
    x, labels = map(jnp.asarray, datasets.make_moons(200, noise=0.20))
    w1, w2 = draws(0, (2, 3), (3, 2))
    layers = [(w1 / 2**0.5, jnp.zeros(3)), (w2 / 3**0.5, jnp.zeros(2))]
    net = {"activation": "tanh", "loss": "softmax_cross_entropy_with_integer_labels"}

    def loss(layers):
        decay = sum(manual.l2_penalty(w, strength=0.01) for w, _ in layers)
        return (manual.mlp_loss(layers, x, labels, **net) + decay) / 200

    def step(_, layers):
        _, (gradient, *_) = manual.mlp_loss.value_and_gradient(layers, x, labels, **net)
        return [
            (w - 0.01 * (dw + 0.01 * w), b - 0.01 * db)
            for (w, b), (dw, db) in zip(layers, gradient, strict=True)
        ]

    layers = step(0, layers)
    agree(loss(layers), "0.432387")
    agree(loss(jax.lax.fori_loop(0, 1000, step, layers)), "0.068947")


def test_raschkas_attention():
    """Raschka, "Build a large language model (from scratch)" (2024), chapter 3."""
    x = jnp.array(
        [
            [0.43, 0.15, 0.89],
            [0.55, 0.87, 0.66],
            [0.57, 0.85, 0.64],
            [0.22, 0.58, 0.33],
            [0.77, 0.25, 0.10],
            [0.05, 0.80, 0.55],
        ]
    )
    weights = manual.attention(x, x, jnp.eye(6), scale=1.0)
    agree(weights[1], "0.1385 0.2379 0.2333 0.1240 0.1082 0.1581")
    agree(
        manual.attention(x, x, x, scale=1.0),
        """0.4421 0.5931 0.5790 0.4419 0.6515 0.5683 0.4431 0.6496 0.5671 0.4304 0.6298 0.5510
        0.4671 0.5910 0.5266 0.4177 0.6503 0.5645""",
    )


def test_softmax_of_bendersky_and_of_wikipedia():
    """Bendersky, "The softmax function and its derivative" (2016); Wikipedia."""
    agree(manual.softmax(jnp.array([1.0, 2, 5])), "0.01714783 0.04661262 0.93623955")
    agree(manual.softmax(jnp.array([1000.0, 2000, 5000])), "0 0 1")
    agree(
        manual.softmax(jnp.array([1.0, 2, 3, 4, 1, 2, 3])),
        "0.02364054 0.06426166 0.1746813 0.474833 0.02364054 0.06426166 0.1746813",
    )


def test_divergence_of_wikipedia_and_of_brownlee():
    """Of a binomial and a uniform distribution; and, in bits and nats, of three colours."""
    p, q = jnp.array([9.0, 12, 4]) / 25, jnp.ones(3) / 3
    agree(jnp.stack([manual.kl_divergence(p, q), manual.kl_divergence(q, p)]), "0.0852996 0.097455")
    p, q = jnp.array([0.10, 0.40, 0.50]), jnp.array([0.80, 0.15, 0.05])
    both = jnp.stack([manual.kl_divergence(p, q), manual.kl_divergence(q, p)])
    agree(both / jnp.log(2.0), "1.927 2.022")
    agree(both, "1.336 1.401")
    agree(manual.categorical_cross_entropy(q, p) / jnp.log(2.0), "3.288")
    agree(manual.categorical_cross_entropy(p, q) / jnp.log(2.0), "2.906")


def test_rumelharts_mirror_symmetry():
    """Rumelhart, Hinton and Williams (1986), figure 1: two hidden units that find it."""
    half = jnp.array([14.2, -3.6, 7.2])
    w = jnp.concatenate([half, -half[::-1]])
    layers = [
        (jnp.stack([w, -w], 1), jnp.full(2, -1.1)),
        (jnp.full((2, 1), -9.4), jnp.array([6.4])),
    ]
    x = jnp.array([[n >> k & 1 for k in range(6)] for n in range(64)], float)
    y = manual.mlp(layers, x, activation="sigmoid", output_activation="sigmoid")[:, 0]
    mirrored = (x == x[:, ::-1]).all(1)
    assert mirrored.sum() == 8
    assert ((y > 0.5) == mirrored).all()


# --- Dive into deep learning (d2l.ai) -------------------------------------------------------------


def test_d2l_convolution():
    """Chapter 7: cross-correlation of one, two and several channels, and pooling."""
    x, k = jnp.arange(9.0).reshape(3, 3), jnp.arange(4.0).reshape(2, 2)
    agree(manual.conv(x[None, ..., None], k[..., None, None]), "19 25 37 43")
    x, k = jnp.stack([x, x + 1], -1)[None], jnp.stack([k, k + 1], -1)
    agree(manual.conv(x, k[..., None]), "56 72 104 120")
    y = manual.conv(x, jnp.stack([k, k + 1, k + 2], -1))
    agree(channels_first(y), "56 72 104 120 76 100 148 172 96 128 192 224")
    agree(manual.max_pool(x[..., :1], window=2, stride=1), "4 5 7 8")
    agree(manual.average_pool(x[..., :1], window=2, stride=1), "2 3 5 6")
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    agree(manual.max_pool(x, window=3), "10")
    agree(manual.max_pool(x, window=3, stride=2, padding=((1, 0), (1, 0))), "5 7 13 15")
    agree(manual.max_pool(x, window=(2, 3), stride=(2, 3), padding=(0, 1)), "5 7 13 15")


def test_d2l_transposed_convolution():
    """Chapter 14."""
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    k = x[0, ..., None]
    agree(manual.conv_transpose(x, k), "0 0 1 0 4 6 4 12 9")
    agree(manual.conv_transpose(x, k, stride=2), "0 0 0 1 0 0 2 3 0 2 0 3 4 6 6 9")
    agree(manual.conv_transpose(x, k, padding=1), "4")


def test_d2l_attention_over_valid_lengths():
    """Chapter 11: of keys that are equal, the mean of the values that count."""
    values = jnp.broadcast_to(jnp.arange(40.0).reshape(10, 4), (2, 10, 4))
    y = manual.attention(jnp.ones((2, 1, 2)), jnp.ones((2, 10, 2)), values, lengths=(2, 6))
    agree(y, "2.0000 3.0000 4.0000 5.0000 10.0000 11.0000 12.0000 13.0000")


# --- papers ---------------------------------------------------------------------------------------


def test_convolution_arithmetic():
    """Figures 1.1, 1.5 and 1.6."""
    x = image([3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1])
    kernel = image([0, 1, 2], [2, 2, 0], [0, 1, 2])[0, ..., None]
    agree(manual.conv(x, kernel), "12 12 17 10 17 19 9 6 14")
    agree(manual.average_pool(x, window=3, stride=1), "1.7 1.7 1.7 1.0 1.2 1.8 1.1 0.8 1.3")
    agree(manual.max_pool(x, window=3, stride=1), "3 3 3 3 3 3 3 2 3")


def test_what_papers_say_of_their_activations():
    # Elfwing, Uchibe and Doya (2018), of the SiLU and its slope
    agree(manual.silu(jnp.array([-1.28])), "-0.28")
    agree(slope(manual.silu, 2.4, -2.4), "1.1 -0.1")
    assert abs(slope(manual.silu, -1.28)) < 1e-3
    # Misra (2019): Mish is no less than about −0.31, at about −1.192
    agree(manual.mish(jnp.array([-1.1924])), "-0.31")
    assert abs(slope(manual.mish, -1.192)) < 1e-3
    # Klambauer et al. (2017): a unit normal input keeps mean 0 and variance 1
    points, weights = np.polynomial.hermite_e.hermegauss(201)
    y, weights = manual.selu(jnp.asarray(points)), weights / weights.sum()
    np.testing.assert_allclose(jnp.stack([weights @ y, weights @ y**2]), [0, 1], atol=5e-3)
    agree(slope(manual.selu, 1.0), "1.05070098735548")


def test_what_the_focal_loss_makes_of_easy_examples():
    """Lin et al. (2017), section 3.2: γ = 2 divides the loss at 0.9 by 100, at 0.968 by 1,000."""
    logit, one = jnp.log(jnp.array([0.9, 0.968]) / jnp.array([0.1, 0.032])), jnp.ones(2)
    plain = manual.binary_cross_entropy_with_logits(logit, one)
    focal = manual.focal_loss_with_logits(logit, one.astype(int), gamma=2.0)
    agree((plain / focal)[0], "100.0000")
    assert 970 < (plain / focal)[1] < 1000
