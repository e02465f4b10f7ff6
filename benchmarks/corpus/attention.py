"""Backward passes of attention, and of rotary positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

ROOT = math.sqrt(5)


def attend(q, k, v):
    return jax.nn.softmax(q @ k.T / ROOT) @ v


ATTENTION = Function("attention", attend, normal((5, 5), (5, 5), fixed=((5, 5),)))


def attention_by_row_sum(q, k, v, dy):
    p = jax.nn.softmax(q @ k.T / ROOT)
    dv = p.T @ dy
    dp = dy @ v.T
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    dq = ds @ k / ROOT
    dk = ds.T @ q / ROOT
    return dq, dk, dv


def attention_by_output(q, k, v, dy):
    s = jnp.einsum("id,jd->ij", q, k) / ROOT
    p = jnp.exp(s - jax.scipy.special.logsumexp(s, axis=-1, keepdims=True))
    delta = (dy * (p @ v)).sum(-1)
    ds = p * (dy @ v.T - delta[:, None]) / ROOT
    return ds @ k, jnp.einsum("ij,id->jd", ds, q), jnp.einsum("ij,id->jd", p, dy)


def attention_by_jacobian(q, k, v, dy):
    p = jax.nn.softmax(q @ k.T / ROOT)
    jacobian = jax.vmap(lambda row: jnp.diag(row) - jnp.outer(row, row))(p)
    ds = jnp.einsum("ijl,ld,id->ij", jacobian, v, dy)
    return ds @ k / ROOT, (q / ROOT).T.dot(ds).T, p.T @ dy


def attention_numpy(q, k, v, dy):
    q, k, v, dy = map(np.asarray, (q, k, v, dy))
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for i in range(q.shape[0]):
        s = k @ q[i] / ROOT
        p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        delta = dy[i] @ (p @ v)
        for j in range(k.shape[0]):
            dv[j] += p[j] * dy[i]
            ds = p[j] * (dy[i] @ v[j] - delta)
            dq[i] += ds * k[j] / ROOT
            dk[j] += ds * q[i] / ROOT
    return dq, dk, dv


FORMS = (attention_by_row_sum, attention_by_output, attention_by_jacobian)
ATTENTION.right(*FORMS, scales=(1e-3, 1.0))
ATTENTION.right(
    *FORMS,
    scales=(5.0,),
    category="ill-conditioned",
    note="dp − Σ p dp cancels where one weight is near 1",
    rounding=1e-10,
)
ATTENTION.right(
    attention_by_row_sum,
    attention_by_output,
    sample="T = 3, S = 7",
    draw=normal((3, 5), (7, 5), fixed=((7, 4),)),
)
ATTENTION.right(attention_numpy, category="numpy")
ATTENTION.wrong(
    attention_by_row_sum,
    ("constant factor", "ds @ k / ROOT", "ds @ k"),
    ("constant factor", "ds.T @ q / ROOT", "ds.T @ q / 5"),
    ("missing path", " - (p * dp).sum(-1, keepdims=True)", ""),
    ("wrong axis", "(p * dp).sum(-1,", "(p * dp).sum(0,"),
    ("transposed", "ds.T @ q", "ds @ q"),
    ("transposed", "p.T @ dy", "p @ dy"),
    ("pre/post-activation", "dv = p.T", "dv = (q @ k.T / ROOT).T"),
    ("wrong operand", "ds @ k", "ds @ q"),
    ("wrong operand", "dv = p.T @ dy", "dv = p.T @ v"),
    ("stale residual", "softmax(q @ k.T / ROOT)", "softmax(q @ k.T)"),
    ("mean for sum", "(p * dp).sum", "(p * dp).mean"),
    ("sign", "(dp - (", "(dp + ("),
    ("missing path", "dq = ds @ k / ROOT", "dq = jnp.zeros_like(q)"),
)
ATTENTION.wrong(
    attention_by_output,
    ("wrong operand", "delta = (dy * (p @ v))", "delta = (dy * v)"),
    ("operand dropped", "p * (dy @ v.T - delta", "(dy @ v.T - delta"),
)
ATTENTION.wrong(
    attention_numpy,
    ("off by one", "ds * q[i]", "ds * q[i - 1]"),
    ("operand dropped", "dk[j] += ds", "dk[j] = ds"),
)
ATTENTION.careless(attention_by_row_sum, "cotangent ignored", "cotangent squared")
ATTENTION.exchanged(attention_by_row_sum, 0, 1)
ATTENTION.spoiled(attention_by_row_sum, (0, 7, 1e-6), (2, 11, 1e-9), (1, 16, 1e-9))

CAUSAL = Function(
    "causal_attention",
    lambda q, k, v, mask: jax.nn.softmax(jnp.where(mask > 0, q @ k.T / ROOT, -1e30)) @ v,
    lambda rng, scale: (
        scale * rng.standard_normal((5, 5)),
        scale * rng.standard_normal((5, 5)),
        rng.standard_normal((5, 5)),
        np.tril(np.ones((5, 5), np.int32)),
    ),
)


def causal_attention_by_mask(q, k, v, mask, dy):
    s = q @ k.T / ROOT
    p = jax.nn.softmax(jnp.where(mask > 0, s, -1e30))
    dp = dy @ v.T
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    return ds @ k / ROOT, ds.T @ q / ROOT, p.T @ dy, None


def causal_attention_by_exponential(q, k, v, mask, dy):
    e = mask * jnp.exp(q @ k.T / ROOT)
    p = e / e.sum(-1)[:, None]
    delta = jnp.einsum("id,ij,jd->i", dy, p, v)
    ds = p * (jnp.einsum("id,jd->ij", dy, v) - delta[:, None]) / ROOT
    return ds @ k, (q.T @ ds).T, (dy.T @ p).T, None


CAUSAL.right(causal_attention_by_mask, causal_attention_by_exponential, scales=(1e-3, 1.0, 3.0))
CAUSAL.wrong(
    causal_attention_by_mask,
    ("masked elements", "jnp.where(mask > 0, s, -1e30)", "s"),
    (
        "off by one",
        "mask > 0",
        "jnp.tril(mask, -1) + jnp.eye(5, k=-1) + jnp.eye(5, k=0)[:, ::-1] > 0",
    ),
    ("masked elements", "-1e30", "0.0"),
    ("missing path", "(p * dp).sum(-1, keepdims=True)", "0"),
    ("transposed", "mask > 0", "mask.T > 0"),
    ("constant factor", "ds @ k / ROOT", "ds @ k * ROOT"),
)
CAUSAL.wrong(
    causal_attention_by_exponential,
    (
        "wrong operand",
        "delta[:, None]",
        "(delta[:, None] + (mask == 0))",
        "p * (jnp",
        "(p + (mask == 0)) * (jnp",
    ),
)

HEADS = 2


def split(x):
    return x.reshape(x.shape[0], HEADS, -1).swapaxes(0, 1)  # (heads, time, features)


def merge(x):
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def multi_head(x, wq, wk, wv, wo):
    q, k, v = split(x @ wq), split(x @ wk), split(x @ wv)
    p = jax.nn.softmax(jnp.einsum("hid,hjd->hij", q, k) / math.sqrt(q.shape[-1]))
    return merge(p @ v) @ wo


MULTI_HEAD = Function("multi_head_attention", multi_head, normal((4, 6), fixed=((6, 6),) * 4))


def multi_head_attention_by_reshape(x, wq, wk, wv, wo, dy):
    q, k, v = split(x @ wq), split(x @ wk), split(x @ wv)
    scale = 1 / math.sqrt(q.shape[-1])
    p = jax.nn.softmax(scale * jnp.einsum("hid,hjd->hij", q, k))
    dwo = merge(p @ v).T @ dy
    do = split(dy @ wo.T)
    dv = merge(jnp.einsum("hij,hid->hjd", p, do))
    dp = jnp.einsum("hid,hjd->hij", do, v)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    dq = merge(jnp.einsum("hij,hjd->hid", ds, k))
    dk = merge(jnp.einsum("hij,hid->hjd", ds, q))
    dx = dq @ wq.T + dk @ wk.T + dv @ wv.T
    return dx, x.T @ dq, x.T @ dk, x.T @ dv, dwo


def multi_head_attention_by_loop(x, wq, wk, wv, wo, dy):
    width = wq.shape[1] // HEADS
    dx, grads = jnp.zeros_like(x), ([], [], [], [])
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        q, k, v = x @ wq[:, part], x @ wk[:, part], x @ wv[:, part]
        p = jax.nn.softmax(q @ k.T / width**0.5)
        do = dy @ wo[part].T
        ds = p * (do @ v.T - (do * (p @ v)).sum(-1, keepdims=True)) / width**0.5
        dq, dk, dv = ds @ k, ds.T @ q, p.T @ do
        dx += dq @ wq[:, part].T + dk @ wk[:, part].T + dv @ wv[:, part].T
        for total, grad in zip(grads, (x.T @ dq, x.T @ dk, x.T @ dv, (p @ v).T @ dy), strict=True):
            total.append(grad)
    return dx, *(jnp.concatenate(g, 1) for g in grads[:3]), jnp.concatenate(grads[3], 0)


MULTI_HEAD.right(
    multi_head_attention_by_reshape,
    multi_head_attention_by_loop,
    scales=(1e-3, 1.0),
    rounding=2e-12,
)
MULTI_HEAD.wrong(
    multi_head_attention_by_reshape,
    ("missing path", "dq @ wq.T + dk @ wk.T + dv @ wv.T", "dq @ wq.T + dv @ wv.T"),
    ("missing path", "dq @ wq.T + dk @ wk.T + dv @ wv.T", "dv @ wv.T"),
    ("permuted", "do = split(dy @ wo.T)", "do = split(dy @ wo.T)[::-1]"),
    (
        "permuted",
        'dq = merge(jnp.einsum("hij,hjd->hid", ds, k))',
        'dq = jnp.einsum("hij,hjd->hid", ds, k).reshape(x.shape)',
    ),
    ("constant factor", "math.sqrt(q.shape[-1])", "math.sqrt(x.shape[-1])"),
    ("constant factor", "ds = scale * p", "ds = p"),
    ("wrong operand", "x.T @ dk", "x.T @ dq"),
    ("wrong operand", "merge(p @ v).T", "merge(v).T"),
    ("transposed", 'hij,hid->hjd", p, do', 'hij,hjd->hid", p, do'),
)
MULTI_HEAD.spoiled(multi_head_attention_by_reshape, (3, 14, 1e-9))

GQA = Function(
    "grouped_query_attention",
    lambda q, k, v: (
        jax.nn.softmax(q @ jnp.repeat(k, 2, 0).swapaxes(1, 2) / 2) @ jnp.repeat(v, 2, 0)
    ),
    normal((4, 3, 4), (2, 3, 4), fixed=((2, 3, 4),)),
)


def grouped_query_attention_by_repeat(q, k, v, dy):
    ks, vs = jnp.repeat(k, 2, 0), jnp.repeat(v, 2, 0)
    p = jax.nn.softmax(jnp.einsum("hid,hjd->hij", q, ks) / 2)
    dp = jnp.einsum("hid,hjd->hij", dy, vs)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / 2
    dks = jnp.einsum("hij,hid->hjd", ds, q)
    dvs = jnp.einsum("hij,hid->hjd", p, dy)
    dk = dks.reshape(2, 2, 3, 4).sum(1)
    dv = dvs.reshape(2, 2, 3, 4).sum(1)
    return jnp.einsum("hij,hjd->hid", ds, ks), dk, dv


def grouped_query_attention_by_groups(q, k, v, dy):
    qs, ds_out = q.reshape(2, 2, 3, 4), dy.reshape(2, 2, 3, 4)
    p = jax.nn.softmax(jnp.einsum("grid,gjd->grij", qs, k) / 2)
    delta = jnp.einsum("grid,grij,gjd->gri", ds_out, p, v)
    ds = p * (jnp.einsum("grid,gjd->grij", ds_out, v) - delta[..., None]) / 2
    dq = jnp.einsum("grij,gjd->grid", ds, k).reshape(q.shape)
    return dq, jnp.einsum("grij,grid->gjd", ds, qs), jnp.einsum("grij,grid->gjd", p, ds_out)


GQA.right(
    grouped_query_attention_by_repeat, grouped_query_attention_by_groups, scales=(1e-3, 1.0, 2.0)
)
GQA.wrong(
    grouped_query_attention_by_repeat,
    ("mean for sum", "dk = dks.reshape(2, 2, 3, 4).sum(1)", "dk = dks.reshape(2, 2, 3, 4).mean(1)"),
    ("operand dropped", "dv = dvs.reshape(2, 2, 3, 4).sum(1)", "dv = dvs[::2]"),
    ("permuted", "dk = dks.reshape(2, 2, 3, 4).sum(1)", "dk = dks.reshape(2, 2, 3, 4).sum(0)"),
    (
        "permuted",
        "vs = jnp.repeat(k, 2, 0), jnp.repeat(v, 2, 0)",
        "vs = jnp.repeat(k, 2, 0), jnp.tile(v, (2, 1, 1))",
    ),
    ("constant factor", "keepdims=True)) / 2", "keepdims=True))"),
)


def angles(length, half):
    return np.arange(length)[:, None] * 10.0 ** (-np.arange(half) / half)


def rope(x):
    a, b = jnp.split(x, 2, axis=-1)
    c, s = jnp.cos(angles(*a.shape)), jnp.sin(angles(*a.shape))
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1)


ROPE = Function("rope", rope, normal((5, 6)))


def rope_by_rotation(x, dy):
    da, db = jnp.split(dy, 2, axis=-1)
    theta = angles(*da.shape)
    c, s = jnp.cos(theta), jnp.sin(theta)
    return (jnp.concatenate([da * c + db * s, db * c - da * s], -1),)


def rope_by_complex(x, dy):
    half = dy.shape[-1] // 2
    z = jax.lax.complex(dy[:, :half], dy[:, half:])
    z = z * jnp.exp(-1j * angles(*z.shape))
    return (jnp.concatenate([z.real, z.imag], -1),)


def rope_numpy(x, dy):
    dy = np.asarray(dy)
    dx, half = np.zeros_like(dy), dy.shape[1] // 2
    for t in range(dy.shape[0]):
        for i in range(half):
            theta = t * 10.0 ** (-i / half)
            turn = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
            dx[t, [i, i + half]] = turn @ dy[t, [i, i + half]]
    return (dx,)


ROPE.right(rope_by_rotation, rope_by_complex, scales=(1.0, 1e2))
ROPE.right(rope_numpy, category="numpy")
ROPE.wrong(
    rope_by_rotation,
    ("transposed", "da * c + db * s, db * c - da * s", "da * c - db * s, db * c + da * s"),
    ("sign", "db * c - da * s", "db * c + da * s"),
    ("shifted in time", "angles(*da.shape)", "angles(da.shape[0] + 1, da.shape[1])[1:]"),
    ("permuted", "jnp.split(dy, 2, axis=-1)", "(dy[:, ::2], dy[:, 1::2])"),
    ("missing path", "da * c + db * s", "da * c"),
    ("wrong operand", "da * c + db * s, db * c", "db * c + db * s, db * c"),
    ("wrong operand", "jnp.split(dy", "jnp.split(x"),
    (
        "first or last step",
        "theta = angles(*da.shape)",
        "theta = angles(*da.shape) * (jnp.arange(5) < 4)[:, None]",
    ),
)
ROPE.wrong(rope_numpy, ("off by one", "range(dy.shape[0])", "range(1, dy.shape[0])"))

FUNCTIONS = [ATTENTION, CAUSAL, MULTI_HEAD, GQA, ROPE]
