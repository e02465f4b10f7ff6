"""Figures that courses and papers print, to their last digit, by the derivations of `manual`.

Each test names where its figures stand; the inputs are theirs (mostly numbers evenly spaced, or
NumPy's legacy generator from a known seed), in their layout, and turned into ours.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual
from handgrad.manual import graph, optimizers
from handgrad.manual.graph import Node


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


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


# --- Stanford CS231n, the assignments' own checks -------------------------------------------------


def test_cs231n_dense_layer_and_relu():
    x, w = spread(-0.1, 0.5, 2, 120), spread(-0.2, 0.3, 120, 3)
    agree(
        manual.affine(x, w, spread(-0.3, 0.1, 3)),
        "1.49834967 1.70660132 1.91485297 3.25553199 3.5141327 3.77273342",
    )
    agree(
        manual.relu(spread(-0.5, 0.5, 3, 4)),
        "0 0 0 0 0 0 0.04545455 0.13636364 0.22727273 0.31818182 0.40909091 0.5",
    )


def test_cs231n_two_layer_net():
    """Assignment 2: the scores, and the loss without and with ½ λ Σ w² of λ = 1."""
    layers = [
        (spread(-0.7, 0.3, 5, 50), spread(-0.1, 0.9, 50)),
        (spread(-0.3, 0.4, 50, 7), spread(-0.9, 0.1, 7)),
    ]
    x, labels = spread(-5.5, 4.5, 5, 3).T, jnp.array([0, 5, 1])
    scores = manual.mlp(layers, x, activation="relu")
    agree(
        scores,
        """11.53165108 12.2917344 13.05181771 13.81190102 14.57198434 15.33206765 16.09215096
        12.05769098 12.74614105 13.43459113 14.1230412 14.81149128 15.49994135 16.18839143
        12.58373087 13.20054771 13.81736455 14.43418138 15.05099822 15.66781506 16.2846319""",
    )
    loss = manual.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
    agree(loss, "3.4702243556")
    agree(loss + sum(manual.l2_penalty(w) for w, _ in layers), "26.5948426952")


def test_cs231n_convolution():
    x, w = spread(-0.1, 0.5, 2, 3, 4, 4), spread(-0.2, 0.3, 3, 3, 4, 4)
    kernel = jnp.transpose(w, (2, 3, 1, 0))
    y = (
        manual.conv(channels_last(x), kernel, stride=2, padding=1)
        + spread(-0.1, 0.2, 3)[None, None, None]
    )
    agree(
        channels_first(y),
        """-0.08759809 -0.10987781 -0.18387192 -0.2109216 0.21027089 0.21661097
        0.22847626 0.23004637 0.50813986 0.54309974 0.64082444 0.67101435
        -0.98053589 -1.03143541 -1.19128892 -1.24695841 0.69108355 0.66880383
        0.59480972 0.56776003 2.36270298 2.36904306 2.38090835 2.38247847""",
    )


def test_cs231n_max_pooling():
    y = manual.max_pool(channels_last(spread(-0.3, 0.4, 2, 3, 4, 4)), window=2)
    agree(
        channels_first(y),
        """-0.26315789 -0.24842105 -0.20421053 -0.18947368 -0.14526316 -0.13052632
        -0.08631579 -0.07157895 -0.02736842 -0.01263158 0.03157895 0.04631579
        0.09052632 0.10526316 0.14947368 0.16421053 0.20842105 0.22315789
        0.26736842 0.28210526 0.32631579 0.34105263 0.38526316 0.4""",
    )


def test_cs231n_recurrent_nets():
    step = spread(-0.4, 0.7, 3, 1, 10), spread(-0.2, 0.5, 3, 4), spread(-0.1, 0.9, 10, 4)
    agree(
        manual.rnn(*step, spread(-0.3, 0.7, 4, 4), spread(-0.2, 0.4, 4)),
        """-0.58172089 -0.50182032 -0.41232771 -0.31410098 0.66854692 0.79562378
        0.87755553 0.92795967 0.97934501 0.99144213 0.99646691 0.99854353""",
    )
    net = spread(-0.1, 0.3, 2, 3, 4), spread(-0.3, 0.1, 2, 5), spread(-0.2, 0.4, 4, 5)
    agree(
        manual.rnn(*net, spread(-0.4, 0.1, 5, 5), spread(-0.7, 0.1, 5)),
        """-0.42070749 -0.27279261 -0.11074945 0.05740409 0.22236251
        -0.39525808 -0.22554661 -0.0409454 0.14649412 0.32397316
        -0.42305111 -0.24223728 -0.04287027 0.15997045 0.35014525
        -0.55857474 -0.39065825 -0.19198182 0.02378408 0.23735671
        -0.27150199 -0.07088804 0.13562939 0.33099728 0.50158768
        -0.51014825 -0.30524429 -0.06755202 0.17806392 0.40333043""",
    )


def ifgo(w):
    """The gates in the order of `manual.lstm` out of i, f, o, g."""
    i, f, o, g = jnp.split(w, 4, -1)
    return jnp.concatenate([i, f, g, o], -1)


def test_cs231n_lstm():
    h, c = manual.lstm(
        spread(-0.4, 1.2, 3, 1, 4), spread(-0.3, 0.7, 3, 5), spread(-0.4, 0.9, 3, 5),
        *map(ifgo, (spread(-2.1, 1.3, 4, 20), spread(-0.7, 2.2, 5, 20), spread(0.3, 0.7, 20))),
        None,
    )  # fmt: skip
    agree(
        h,
        """0.24635157 0.28610883 0.32240467 0.35525807 0.38474904 0.49223563 0.55611431
        0.61507696 0.66844003 0.7159181 0.56735664 0.66310127 0.74419266 0.80889665 0.858299""",
    )
    agree(
        c,
        """0.32986176 0.39145139 0.451556 0.51014116 0.56717407 0.66382255 0.76674007 0.87195994
        0.97902709 1.08751345 0.74192008 0.90592151 1.07717006 1.25120233 1.42395676""",
    )
    h, _ = manual.lstm(
        spread(-0.4, 0.6, 2, 3, 5), spread(-0.4, 0.8, 2, 4), jnp.zeros((2, 4)),
        *map(ifgo, (spread(-0.2, 0.9, 5, 16), spread(-0.3, 0.6, 4, 16), spread(0.2, 0.7, 16))),
        None,
    )  # fmt: skip
    agree(
        h,
        """0.01764008 0.01823233 0.01882671 0.0194232 0.11287491 0.12146228 0.13018446 0.13902939
        0.31358768 0.33338627 0.35304453 0.37250975 0.45767879 0.4761092 0.4936887 0.51041945
        0.6704845 0.69350089 0.71486014 0.7346449 0.81733511 0.83677871 0.85403753 0.86935314""",
    )


def test_cs231n_optimizers():
    w, dw = spread(-0.4, 0.6, 4, 5), spread(-0.6, 0.4, 4, 5)
    velocity, squares = spread(0.6, 0.9, 4, 5), spread(0.7, 0.5, 4, 5)

    def stepped(optimizer, **moments):
        state = optimizer.init(w)._replace(**moments)
        updates, state = optimizer.update(dw, state, w)
        return optimizers.apply_updates(w, updates), state

    # there the velocity is what is added, here what is subtracted
    sutskever = optimizers.momentum(1e-3, 0.9, rate_inside=True)
    after, state = stepped(sutskever, trace=-velocity)
    agree(
        after,
        """0.1406 0.20738947 0.27417895 0.34096842 0.40775789 0.47454737 0.54133684 0.60812632
        0.67491579 0.74170526 0.80849474 0.87528421 0.94207368 1.00886316 1.07565263 1.14244211
        1.20923158 1.27602105 1.34281053 1.4096""",
    )
    agree(-state.trace[0], "0.5406 0.55475789 0.56891579 0.58307368 0.59723158")
    after, state = stepped(optimizers.rmsprop(1e-2, 0.99, 1e-8, eps_in_sqrt=False), nu=velocity)
    agree(
        after,
        """-0.39223849 -0.34037513 -0.28849239 -0.23659121 -0.18467247 -0.132737 -0.08078555
        -0.02881884 0.02316247 0.07515774 0.12716641 0.17918792 0.23122175 0.28326742 0.33532447
        0.38739248 0.43947102 0.49155973 0.54365823 0.59576619""",
    )
    agree(state.nu[0], "0.5976 0.6126277 0.6277108 0.64284931 0.65804321")
    after, state = stepped(
        optimizers.adam(1e-2), mu=velocity, nu=squares, step=jnp.array(5, jnp.int32)
    )
    agree(
        after,
        """-0.40094747 -0.34836187 -0.29577703 -0.24319299 -0.19060977 -0.1380274 -0.08544591
        -0.03286534 0.01971428 0.0722929 0.1248705 0.17744702 0.23002243 0.28259667 0.33516969
        0.38774145 0.44031188 0.49288093 0.54544852 0.59801459""",
    )
    agree(state.nu[0], "0.69966 0.68908382 0.67851319 0.66794809 0.65738853")
    agree(state.mu[0], "0.48 0.49947368 0.51894737 0.53842105 0.55789474")


def test_cs231n_notes():
    """Circuits by hand; and the two losses of one sample of three classes."""
    x, y, z = map(jnp.asarray, (-2.0, 5.0, -4.0))
    total, of_total = x + y, z  # q = x + y, f = q z
    agree(jnp.array([total * z, of_total, of_total, total]), "-12 -4 -4 3")
    w, x = jnp.array([[2.0], [-3.0]]), jnp.array([[-1.0, -2.0]])
    logit, kept = manual.affine.forward(x, w, jnp.array([-3.0]))
    y, (dlogit,) = backward(manual.sigmoid, jnp.ones((1, 1)), logit)
    dx, dw, db = manual.affine.pullback(kept, dlogit)
    agree(y, "0.73")
    agree(jnp.concatenate([dw[:, 0], db]), "-0.20 -0.39 0.20")
    agree(dx, "0.39 -0.59")
    scores = jnp.array([[-2.85, 0.86, 0.28]])
    agree(manual.softmax_cross_entropy_with_integer_labels(scores, jnp.array([2])), "1.04")


# --- deeplearning.ai, the checks of its notebooks -------------------------------------------------


def test_deeplearning_ai_logistic_regression():
    x, labels = jnp.array([[1.0, 2, -1], [3, 4, -3.2]]).T, jnp.array([[1.0, 0, 1]]).T
    cost, ((layer,), *_) = manual.mlp_loss.value_and_gradient(
        [(jnp.array([[1.0], [2.0]]), jnp.array([2.0]))], x, labels,
        output_activation="sigmoid", loss="binary_cross_entropy", reduction="mean",
    )  # fmt: skip
    agree(cost, "5.80154531939")  # 4553 follow: digits that it loses with the 1 − A it computes
    agree(layer[0], "0.99845601 2.39507239")
    agree(layer[1], "0.00145557813678")


def test_deeplearning_ai_numpy():
    _, (slope,) = backward(manual.sigmoid, jnp.ones(3), jnp.array([1.0, 2, 3]))
    agree(slope, "0.19661193 0.10499359 0.04517666")
    agree(
        manual.softmax(jnp.array([[9.0, 2, 5, 0, 0], [7, 5, 0, 0, 0]])),
        """9.80897665e-01 8.94462891e-04 1.79657674e-02 1.21052389e-04 1.21052389e-04
        8.78679856e-01 1.18916387e-01 8.01252314e-04 8.01252314e-04 8.01252314e-04""",
    )
    y, t = jnp.array([0.9, 0.2, 0.1, 0.4, 0.9]), jnp.array([1.0, 0, 0, 1, 1])
    agree(5 * manual.mae(y, t), "1.1")
    agree(manual.total_squared_error(y, t), "0.43")


def test_deeplearning_ai_dense_backward():
    dz, a, w, b = draws(1, (1, 2), (3, 2), (1, 3), (1, 1))
    _, (da, dw, db) = backward(manual.affine, dz.T / 2, a.T, w.T, b[:, 0])  # 1/m of two samples
    agree(2 * da.T, "0.51822968 -0.19517421 -0.40506361 0.15255393 2.37496825 -0.89445391")
    agree(dw.T, "-0.10076895 1.40685096 1.64992505")
    agree(db, "0.50629448")


def test_deeplearning_ai_convolution():
    x, w, b = draws(1, (10, 4, 4, 3), (2, 2, 3, 8), (1, 1, 1, 8))
    y = manual.conv(x, w, stride=2, padding=2) + b
    agree(y.mean(), "0.0489952035289")
    agree(
        y[3, 2, 1],
        """-0.61490741 -6.7439236 -2.55153897 1.75698377 3.56208902 0.53036437 5.18531798
        8.75898442""",
    )
    _, (dx, dw) = backward(manual.conv, y, x, w, stride=2, padding=2)
    agree(jnp.array([dx.mean(), dw.mean()]), "1.45243777754 1.72699145831")
    agree(y.sum((0, 1, 2)).mean(), "7.83923256462")


def test_deeplearning_ai_pooling():
    (x,) = draws(1, (2, 4, 4, 3))
    agree(
        manual.max_pool(x, window=3, stride=2),
        "1.74481176 0.86540763 1.13376944 1.13162939 1.51981682 2.18557541",
    )
    agree(
        manual.average_pool(x, window=3, stride=2),
        "0.02105773 -0.20328806 -0.40389855 -0.22154621 0.51716526 0.48155844",
    )
    x, dy = draws(1, (5, 5, 3, 2), (5, 4, 2, 2))
    _, (dx,) = backward(manual.max_pool, dy, x, window=2, stride=1)
    agree(dx[1, 1], "0 0 5.05844394 -1.68282702 0 0")
    _, (dx,) = backward(manual.average_pool, dy, x, window=2, stride=1)
    agree(dx[1, 1], "0.08485462 0.2787552 1.26461098 -0.25749373 1.17975636 -0.53624893")


def test_deeplearning_ai_rnn():
    shapes = (3, 10, 4), (5, 10), (5, 3), (5, 5), (2, 5), (5, 1), (2, 1), (5, 10, 4)
    x, a0, wax, waa, _, ba, _, da = draws(1, *shapes)
    args = jnp.transpose(x, (1, 2, 0)), a0.T, wax.T, waa.T, ba[:, 0]
    _, (dx, da0, dwax, dwaa, dba) = backward(manual.rnn, jnp.transpose(da, (1, 2, 0)), *args)
    agree(dx[2, :, 1], "-2.07101689 -0.59255627 0.02466855 0.01483317")
    agree(da0[3, 2], "-0.314942375127")
    agree(dwax[1, 3], "11.2641044965")
    agree(dwaa[2, 1], "2.30333312658")
    agree(dba[4], "-0.74747722")


def test_deeplearning_ai_lstm_cell():
    """Its weights read [a; x], a gate in each."""
    gate = ((5, 8), (5, 1)) * 4
    shapes = (3, 10), (5, 10), (5, 10), *gate, (2, 5), (2, 1), (5, 10), (5, 10)
    x, a, c, wf, bf, wi, bi, wo, bo, wc, bc, _, _, da, dc = draws(1, *shapes)
    w = jnp.concatenate([wi, wf, wc, wo]).T
    b = jnp.concatenate([bi, bf, bc, bo])[:, 0]
    _, (dx, da, dc, dwx, dwh, db, _) = backward(
        manual.lstm, (da.T[:, None], dc.T[:, None]), x.T[:, None], a.T, c.T, w[5:], w[:5], b, None
    )
    di, df, dg, do = jnp.split(jnp.concatenate([dwh, dwx]).T, 4)
    found = dx[2, 0, 1], da[3, 2], dc[3, 2], df[3, 1], di[1, 2], dg[3, 1], do[1, 2]
    agree(
        jnp.array(found),
        """3.23055911511 -0.0639621419711 0.797522038797 -0.147954838164 1.05749805523
        2.30456216369 0.331311595289""",
    )
    di, df, dg, do = jnp.split(db, 4)
    agree(jnp.array([df[4], di[4], dg[4], do[4]]), "0.18864637 -0.40142491 0.25587763 0.13893342")


def test_deeplearning_ai_lstm():
    """It draws seven steps of x and four of the cotangent, and goes back from the fourth."""
    gate = ((5, 8), (5, 1)) * 4
    x, a0, wf, bf, wi, bi, wo, bo, wc, bc, da = draws(1, (3, 10, 7), (5, 10), *gate, (5, 10, 4))
    w = jnp.concatenate([wi, wf, wc, wo]).T
    b = jnp.concatenate([bi, bf, bc, bo])[:, 0]
    x, da = (jnp.transpose(z, (1, 2, 0)) for z in (x[..., :4], da))
    args = x, a0.T, jnp.zeros((10, 5)), w[5:], w[:5], b, None
    _, (dx, da0, _, dwx, dwh, db, _) = backward(manual.lstm, (da, jnp.zeros_like(da)), *args)
    di, df, dg, do = jnp.split(jnp.concatenate([dwh, dwx]).T, 4)
    agree(dx[2, :, 1], "0.00218254 0.28205375 -0.48292508 -0.43281115")
    agree(
        jnp.array([da0[3, 2], df[3, 1], di[1, 2], dg[3, 1], do[1, 2]]),
        "0.312770310257 -0.0809802310938 0.40512433093 -0.0793746735512 0.038948775763",
    )
    di, df, dg, do = jnp.split(db, 4)
    agree(
        jnp.array([df[4], di[4], dg[4], do[4]]), "-0.15745657 -0.50848333 -0.42510818 -0.17958196"
    )


# --- Keras, the examples of its reference ---------------------------------------------------------


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


# --- worked examples of a whole net ---------------------------------------------------------------


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


# --- papers ---------------------------------------------------------------------------------------


def slope(f, *x):
    return backward(f, jnp.ones(len(x)), jnp.array(x))[1][0]


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
