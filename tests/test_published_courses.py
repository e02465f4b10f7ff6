"""Figures that courses print, to their last place, by the derivations of `manual`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import agree, backward, channels_first, channels_last, draws, spread

from handgrad import manual
from handgrad.manual import optimizers


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# --- Stanford CS231n, the checks of its assignments -----------------------------------------------


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


def test_cs231n_toy_net():
    """Assignment 1: the net of the toy data, its scores, and its loss with 0.05 Σ w²."""
    w1, w2 = (w / 10 for w in draws(0, (4, 10), (10, 3)))
    (x,) = draws(1, (5, 4))
    layers = [(w1, jnp.zeros(10)), (w2, jnp.zeros(3))]
    scores = manual.mlp(layers, 10 * x, activation="relu")
    agree(
        scores,
        """-0.81233741 -1.27654624 -0.70335995 -0.17129677 -1.18803311 -0.47310444
        -0.51590475 -1.01354314 -0.8504215 -0.15419291 -0.48629638 -0.52901952
        -0.00618733 -0.12435261 -0.15226949""",
    )
    labels = jnp.array([0, 1, 2, 2, 1])
    loss = manual.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
    agree(loss + sum(manual.l2_penalty(w, strength=0.1) for w in (w1, w2)), "1.30378789133")


def test_cs231n_word_embedding():
    """Assignment 3."""
    words = jnp.array([[0, 3, 1, 2], [2, 1, 0, 3]])
    agree(
        manual.embedding(words, spread(0, 1, 5, 3)),
        """0 0.07142857 0.14285714 0.64285714 0.71428571 0.78571429 0.21428571 0.28571429
        0.35714286 0.42857143 0.5 0.57142857 0.42857143 0.5 0.57142857 0.21428571 0.28571429
        0.35714286 0 0.07142857 0.14285714 0.64285714 0.71428571 0.78571429""",
    )


@pytest.mark.parametrize(
    ("cell", "features", "printed"),
    [("tanh", (-1.5, 0.3), "9.83235591003"), ("lstm", (-0.5, 1.7), "9.82445935443")],
)
def test_cs231n_captioning(cell, features, printed):
    """Assignment 3: words are summed up over a caption, whose null words do not count."""
    gates = 4 if cell == "lstm" else 1
    even = functools.partial(spread, -1.4, 1.3)
    h0 = manual.affine(spread(*features, 10, 20), even(20, 40), even(40))
    order = ifgo if cell == "lstm" else manual.identity
    weights = tuple(order(even(*n, gates * 40)) for n in ((30,), (40,), ()))
    captions = jnp.arange(130).reshape(10, 13) % 3
    words, targets = captions[:, :-1], captions[:, 1:]
    state = (h0, jnp.zeros_like(h0)) if cell == "lstm" else (h0,)
    h, _ = manual.recurrence(manual.embedding(words, even(3, 30)), state, weights, cell=cell)
    scores = manual.affine(h, even(40, 3), even(3))
    loss = manual.softmax_cross_entropy_with_integer_labels(scores, targets)
    agree(jnp.where(targets == 0, 0, loss).sum() / 10, printed)


# --- Stanford CS224n ------------------------------------------------------------------------------


def test_cs224n_word2vec():
    """Assignment 2: the skip-gram's naive softmax, summed over the words around the third."""
    (vectors,) = draws(9265, (10, 3))
    vectors = manual.l2_normalize(vectors)
    centers, outside, around = vectors[:5], vectors[5:], jnp.array([0, 1, 4, 3, 1, 2])
    v, kept_v = manual.embedding.forward(jnp.full(6, 2), centers)
    loss, (dv, dw, _, _) = backward(
        manual.linear_softmax_cross_entropy, jnp.ones(()), v, outside.T, None, around,
        reduction="sum",
    )  # fmt: skip
    agree(loss, "11.16610900153398")
    agree(manual.embedding.pullback(kept_v, dv)[1][2], "-1.26947339 -1.36873189 2.45158957")
    agree(
        dw.T,
        """-0.41045956 0.18834851 1.43272264 0.38202831 -0.17530219 -1.33348241 0.07009355
        -0.03216399 -0.24466386 0.09472154 -0.04346509 -0.33062865 -0.13638384 0.06258276
        0.47605228""",
    )


# --- deeplearning.ai, the checks of its notebooks -------------------------------------------------


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
    _, (dx, dw, _) = backward(manual.conv, y, x, w, stride=2, padding=2)
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


def test_deeplearning_ai_activations_backward():
    """Course 1, week 4: a layer of one unit and two samples, the gradient of the output given."""
    da, a, w, b, z = draws(2, (1, 2), (3, 2), (1, 3), (1, 1), (1, 2))
    _, kept = manual.affine.forward(a.T, w.T, b[:, 0])
    for activation, printed in (
        (
            manual.sigmoid,
            """0.11017994 0.01105339 0.09466817 0.00949723 -0.05743092 -0.00576154
            0.10266786 0.09778551 -0.01968084 -0.05729622""",
        ),
        (
            manual.relu,
            """0.44090989 0 0.37883606 0 -0.2298228 0 0.44513824 0.37371418 -0.10478989
            -0.20837892""",
        ),
    ):
        _, (dz,) = backward(activation, da.T, z.T)
        dx, dw, db = manual.affine.pullback(kept, dz / 2)  # the mean over the samples
        agree(jnp.concatenate([2 * dx.T.ravel(), dw.ravel(), db]), printed)


def test_deeplearning_ai_deep_net_backward():
    """Course 1, week 4: ReLU and sigmoid layers, back from the cross entropy of the outputs."""
    shapes = (1, 2), (4, 2), (3, 4), (3, 1), (3, 2), (3, 2), (1, 3), (1, 1), (1, 2)
    al, a1, w1, b1, z1, a2, w2, b2, z2 = draws(3, *shapes)
    _, (dal, _) = backward(
        manual.binary_cross_entropy, jnp.ones((2, 1)), al.T, jnp.array([[1.0], [0]])
    )
    _, (dz2,) = backward(manual.sigmoid, dal, z2.T)
    _, (da, _, _) = backward(manual.affine, dz2, a2.T, w2.T, b2[:, 0])
    _, (dz1,) = backward(manual.relu, da, z1.T)
    _, (_, dw, db) = backward(manual.affine, dz1 / 2, a1.T, w1.T, b1[:, 0])
    agree(
        dw.T,
        """0.41010002 0.07807203 0.13798444 0.10502167 0 0 0 0 0.05283652 0.01005865 0.01777766
        0.0135308""",
    )
    agree(db, "-0.22007063 0 -0.02835349")
    agree(da.T, "0.12913162 -0.44014127 -0.14175655 0.48317296 0.01663708 -0.05670698")


def test_deeplearning_ai_net_of_a_hidden_layer():
    """Course 1, week 3: the gradients of planar data's net, of activations that are given."""
    rng = np.random.RandomState(1)
    x, t = rng.randn(2, 3), rng.randn(1, 3) > 0
    a1 = jnp.array(
        [
            [-0.00616578, 0.0020626, 0.00349619],
            [-0.05225116, 0.02725659, -0.02646251],
            [-0.02009721, 0.0036869, 0.02883756],
            [0.02152675, -0.01385234, 0.02599885],
        ]
    )
    a2 = jnp.array([[0.5002307, 0.49985831, 0.50023963]])
    w2 = jnp.array([[-0.01057952, -0.00909008, 0.00551454, 0.02292208]])
    logits = jnp.log(a2 / (1 - a2))
    _, (dz2, _) = backward(
        manual.binary_cross_entropy_with_logits, jnp.ones((3, 1)) / 3, logits.T, 1.0 * t.T
    )
    _, (da1, dw2, db2) = backward(manual.affine, dz2, a1.T, w2.T, jnp.zeros(1))
    dz1 = da1 * (1 - a1.T**2)
    _, (_, dw1, db1) = backward(
        manual.affine, dz1, jnp.asarray(x.T), jnp.zeros((2, 4)), jnp.zeros(4)
    )
    agree(
        dw1.T,
        """0.00301023 -0.00747267 0.00257968 -0.00641288 -0.00156892 0.003893 -0.00652037
        0.01618243""",
    )
    agree(db1, "0.00176201 0.00150995 -0.00091736 -0.00381422")
    agree(dw2, "0.00078841 0.01765429 -0.00084166 -0.01022527")
    agree(db2, "-0.16655712")


def test_deeplearning_ai_language_model():
    """Course 5, week 1: the step on dinosaurs' names, whose gradients are cut off at 5."""
    shapes = (100, 1), (100, 27), (100, 100), (27, 100), (100, 1), (27, 1)
    a0, wax, waa, wya, b, by = draws(1, *shapes)
    params = {
        "table": wax.T,
        "layers": [(jnp.eye(100), waa.T, b[:, 0])],
        "w": wya.T,
        "b": by[:, 0],
    }
    words, targets = jnp.array([[12, 3, 5, 11, 22, 3]]), jnp.array([[4, 14, 11, 22, 25, 26]])
    loss, (gradient, *_) = manual.recurrent_lm_loss.value_and_gradient(
        params, [(a0.T,)], words, targets, cell="tanh"
    )
    agree(6 * loss, "126.503975722")
    clipped = jax.tree.map(lambda g: manual.clip_by_value(6 * g, low=-5.0, high=5.0), gradient)
    ((_, dwaa, db),) = clipped["layers"]
    agree(dwaa[2, 1], "0.194709315347")
    assert jnp.argmax(clipped["table"].T) == 93
    agree(clipped["w"][2, 1], "-0.007773876032")
    agree(jnp.array([db[4], clipped["b"][1]]), "-0.06809825 0.01538192")


def test_deeplearning_ai_weight_decay():
    """Course 2, week 1: a net of two ReLU layers, the cross entropy and λ/2m Σ w²."""
    shapes = (3, 5), (2, 3), (2, 1), (3, 2), (3, 1), (1, 3), (1, 1)
    x, *weights = draws(1, *shapes)
    labels = jnp.array([[1.0, 1, 0, 1, 0]]).T
    layers = [(w.T, b[:, 0]) for w, b in zip(weights[::2], weights[1::2], strict=True)]
    net = {"activation": "relu", "output_activation": "sigmoid"}
    agree(manual.mlp(layers, x.T, **net), "0.40682402 0.01629284 0.16722898 0.10118111 0.40682402")
    _, (gradient, *_) = manual.mlp_loss.value_and_gradient(
        layers, x.T, labels, **net, loss="binary_cross_entropy", reduction="mean"
    )
    decay = [backward(manual.l2_penalty, 1.0, w, strength=0.7 / 5)[1][0] for w, _ in layers]
    dw1, dw2, dw3 = [(dw + d).T for (dw, _), d in zip(gradient, decay, strict=True)]
    agree(dw1, "-0.25604646 0.12298827 -0.28297129 -0.17706303 0.34536094 -0.4410571")
    agree(dw2, "0.79276486 0.85133918 -0.0957219 -0.01720463 -0.13100772 -0.03750433")
    agree(dw3, "-1.77691347 -0.11832879 -0.09397446")


def test_deeplearning_ai_cost_with_weight_decay():
    """Course 2, week 1: the cost alone, of other weights."""
    w1, _, w2, _, w3, _ = draws(1, (2, 3), (2, 1), (3, 2), (3, 1), (1, 3), (1, 1))
    a = jnp.array([0.40682402, 0.01629284, 0.16722898, 0.10118111, 0.40682402])
    cost = manual.binary_cross_entropy(a, jnp.array([1.0, 1, 0, 1, 0])).mean()
    cost += sum(manual.l2_penalty(w, strength=0.1 / 5) for w in (w1, w2, w3))
    agree(cost, "1.78648594516")


def test_deeplearning_ai_optimizers():
    """Course 2, week 2: one step, of Adam the second from moments that are zero."""
    shapes = (2, 3), (2, 1), (3, 3), (3, 1)
    both = draws(1, *shapes, *shapes)
    params, gradients = both[:4], both[4:]

    def stepped(optimizer, **moments):
        state = optimizer.init(params)._replace(**moments)
        updates, state = optimizer.update(gradients, state, params)
        return optimizers.apply_updates(params, updates), state

    after, _ = stepped(optimizers.sgd(0.01))
    agree(after[0], "1.63535156 -0.62320365 -0.53718766 -1.07799357 0.85639907 -2.29470142")
    agree(after[1], "1.74604067 -0.75184921")
    # there the velocity is a mean, (1 − β) of what is added up here
    after, state = stepped(optimizers.momentum(0.01 * (1 - 0.9), 0.9))
    agree(after[0], "1.62544598 -0.61290114 -0.52907334 -1.07347112 0.86450677 -2.30085497")
    agree(after[1], "1.74493465 -0.76027113")
    agree(
        after[2],
        """0.31930698 -0.24990073 1.4627996 -2.05974396 -0.32173003 -0.38320915 1.13444069
        -1.0998786 -0.1713109""",
    )
    velocity = "-0.11006192 0.11447237 0.09015907 0.05024943 0.09008559 -0.06837279"
    agree((1 - 0.9) * state.trace[0], velocity)
    second = {"step": jnp.array(1, jnp.int32)}
    # its two editions have ε outside of the root and inside
    outside, inside = optimizers.adam(0.01), optimizers.adam(0.01, eps=0.0, eps_root=1e-8)
    after, _ = stepped(inside, **second)
    agree(after[2][2], "1.14121081 -1.09245036 -0.16498684")
    agree(after[3], "-0.88529978 0.03477238 0.57537385")
    after, state = stepped(outside, **second)
    agree(after[0], "1.63178673 -0.61919778 -0.53561312 -1.08040999 0.85796626 -2.29409733")
    agree(after[1], "1.75225313 -0.75376553")
    agree(
        after[2],
        """0.32648046 -0.25681174 1.46954931 -2.05269934 -0.31497584 -0.37661299 1.14121081
        -1.09244991 -0.16498684""",
    )
    agree(after[3], "-0.88529979 0.03477238 0.57537385")
    agree(state.mu[0], velocity)
    agree(state.nu[0], "0.00121136 0.00131039 0.00081287 0.0002525 0.00081154 0.00046748")
    agree(state.nu[1], "1.51020075e-05 8.75664434e-04")


@pytest.mark.parametrize(
    ("x", "labels", "cost", "first", "after", "last"),
    [
        (
            [[1, 2], [3, 4]], [1, 0], "6.000064773192",
            "0.99993216 1.99980262 0.499935230625",
            "0.1124579 0.23106775 1.55930492484", "0.90158428 1.76250842 0.430462071679",
        ),
        (
            [[1, 2, -1], [3, 4, -3.2]], [1, 0, 1], "5.80154531939",
            "0.99845601 2.39507239 0.00145557813678",
            "0.19033591 0.12259159 1.92535983008", "0.67752042 1.41625495 0.219194504541",
        ),
    ],
)  # fmt: skip
def test_deeplearning_ai_logistic_regression_trained(x, labels, cost, first, after, last):
    """Course 1, week 2, of two editions: 100 steps of rate 0.009."""
    x, labels = jnp.array(x, float).T, jnp.array([labels], float).T
    net = {"output_activation": "sigmoid", "loss": "binary_cross_entropy", "reduction": "mean"}

    def gradient(layers):
        return manual.mlp_loss.value_and_gradient(layers, x, labels, **net)

    def step(_, state):
        layers, _ = state
        _, (dlayers, *_) = gradient(layers)
        return jax.tree.map(lambda p, g: p - 0.009 * g, layers, dlayers), dlayers

    def flat(layers):
        ((w, b),) = layers
        return jnp.concatenate([w[:, 0], b])

    layers = [(jnp.array([[1.0], [2.0]]), jnp.array([2.0]))]
    found, (dlayers, *_) = gradient(layers)
    agree(found, cost, 5)
    agree(flat(dlayers), first)
    layers, dlayers = jax.lax.fori_loop(0, 100, step, (layers, dlayers))
    agree(flat(layers), after)
    agree(flat(dlayers), last)


def test_deeplearning_ai_rnn_forward():
    """Course 5, week 1."""
    shapes = (3, 10, 4), (5, 10), (5, 5), (5, 3), (2, 5), (5, 1), (2, 1)
    x, a0, waa, wax, wya, ba, by = draws(1, *shapes)
    a = manual.rnn(jnp.transpose(x, (1, 2, 0)), a0.T, wax.T, waa.T, ba[:, 0])
    agree(a[1, :, 4], "-0.99999375 0.77911235 -0.99861469 -0.99833267")
    y = manual.softmax(manual.affine(a, wya.T, by[:, 0]))
    agree(y[3, :, 1], "0.79560373 0.86224861 0.11118257 0.81515947")


def test_deeplearning_ai_rnn_cell_backward():
    """Course 5, week 1."""
    shapes = (3, 10), (5, 10), (5, 3), (5, 5), (2, 5), (5, 1), (2, 1), (5, 10)
    x, a, wax, waa, _, _, _, da = draws(1, *shapes)
    *_, ba, _ = draws(1, (3, 10, 4), (5, 10), (5, 5), (5, 3), (2, 5), (5, 1), (2, 1))  # from before
    _, (dx, da, dwax, dwaa, db) = backward(
        manual.rnn, da.T[:, None], x.T[:, None], a.T, wax.T, waa.T, ba[:, 0]
    )
    agree(
        jnp.array([dx[2, 0, 1], da[3, 2], dwax[1, 3], dwaa[2, 1], db[4]]),
        "-0.460564103059 0.0842968653807 0.393081873922 -0.28483955787 0.80517166",
    )


def test_deeplearning_ai_lstm_forward():
    """Course 5, week 1."""
    gate = ((5, 8), (5, 1)) * 4
    shapes = (3, 10, 7), (5, 10), *gate, (2, 5), (2, 1)
    x, a0, wf, bf, wi, bi, wo, bo, wc, bc, wy, by = draws(1, *shapes)
    w = jnp.concatenate([wi, wf, wc, wo]).T
    b = jnp.concatenate([bi, bf, bc, bo])[:, 0]
    a, c = manual.lstm(jnp.transpose(x, (1, 2, 0)), a0.T, jnp.zeros((10, 5)), w[5:], w[:5], b, None)
    y = manual.softmax(manual.affine(a, wy.T, by[:, 0]))
    agree(
        jnp.array([a[3, 6, 4], y[4, 3, 1], c[2, 1, 1]]),
        "0.172117767533 0.95087346185 -0.855544916718",
    )


def test_deeplearning_ai_attention():
    """Course 5, week 4, its weights and its output, to six places of its float32."""
    q = jnp.array([[1.0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1]])
    k = jnp.array([[1.0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]])
    v = jnp.array([[0.0, 0], [1, 0], [1, 0], [1, 1]])
    agree(
        manual.attention(q, k, jnp.eye(4)),
        """0.258948 0.426933 0.157060 0.157060 0.277275 0.277275 0.277275 0.168176 0.336201 0.336201
        0.123681 0.203916""",
    )
    agree(
        manual.attention(q, k, v),
        "0.741052 0.157060 0.722725 0.168176 0.663799 0.203916",
    )


# --- Andrew Ng, "Machine learning" (2011), the cases that its mentors gave ------------------------


def magic():
    return jnp.array([[8.0, 1, 6], [3, 5, 7], [4, 9, 2]])


def test_machine_learning_logistic_regression():
    """Exercises 2 and 3: the cost and its gradient, without and with λ = 3."""
    theta, x = jnp.array([-2.0, -1, 1, 2]), magic()
    loss, ((layer,), *_) = manual.mlp_loss.value_and_gradient(
        [(theta[1:, None], theta[:1])], x, jnp.array([[1.0], [0], [1]]),
        output_activation="sigmoid", loss="binary_cross_entropy", reduction="mean",
    )  # fmt: skip
    dw, db = layer
    agree(loss, "4.6832")
    agree(jnp.concatenate([db, dw[:, 0]]), "0.31722 0.87232 1.64812 2.23787")
    penalty, (decay,) = backward(manual.l2_penalty, 1.0, theta[1:], strength=3 / 3)
    agree(loss + penalty, "7.6832")
    agree(dw[:, 0] + decay, "-0.12768 2.64812 4.23787")


def test_machine_learning_neural_network():
    """Exercise 4: the slope of the sigmoid; and the whole net, without and with λ = 4."""
    _, (found,) = backward(
        manual.sigmoid, jnp.ones((4, 3)), jnp.vstack([-jnp.arange(1.0, 4), magic()])
    )
    agree(
        found,
        """1.9661e-01 1.0499e-01 4.5177e-02 3.3524e-04 1.9661e-01 2.4665e-03 4.5177e-02 6.6481e-03
        9.1022e-04 1.7663e-02 1.2338e-04 1.0499e-01""",
    )
    theta = jnp.arange(1.0, 19) / 10
    first, second = theta[:6].reshape(3, 2), theta[6:].reshape(3, 4)  # Octave's order, turned
    layers = [(first[1:], first[0]), (second[1:], second[0])]
    x, labels = jnp.cos(jnp.array([[1.0, 2], [3, 4], [5, 6]])), jnp.eye(4)[jnp.array([3, 1, 2])]
    cost, (gradient, *_) = manual.mlp_loss.value_and_gradient(
        layers, x, labels, activation="sigmoid", output_activation="sigmoid",
        loss="binary_cross_entropy",
    )  # fmt: skip
    agree(cost / 3, "7.4070")

    def flat(layers):
        return jnp.concatenate([jnp.vstack([b, w]).ravel() for w, b in layers])

    agree(
        flat(gradient) / 3,
        """0.766138 0.979897 -0.027540 -0.035844 -0.024929 -0.053862 0.883417 0.568762 0.584668
        0.598139 0.459314 0.344618 0.256313 0.311885 0.478337 0.368920 0.259771 0.322331""",
    )
    penalised = [backward(manual.l2_penalty, 1.0, w, strength=4.0) for w, _ in layers]
    agree((cost + sum(penalty for penalty, _ in penalised)) / 3, "19.474")
    gradient = [(dw + d, db) for (dw, db), (_, (d,)) in zip(gradient, penalised, strict=True)]
    agree(
        flat(gradient) / 3,
        """0.76614 0.97990 0.37246 0.49749 0.64174 0.74614 0.88342 0.56876 0.58467 0.59814 1.92598
        1.94462 1.98965 2.17855 2.47834 2.50225 2.52644 2.72233""",
    )


def test_machine_learning_linear_regression():
    """Exercises 1 and 5: ½ the mean of the squares."""
    x, t = jnp.array([[2.0], [3], [4], [5]]), jnp.array([[7.0], [6], [5], [4]])
    y = manual.affine(x, jnp.array([[0.2]]), jnp.array([0.1]))
    agree(manual.half_squared_error(y, t).mean(), "11.9450")


# --- DeepLearning.AI and Stanford, "Machine learning specialization" (2022) -----------------------


def test_specialization_linear_regression():
    """Course 1, week 2: houses of four features, near the least cost."""
    x = jnp.array([[2104.0, 5, 1, 45], [1416, 3, 2, 40], [852, 2, 1, 35]])
    t = jnp.array([[460.0], [232], [178]])
    w = jnp.array([[0.39133535], [18.75376741], [-53.36032453], [-26.42131618]])
    cost, ((layer,), *_) = manual.mlp_loss.value_and_gradient(
        [(w, jnp.array([785.1811367994083]))], x, t, reduction="mean"
    )
    # more digits are printed, which differences of 1e-6 between numbers of 460 do not have
    agree(cost, "1.557890e-12")
    agree(layer[0], "-2.726236e-03 -6.271973e-06 -2.217456e-06 -6.924034e-05")
    agree(layer[1], "-1.673925e-06")


def test_specialization_logistic_regression():
    """Course 1, week 3: of six points, and what 10,000 steps of rate 0.1 come to."""
    x = jnp.array([[0.5, 1.5], [1, 1], [1.5, 0.5], [3, 0.5], [2, 2], [1, 2.5]])
    labels = jnp.array([[0.0, 0, 0, 1, 1, 1]]).T
    net = {"output_activation": "sigmoid", "loss": "binary_cross_entropy", "reduction": "mean"}

    def gradient(layers):
        return manual.mlp_loss.value_and_gradient(layers, x, labels, **net)

    cost, _ = gradient([(jnp.ones((2, 1)), jnp.array([-3.0]))])
    agree(cost, "0.366866786405517")
    _, (((dw, db),), *_) = gradient([(jnp.array([[2.0], [3]]), jnp.ones(1))])
    agree(dw, "0.498333393278696 0.498839429839967")
    agree(db, "0.498618065463286")

    def step(_, layers):
        return jax.tree.map(lambda p, g: p - 0.1 * g, layers, gradient(layers)[1][0])

    ((w, b),) = jax.lax.fori_loop(0, 10000, step, [(jnp.zeros((2, 1)), jnp.zeros(1))])
    agree(w, "5.28123029 5.07815608")
    agree(b, "-14.2224099820198")


def test_specialization_regularization():
    """Course 1, week 3: λ = 0.7 in ½ λ/m Σ w²."""
    rng = np.random.RandomState(1)
    x, labels = jnp.asarray(rng.rand(5, 6)), jnp.array([[0.0, 1, 0, 1, 0]]).T
    w = jnp.asarray(rng.rand(6, 1) - 0.5)
    penalty = manual.l2_penalty(w, strength=0.7 / 5)
    z = manual.affine(x, w, jnp.array([0.5]))
    squares = manual.half_squared_error(z, labels).mean()
    agree(squares + penalty, "0.0791723932021428")
    logistic = manual.binary_cross_entropy_with_logits(z, labels).mean()
    agree(logistic + penalty, "0.685084913874167")


def test_specialization_regularized_gradients():
    """Course 1, week 3."""
    rng = np.random.RandomState(1)
    x, labels = jnp.asarray(rng.rand(5, 3)), jnp.array([[0.0, 1, 0, 1, 0]]).T
    w = jnp.asarray(rng.rand(3, 1))
    _, (decay,) = backward(manual.l2_penalty, 1.0, w, strength=0.7 / 5)
    z, kept = manual.affine.forward(x, w, jnp.array([0.5]))
    _, (dz, _) = backward(manual.half_squared_error, jnp.ones(5) / 5, z, labels)
    _, dw, db = manual.affine.pullback(kept, dz)
    agree(dw + decay, "0.296532147488223 0.491167962591803 0.216458775358659")
    agree(db, "0.664877456942573")
    _, (dz, _) = backward(manual.binary_cross_entropy_with_logits, jnp.ones((5, 1)) / 5, z, labels)
    _, dw, db = manual.affine.pullback(kept, dz)
    agree(dw + decay, "0.173800129339943 0.320075078815669 0.107763133968515")
    agree(db, "0.341798994972791")
