"""Backward passes through time."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal


def sigmoid(a):
    return 1 / (1 + jnp.exp(-a))


def rnn(x, h0, u, w, b):
    def step(h, xt):
        h = jnp.tanh(xt @ u + h @ w + b)
        return h, h

    return jax.lax.scan(step, h0, x)[1]


RNN = Function("rnn", rnn, normal((5, 4), fixed=((4,), (4, 4), (4, 4), (4,))))


def states(x, h0, u, w, b):
    hs = rnn(x, h0, u, w, b)
    return hs, jnp.concatenate([h0[None], hs[:-1]])


def rnn_by_scan(x, h0, u, w, b, dy):
    hs, previous = states(x, h0, u, w, b)

    def step(dh, now):
        h, dyt = now
        da = (dh + dyt) * (1 - h**2)
        return da @ w.T, da

    dh0, da = jax.lax.scan(step, jnp.zeros_like(h0), (hs, dy), reverse=True)
    return da @ u.T, dh0, x.T @ da, previous.T @ da, da.sum(0)


def rnn_unrolled(x, h0, u, w, b, dy):
    hs, previous = states(x, h0, u, w, b)
    du, dw, db, dh = jnp.zeros_like(u), jnp.zeros_like(w), jnp.zeros_like(b), jnp.zeros_like(h0)
    dx = []
    for t in range(len(x) - 1, -1, -1):
        dh = dh + dy[t]
        da = dh * (1 - hs[t] ** 2)
        du += jnp.outer(x[t], da)
        dw += jnp.outer(previous[t], da)
        db += da
        dx.append(u @ da)
        dh = w @ da
    return jnp.stack(dx[::-1]), dh, du, dw, db


def rnn_by_jacobian_products(x, h0, u, w, b, dy):
    hs, previous = states(x, h0, u, w, b)
    slopes = 1 - hs**2
    total = [slopes[t] * dy[t] for t in range(len(x))]
    for late in range(len(x)):
        d = total[late] = slopes[late] * dy[late]
        for t in range(late - 1, -1, -1):
            d = slopes[t] * (w @ d)
            total[t] = total[t] + d
    da = jnp.stack(total)
    return da @ u.T, w @ da[0], x.T @ da, jnp.einsum("ti,tj->ij", previous, da), da.sum(0)


def rnn_numpy(x, h0, u, w, b, dy):
    x, h0, u, w, b, dy = map(np.asarray, (x, h0, u, w, b, dy))
    hs = [h0]
    for xt in x:
        hs.append(np.tanh(xt @ u + hs[-1] @ w + b))
    dx, du, dw, db, dh = 0 * x, 0 * u, 0 * w, 0 * b, 0 * h0
    for t in reversed(range(len(x))):
        da = (dh + dy[t]) * (1 - hs[t + 1] ** 2)
        dx[t] = u @ da
        du, dw, db = du + np.outer(x[t], da), dw + np.outer(hs[t], da), db + da
        dh = w @ da
    return dx, dh, du, dw, db


RNN.right(rnn_by_scan, rnn_unrolled, rnn_by_jacobian_products, scales=(1e-3, 1.0))
RNN.right(rnn_by_scan, scales=(5.0,), category="ill-conditioned", note="1 − h²", rounding=1e-10)
RNN.right(rnn_by_scan, sample="one step", draw=normal((1, 3), fixed=((2,), (3, 2), (2, 2), (2,))))
RNN.right(rnn_numpy, category="numpy")
RNN.wrong(
    rnn_by_scan,
    ("missing path", "da = (dh + dyt)", "da = dyt"),
    ("shifted in time", "previous.T @ da", "hs.T @ da"),
    ("stale residual", "(hs, dy), reverse", "(previous, dy), reverse"),
    ("transposed", "da @ w.T", "da @ w"),
    ("transposed", "da @ u.T", "da @ u"),
    ("mean for sum", "da.sum(0)", "da.mean(0)"),
    ("missing path", "dh0, x.T", "0 * dh0, x.T"),
    ("first or last step", "previous.T @ da", "previous[1:].T @ da[1:]"),
    ("shifted in time", "x.T @ da", "jnp.roll(x, 1, 0).T @ da"),
    ("pre/post-activation", "(1 - h**2)", "(1 - jnp.tanh(h) ** 2)"),
    (
        "missing path",
        "(hs, dy), reverse=True",
        "(hs, dy * (jnp.arange(5) == 4)[:, None]), reverse=True",
    ),
    ("first or last step", "da.sum(0)", "da[-1]"),
    ("shifted in time", ", reverse=True", ""),
)
RNN.wrong(
    rnn_unrolled,
    ("missing path", "dh = w @ da", "dh = w @ da * (t != 3)"),
    ("shifted in time", "jnp.outer(previous[t], da)", "jnp.outer(hs[t], da)"),
    ("operand dropped", "* (1 - hs[t] ** 2)", ""),
    ("sign", "dx.append(u @ da)", "dx.append(-u @ da)"),
)
RNN.wrong(
    rnn_numpy,
    ("shifted in time", "hs[t + 1] ** 2", "hs[t] ** 2"),
    ("missing path", "(dh + dy[t])", "(dh * 0 + dy[t])"),
)
RNN.careless(rnn_by_scan, "cotangent ignored", "single precision")
RNN.spoiled(rnn_by_scan, (2, 5, 1e-6), (3, 9, 1e-9), (4, 1, 1e-9))


def lstm_gates(z):
    i, f, g, o = jnp.split(z, 4)
    return sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)


def lstm(x, u, w, b):
    def step(carry, xt):
        h, c = carry
        i, f, g, o = lstm_gates(xt @ u + h @ w + b)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros(w.shape[0], x.dtype)
    return jax.lax.scan(step, (zero, zero), x)[1]


LSTM = Function("lstm", lstm, normal((4, 3), fixed=((3, 12), (3, 12), (12,))))


def lstm_trace(x, u, w, b):
    """(h before, c before, gates, c after) of every step."""

    def step(carry, xt):
        h, c = carry
        gates = jnp.stack(lstm_gates(xt @ u + h @ w + b))
        c_new = gates[1] * c + gates[0] * gates[2]
        return (gates[3] * jnp.tanh(c_new), c_new), (h, c, gates, c_new)

    zero = jnp.zeros(w.shape[0], x.dtype)
    return jax.lax.scan(step, (zero, zero), x)[1]


def lstm_by_scan(x, u, w, b, dy):
    h_before, c_before, gates, c_after = lstm_trace(x, u, w, b)

    def step(carry, now):
        dh, dc = carry
        c_old, (i, f, g, o), c, dyt = now
        dh = dh + dyt
        tanh_c = jnp.tanh(c)
        do = dh * tanh_c
        dc = dc + dh * o * (1 - tanh_c**2)
        di, df, dg = dc * g, dc * c_old, dc * i
        gates = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)]
        dz = jnp.concatenate(gates)
        return (w @ dz, dc * f), dz

    zero = jnp.zeros(w.shape[0], x.dtype)
    inputs = (c_before, gates, c_after, dy)
    _, dz = jax.lax.scan(step, (zero, zero), inputs, reverse=True)
    return dz @ u.T, x.T @ dz, h_before.T @ dz, dz.sum(0)


def lstm_unrolled(x, u, w, b, dy):
    h_before, c_before, gates, c_after = lstm_trace(x, u, w, b)
    dh = dc = jnp.zeros(w.shape[0], x.dtype)
    dx, du, dw, db = jnp.zeros_like(x), 0 * u, 0 * w, 0 * b
    for t in range(x.shape[0] - 1, -1, -1):
        i, f, g, o = gates[t]
        dh = dh + dy[t]
        dc = dc + dh * o / jnp.cosh(c_after[t]) ** 2
        do = dh * jnp.tanh(c_after[t])
        slopes = jnp.stack([i - i**2, f - f**2, (1 - g) * (1 + g), o - o**2])
        dz = (jnp.stack([dc * g, dc * c_before[t], dc * i, do]) * slopes).ravel()
        dx = dx.at[t].set(u @ dz)
        du, dw, db = du + jnp.outer(x[t], dz), dw + jnp.outer(h_before[t], dz), db + dz
        dh, dc = w @ dz, dc * f
    return dx, du, dw, db


LSTM.right(lstm_by_scan, lstm_unrolled, scales=(1e-3, 1.0))
LSTM.right(
    lstm_by_scan,
    lstm_unrolled,
    sample="two steps, wider",
    draw=normal((2, 5), fixed=((5, 8), (2, 8), (8,))),
)
LSTM.wrong(
    lstm_by_scan,
    ("permuted", "[di * i * (1 - i), df * f * (1 - f),", "[df * f * (1 - f), di * i * (1 - i),"),
    ("permuted", "dg * (1 - g**2), do * o * (1 - o)]", "do * o * (1 - o), dg * (1 - g**2)]"),
    ("missing path", "dc = dc + dh * o", "dc = dh * o"),
    ("wrong operand", "dc * f), dz", "dc * i), dz"),
    ("missing path", "(w @ dz, dc * f)", "(0 * dh, dc * f)"),
    ("operand dropped", "dh * o * (1 - tanh_c**2)", "dh * o"),
    ("pre/post-activation", "do = dh * tanh_c", "do = dh * c"),
    ("pre/post-activation", "(1 - tanh_c**2)", "(1 - c**2)"),
    ("approximation", "dg * (1 - g**2)", "dg * g * (1 - g)"),
    ("shifted in time", "df, dg = dc * g, dc * c_old,", "df, dg = dc * g, dc * c,"),
    ("shifted in time", "h_before.T @ dz", "(gates[:, 3] * jnp.tanh(c_after)).T @ dz"),
    ("first or last step", "dz.sum(0)", "dz[1:].sum(0)"),
    ("operand dropped", "dc * g, dc", "g, dc"),
)
LSTM.wrong(lstm_unrolled, ("sign", "(1 - g) * (1 + g)", "(1 + g) * (1 + g)"))
LSTM.spoiled(lstm_by_scan, (1, 14, 1e-6), (3, 6, 1e-9))


def gru(x, h0, u, w):
    def step(h, xt):
        z, r = jnp.split(sigmoid(xt @ u[:, :6] + h @ w[:, :6]), 2)
        n = jnp.tanh(xt @ u[:, 6:] + (r * h) @ w[:, 6:])
        h = (1 - z) * n + z * h
        return h, h

    return jax.lax.scan(step, h0, x)[1]


GRU = Function("gru", gru, normal((4, 3), fixed=((3,), (3, 9), (3, 9))))


def gru_by_scan(x, h0, u, w, dy):
    previous = jnp.concatenate([h0[None], gru(x, h0, u, w)[:-1]])
    wzr, wn = w[:, :6], w[:, 6:]

    def step(dh, now):
        xt, h, dyt = now
        z, r = jnp.split(sigmoid(xt @ u[:, :6] + h @ wzr), 2)
        n = jnp.tanh(xt @ u[:, 6:] + (r * h) @ wn)
        dh = dh + dyt
        dan = dh * (1 - z) * (1 - n**2)
        drh = wn @ dan
        daz = dh * (h - n) * z * (1 - z)
        dar = drh * h * r * (1 - r)
        dazr = jnp.concatenate([daz, dar])
        dh = dh * z + drh * r + wzr @ dazr
        dw = jnp.concatenate([jnp.outer(h, dazr), jnp.outer(r * h, dan)], 1)
        return dh, (jnp.concatenate([dazr, dan]), dw)

    dh0, (da, dw) = jax.lax.scan(step, jnp.zeros_like(h0), (x, previous, dy), reverse=True)
    return da @ u.T, dh0, x.T @ da, dw.sum(0)


def gru_unrolled(x, h0, u, w, dy):
    (uz, ur, un), (wz, wr, wn) = jnp.split(u, 3, 1), jnp.split(w, 3, 1)
    previous = jnp.concatenate([h0[None], gru(x, h0, u, w)[:-1]])
    z, r = sigmoid(x @ uz + previous @ wz), sigmoid(x @ ur + previous @ wr)
    n = jnp.tanh(x @ un + (r * previous) @ wn)
    dh, das = jnp.zeros_like(h0), []
    for t in range(x.shape[0] - 1, -1, -1):
        dh = dh + dy[t]
        dan = dh * (1 - z[t]) * (1 - n[t] ** 2)
        daz = dh * (previous[t] - n[t]) * z[t] * (1 - z[t])
        dar = (wn @ dan) * previous[t] * r[t] * (1 - r[t])
        dh = dh * z[t] + r[t] * (wn @ dan) + wr @ dar + wz @ daz
        das.insert(0, jnp.stack([daz, dar, dan]))
    daz, dar, dan = jnp.stack(das, 1)
    dw = jnp.concatenate([previous.T @ daz, previous.T @ dar, (r * previous).T @ dan], 1)
    du = jnp.concatenate([x.T @ daz, x.T @ dar, x.T @ dan], 1)
    return daz @ uz.T + dar @ ur.T + dan @ un.T, dh, du, dw


GRU.right(gru_by_scan, gru_unrolled, scales=(1e-3, 1.0))
GRU.wrong(
    gru_by_scan,
    ("missing path", "dh = dh * z + drh * r + wzr @ dazr", "dh = dh * z + wzr @ dazr"),
    ("missing path", "dh = dh * z + drh * r + wzr @ dazr", "dh = drh * r + wzr @ dazr"),
    ("missing path", "dh = dh * z + drh * r + wzr @ dazr", "dh = dh * z + drh * r"),
    ("wrong operand", "dh * (1 - z) * (1 - n**2)", "dh * z * (1 - n**2)"),
    ("sign", "dh * (h - n)", "dh * (n - h)"),
    ("permuted", "[daz, dar]", "[dar, daz]"),
    ("wrong operand", "jnp.outer(r * h, dan)", "jnp.outer(h, dan)"),
    ("operand dropped", "drh * h * r", "drh * r"),
    ("missing path", "dh0, x.T @ da", "jnp.zeros_like(h0), x.T @ da"),
)
GRU.wrong(gru_unrolled, ("transposed", "(r * previous).T @ dan]", "((r * previous).T @ dan).T]"))


def recurrence(a, x):
    def step(h, now):
        h = now[0] * h + now[1]
        return h, h

    return jax.lax.scan(step, jnp.zeros_like(x[0]), (a, x))[1]


RECURRENCE = Function("linear_recurrence", recurrence, normal((5, 5), fixed=((5, 5),)))


def linear_recurrence_by_scan(a, x, dy):
    hs = recurrence(a, x)
    previous = jnp.concatenate([0 * hs[:1], hs[:-1]])

    def step(carry, now):
        at, dyt = now
        dh = carry + dyt
        return at * dh, dh

    _, dh = jax.lax.scan(step, 0 * hs[0], (a, dy), reverse=True)
    return dh * previous, dh


def linear_recurrence_by_association(a, x, dy):
    def combine(one, two):
        return one[0] * two[0], two[0] * one[1] + two[1]

    hs = jax.lax.associative_scan(combine, (a, x))[1]
    shifted = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    dh = jax.lax.associative_scan(combine, (shifted, dy), reverse=True)[1]
    return dh * jnp.pad(hs[:-1], ((1, 0), (0, 0))), dh


def linear_recurrence_numpy(a, x, dy):
    a, x, dy = np.asarray(a), np.asarray(x), np.asarray(dy)
    hs, dh, da = np.zeros_like(x), np.array(dy), np.zeros_like(a)
    for t in range(len(x)):
        hs[t] = x[t] + (a[t] * hs[t - 1] if t else 0)
    for t in reversed(range(1, len(x))):
        da[t] = dh[t] * hs[t - 1]
        dh[t - 1] += a[t] * dh[t]
    return da, dh


RECURRENCE.right(
    linear_recurrence_by_scan, linear_recurrence_by_association, scales=(1e-3, 1.0, 10.0)
)
RECURRENCE.right(linear_recurrence_numpy, category="numpy", scales=(1.0, 10.0))
RECURRENCE.wrong(
    linear_recurrence_by_scan,
    ("shifted in time", "dh * previous", "dh * hs"),
    ("missing path", "carry + dyt", "dyt"),
    ("operand dropped", "at * dh, dh", "dh, dh"),
    ("shifted in time", "(a, dy), reverse", "(jnp.roll(a, -1, 0), dy), reverse"),
    ("first or last step", "(a, dy), reverse", "(a.at[4].set(0), dy), reverse"),
    ("sign", "return at * dh", "return -at * dh"),
)
RECURRENCE.wrong(linear_recurrence_numpy, ("off by one", "range(1, len(x))", "range(2, len(x))"))
RECURRENCE.exchanged(linear_recurrence_by_scan, 0, 1)

FUNCTIONS = [RNN, LSTM, GRU, RECURRENCE]
