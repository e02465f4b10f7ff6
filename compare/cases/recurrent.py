"""Sample inputs of recurrent nets: batch 2, time 4, 3 inputs, 5 hidden units."""

from handgrad.compare.cases import Case, normal

CASES = [
    Case("rnn", normal(2, 4, 3), normal(2, 5), normal(3, 5), normal(5, 5), normal(5)),
    Case(
        "rnn: relu",
        normal(2, 4, 3), normal(2, 5), normal(3, 5), normal(5, 5), normal(5),
        activation="relu",
    ),
    Case("rnn: one step", normal(1, 1, 2), normal(1, 3), normal(2, 3), normal(3, 3), normal(3)),
    Case(
        "lstm",
        normal(2, 4, 3), normal(2, 5), normal(2, 5), normal(3, 20), normal(5, 20), normal(20), None,
    ),
    Case(
        "lstm: peepholes",
        normal(2, 4, 3), normal(2, 5), normal(2, 5), normal(3, 20), normal(5, 20), normal(20),
        normal(3, 5),
    ),
    Case("gru", normal(2, 4, 3), normal(2, 5), normal(3, 15), normal(5, 15), normal(15)),
]  # fmt: skip
