"""Sample inputs of recurrent nets over padded sequences: batch 3, time 4, few units."""

import numpy as np

from handgrad.compare.cases import Case, normal

GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3, "gru_reset_after": 3}


def state(cell, batch, hidden):
    return (normal(batch, hidden),) * (2 if cell == "lstm" else 1)


def weights(cell, features, hidden):
    """Half as large as the inputs: gates that are not all saturated have gradients to verify."""
    gates = GATES[cell] * hidden
    extra = (normal(hidden),) if cell == "gru_reset_after" else ()
    return *(normal(*s, scale=0.5) for s in ((features, gates), (hidden, gates), (gates,))), *extra


def net(cell, batch, time, features, hidden):
    return (
        normal(batch, time, features),
        state(cell, batch, hidden),
        weights(cell, features, hidden),
    )


CASES = [
    Case("recurrence", *net("lstm", 3, 4, 2, 2)),
    *(Case(f"recurrence: {cell}", *net(cell, 2, 3, 2, 3), cell=cell) for cell in GATES),
    *(
        Case(f"recurrence: {cell}, lengths", *net(cell, 3, 3, 2, 2), cell=cell, lengths=(2, 0, 3))
        for cell in GATES
    ),
    Case("recurrence: lengths, backwards", *net("gru", 3, 4, 2, 2), cell="gru",
         lengths=np.array([4, 1, 2], np.int32), reverse=True),
    Case("recurrence: one step", *net("tanh", 1, 1, 2, 1), cell="tanh"),
    Case("recurrence: truncated", *net("tanh", 2, 5, 2, 2), cell="tanh", truncate=2),
    Case("recurrence: blocks of steps", *net("tanh", 200, 5, 2, 2), cell="tanh"),
    Case("gru_reset_after", normal(2, 4, 3), normal(2, 2), *weights("gru_reset_after", 3, 2)),
    Case("bidirectional", normal(3, 4, 3), (state("lstm", 3, 4),) * 2,
         (weights("lstm", 3, 4),) * 2),
    Case("bidirectional: lengths", normal(2, 3, 2), (state("gru", 2, 2), state("gru", 2, 3)),
         (weights("gru", 2, 2), weights("gru", 2, 3)), cell="gru", lengths=(1, 3)),
    Case("bidirectional: saturated, batch as large as hidden", normal(2, 3, 2, scale=3.0),
         (state("gru", 2, 2),) * 2, (weights("gru", 2, 2),) * 2, cell="gru"),
    Case("stacked", normal(2, 3, 3), [state("lstm", 2, 2), state("lstm", 2, 3)],
         [weights("lstm", 3, 2), weights("lstm", 2, 3)]),
    Case("stacked: both ways, lengths", normal(2, 3, 3), [(state("tanh", 2, 2),) * 2] * 2,
         [(weights("tanh", 3, 2),) * 2, (weights("tanh", 4, 2),) * 2],
         cell="tanh", lengths=(2, 3), both_ways=True),
]  # fmt: skip
