"""PyTorch's recurrent layers, functionally: its weights are (gates hidden, in), its gates named."""

import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

from peers import agree, normal, transposed  # noqa: E402

GATES = {"tanh": 1, "lstm": 4, "gru_reset_after": 3}
LAYERS = {"tanh": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru_reset_after": torch.nn.GRU}
FEATURES, HIDDEN = 3, 4


def run(cell, x, state, directions, lengths=None):
    """torch.nn's layer with the given parameters, on packed sequences where there are lengths."""
    layer = LAYERS[cell](FEATURES, HIDDEN, batch_first=True, bidirectional=len(directions) > 1)
    params = {}
    for (wx, wh, b, *bn), suffix in zip(directions, ["", "_reverse"], strict=False):
        inner = torch.zeros_like(b) if not bn else torch.cat([torch.zeros(2 * HIDDEN), bn[0]])
        for kind, tensor in (
            ("weight_ih", transposed(wx)), ("weight_hh", transposed(wh)), ("bias_ih", b),
            ("bias_hh", inner),
        ):  # fmt: skip
            params[f"{kind}_l0{suffix}"] = tensor
    if lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    state = state[0] if len(state) == 1 else tuple(state)
    y, end = torch.func.functional_call(layer, params, (x, state))
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=5)
    return (y, *(end if isinstance(end, tuple) else (end,)))


def arrays(cell, directions=1):
    """x, then the states and the weights of each direction, flat."""
    gates, states = GATES[cell] * HIDDEN, 1 + (cell == "lstm")
    flat = [normal(3, 5, FEATURES)]
    for d in range(directions):
        flat += [normal(3, HIDDEN, seed=10 * d + k) for k in range(states)]
        shapes = [(FEATURES, gates), (HIDDEN, gates), (gates,)]
        shapes += [(HIDDEN,)] if cell == "gru_reset_after" else []
        flat += [normal(*s, seed=20 + d) for s in shapes]
    return flat


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("lengths", [None, (5, 1, 3)])
@pytest.mark.parametrize("cell", GATES)
def test_one_direction(cell, lengths):
    states = 1 + (cell == "lstm")

    def ours(x, *flat):
        h, end = manual.recurrence(x, flat[:states], flat[states:], cell=cell, lengths=lengths)
        return h, *end

    def theirs(x, *flat):
        y, *end = run(cell, x, [s[None] for s in flat[:states]], [flat[states:]], lengths)
        return y, *(e[0] for e in end)

    agree(ours, theirs, *arrays(cell))


@pytest.mark.parametrize("cell", GATES)
def test_both_directions(cell):
    states, lengths = 1 + (cell == "lstm"), (2, 5, 4)
    size = len(arrays(cell)) - 1

    def ours(x, *flat):
        one, two = flat[:size], flat[size:]
        h, ends = manual.bidirectional(
            x, (one[:states], two[:states]), (one[states:], two[states:]),
            cell=cell, lengths=lengths,
        )  # fmt: skip
        return h, *ends[0], *ends[1]

    def theirs(x, *flat):
        one, two = flat[:size], flat[size:]
        state = [torch.stack(pair) for pair in zip(one[:states], two[:states], strict=True)]
        y, *end = run(cell, x, state, [one[states:], two[states:]], lengths)
        return y, *(e[0] for e in end), *(e[1] for e in end)

    agree(ours, theirs, *arrays(cell, 2))
