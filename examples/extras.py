"""What an example needs besides handgrad: what is missing is said in one sentence, at the start."""

import importlib
import pathlib
import sys

LIBRARIES = {  # module -> the library's name, and the extra of handgrad that has it
    "equinox": ("Equinox", "models"),
    "flax": ("Flax", "models"),
    "matplotlib": ("matplotlib", "examples"),
    "sklearn": ("scikit-learn", "examples"),
}


def need(file: str, *modules: str) -> None:
    """End the example in that file with exit code 2 where one of the modules is not installed."""
    missing = [LIBRARIES[module] for module in modules if not _installed(module)]
    if missing:
        names = " and ".join(name for name, _ in missing)
        extras = ",".join(dict.fromkeys(extra for _, extra in missing))
        program = pathlib.Path(file).name
        print(f"{program} needs {names}: pip install 'handgrad[{extras}]'", file=sys.stderr)
        raise SystemExit(2)


def _installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return True
