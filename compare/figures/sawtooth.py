"""N10: a relu net of depth k, width 2 has 2ᵏ slopes; one hidden layer needs 2ᵏ units for that."""

from pathlib import Path

import numpy as np

from handgrad.compare.figures.result import Result, axes, save

DEPTHS = range(1, 9)


def deep(x: np.ndarray, depth: int) -> np.ndarray:
    """The tent map 2 relu(x) − 4 relu(x − ½), `depth` times: two units a layer."""
    for _ in range(depth):
        x = 2 * np.maximum(x, 0) - 4 * np.maximum(x - 0.5, 0)
    return x


def shallow(x: np.ndarray, units: int) -> np.ndarray:
    """The same sawtooth by one hidden layer: a unit for every slope."""
    y = units * np.maximum(x, 0)
    for i in range(1, units):
        y = y + (-1) ** i * 2 * units * np.maximum(x - i / units, 0)
    return y


def slopes(y: np.ndarray, x: np.ndarray) -> int:
    """How many straight pieces; the grid has a point at every kink."""
    rise = np.round(np.diff(y) / np.diff(x))
    return int(1 + np.count_nonzero(np.diff(rise)))


def run(seed: int = 0) -> Result:
    """Pieces are counted for every depth; nothing here is random."""
    x = np.linspace(0, 1, 2 ** (max(DEPTHS) + 2) + 1)  # dyadic: every kink lies on it
    pieces = [slopes(deep(x, k), x) for k in DEPTHS]
    gaps = [float(np.abs(deep(x, k) - shallow(x, 2**k)).max()) for k in DEPTHS]
    fewer = [slopes(shallow(x, 2**k)[: len(x) // 2 + 1], x[: len(x) // 2 + 1]) for k in DEPTHS]
    return Result(
        claim="N10",
        source="“Fundamentals of deep learning” (ch. 3), 3.1.4",
        statement="depth k of width 2 makes 2ᵏ slopes; one layer needs a unit for every one",
        holds=pieces == [2**k for k in DEPTHS]
        and max(gaps) < 1e-12
        and fewer == [max(1, 2 ** (k - 1)) for k in DEPTHS],
        measured={
            **{f"slopes at depth {k}": n for k, n in zip(DEPTHS, pieces, strict=True)},
            "units, deep, at depth 8": 2 * 8,
            "units, one layer": 2**8,
            "largest gap between both nets": max(gaps),
        },
        curves={"x": x, "depths": list(DEPTHS), "pieces": pieces},
    )


def draw(result: Result, path: str | Path) -> None:
    """The sawtooth at some depths, and units against slopes."""
    x, depths = result.curves["x"], np.array(result.curves["depths"])
    figure, (left, right) = axes(result, count=2)
    for k in (1, 2, 4):
        left.plot(x, deep(x, k), label=f"depth {k}")
    left.set(xlabel="x", ylabel="output of the net", ylim=(-0.05, 1.3))
    left.legend(loc="upper center", ncols=3)  # above the teeth
    right.semilogy(depths, 2 * depths, "o-", label="units, width 2")
    right.semilogy(depths, result.curves["pieces"], "s-", label="slopes = units of one layer")
    right.set(xlabel="depth", ylabel="number")
    right.legend()
    save(figure, path)
