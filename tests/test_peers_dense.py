"""The bilinear layer, tied weights and positions against PyTorch's autograd."""

import functools

import numpy as np
import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, normal, transposed  # noqa: E402

F = torch.nn.functional


def test_bilinear():
    def theirs(x1, x2, w, b):
        return F.bilinear(x1, x2, torch.movedim(w, -1, 0), b)  # (out, in1, in2) there

    agree(manual.bilinear, theirs, normal(2, 3, 5), normal(2, 3, 4), normal(5, 4, 6), normal(6))
    agree(manual.bilinear, theirs, normal(3, 5), normal(3, 4), normal(5, 4, 6), None)
    agree(manual.bilinear, theirs, normal(2, 3, 5), normal(2, 3, 4), normal(5, 4, 2), normal(2))


def test_tied_weights():
    def theirs(x, w, b, c):
        return F.linear(torch.tanh(F.linear(x, transposed(w), b)), w, c)

    agree(manual.tied_autoencoder, theirs, normal(3, 5), normal(5, 4), normal(4), normal(5))


def test_embedding_and_learned_positions():
    indices = np.array([[1, 1, 4], [0, 3, 1]])
    agree(manual.embedding, F.embedding, indices, normal(5, 4))
    theirs = lambda x, table: x + F.embedding(torch.arange(3), table)  # noqa: E731
    agree(manual.learned_positions, theirs, normal(2, 3, 4), normal(5, 4))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    def theirs(x):
        t, i = torch.arange(x.shape[-2]), torch.arange(0, x.shape[-1], 2)
        angles = t[:, None] * 10000.0 ** (-i.double() / x.shape[-1])
        turn = torch.polar(torch.ones_like(angles), angles)
        layout = (-1, 2) if interleaved else (2, -1)
        pairs = x.unflatten(-1, layout)
        pairs = pairs if interleaved else pairs.transpose(-1, -2)
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
        return (turned if interleaved else turned.transpose(-1, -2)).flatten(-2)

    agree(functools.partial(manual.rotary, interleaved=interleaved), theirs, normal(2, 5, 6))
