"""Experiments that the documents describe and do not run: each measured, tested, and drawn.

One file an experiment: `run(seed)` gives a `Result`, a claim with the numbers that decide it,
`draw(result, path)` its picture. `save_all` runs and draws them all: `handgrad figures DIR`.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from handgrad.compare.figures.result import Result

__all__ = ["EXPERIMENTS", "Result", "experiments", "save_all"]

NEEDED = {
    "matplotlib": "the pictures are drawn by matplotlib",
    "sklearn": "the handwritten digits come with scikit-learn",
}
EXPERIMENTS = (
    "truncation",
    "contraction",
    "xor",
    "width",
    "sawtooth",
    "operations",
    "descent",
    "lag",
)


def experiments() -> dict[str, ModuleType]:
    """Name and module of every experiment, in the order of the inventory."""
    return {name: importlib.import_module(f"{__name__}.{name}") for name in EXPERIMENTS}


def save_all(
    directory: str | Path, progress: Callable[[str, int, int], None] | None = None, seed: int = 0
) -> dict[Path, Result]:
    """Run every experiment and save its picture as DIRECTORY/name.png.

    progress(name, done, total) is called before each. Needs matplotlib and scikit-learn, the
    extra `examples`: both are looked for at the start, as is whether DIRECTORY can be written to.
    """
    for name, use in NEEDED.items():
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"{use}, which is not installed: pip install 'handgrad[examples]'"
            )
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        reason = "that is a file" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(
            f"the pictures cannot be saved in {directory}: {reason}; name a folder to "
            "which files can be written, or a new one"
        ) from None
    saved = {}
    for done, (name, experiment) in enumerate(experiments().items()):
        if progress is not None:
            progress(name, done, len(EXPERIMENTS))
        result = experiment.run(seed)
        path = directory / f"{name}.png"
        experiment.draw(result, path)
        saved[path] = result
    return saved
