"""PyTorch's attention beside ours: causal, masked, biased, grouped, and its multi-head layer."""

import functools

import numpy as np
import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, normal, transposed  # noqa: E402

sdpa = torch.nn.functional.scaled_dot_product_attention
QKV = normal(2, 3, 5, 4), normal(2, 3, 5, 4, seed=1), normal(2, 3, 5, 6, seed=2)
MASK = np.random.default_rng(0).random((2, 3, 5, 5)) < 0.5
MASK[..., 0] = True  # PyTorch gives NaN where nothing is seen


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["attention", "blockwise_attention"])
def test_attention(name, causal):
    agree(
        functools.partial(getattr(manual, name), causal=causal),
        lambda q, k, v: sdpa(q, k, v, is_causal=causal),
        *QKV,
    )


@pytest.mark.parametrize("mask", [MASK, MASK[0, 0], MASK[:, :1]], ids=["full", "2-D", "one head"])
def test_masks(mask):
    agree(
        functools.partial(manual.attention, mask=mask, scale=0.3),
        lambda q, k, v: sdpa(q, k, v, attn_mask=torch.tensor(mask), scale=0.3),
        *QKV,
    )


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 3, 5, 5), (5, 5), (2, 1, 1, 5)], ids=str)
def test_biases(shape):
    """Their float attn_mask, which has a gradient too; −∞ in it masks."""
    bias = normal(*shape, seed=3)
    bias[..., 1] = -np.inf
    agree(
        functools.partial(manual.attention, scale=0.3),
        lambda q, k, v, b: sdpa(q, k, v, attn_mask=b, scale=0.3),
        *QKV,
        bias,
    )
    bias[..., :] = np.finfo(bias.dtype).min
    agree(manual.attention, lambda q, k, v, b: sdpa(q, k, v, attn_mask=b), *QKV, bias)


def test_bias_of_grouped_queries():
    agree(
        manual.grouped_query_attention,
        lambda q, k, v, b: sdpa(q, k, v, attn_mask=b, enable_gqa=True),
        normal(2, 6, 5, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 4, seed=2),
        normal(1, 6, 5, 5, seed=3),
    )  # fmt: skip


def test_lengths():
    seen = torch.arange(5) < torch.tensor([[3], [5]])
    for attend in (manual.attention, functools.partial(manual.blockwise_attention, block=2)):
        agree(
            functools.partial(attend, causal=False, lengths=(3, 5)),
            lambda q, k, v: sdpa(q, k, v, attn_mask=seen[:, None, None, :]),
            *QKV,
        )


def test_grouped_queries():
    agree(
        functools.partial(manual.grouped_query_attention, causal=True),
        lambda q, k, v: sdpa(q, k, v, is_causal=True, enable_gqa=True),
        normal(2, 6, 5, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 4, seed=2),
    )  # fmt: skip


def test_multi_head_layer():
    """torch.nn.functional's own layer, whose sequences are (time, batch, features)."""
    weights = [normal(6, 6, seed=i) for i in range(4)]
    biases = [normal(6, seed=i) for i in range(4)]

    def theirs(x, context, wq, wk, wv, wo, bq, bk, bv, bo, bias=None):
        y, _ = torch.nn.functional.multi_head_attention_forward(
            *(torch.swapaxes(s, 0, 1) for s in (x, context, context)),
            embed_dim_to_check=6, num_heads=2,
            in_proj_weight=None, in_proj_bias=torch.cat([bq, bk, bv]),
            bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
            out_proj_weight=transposed(wo), out_proj_bias=bo, need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=transposed(wq), k_proj_weight=transposed(wk),
            v_proj_weight=transposed(wv),
            attn_mask=None if bias is None else bias.reshape(-1, *bias.shape[2:]),
        )  # fmt: skip
        return torch.swapaxes(y, 0, 1)

    ours = functools.partial(manual.multi_head_attention, heads=2)
    args = normal(2, 4, 6), normal(2, 5, 6), *weights, *biases
    agree(ours, theirs, *args)
    agree(ours, theirs, *args, normal(2, 2, 4, 5))
