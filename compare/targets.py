"""What the words on the command line name for a search: built-in cases, declarations of a file."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

from handgrad.compare import cases, declare, reproduce, selection, suite
from handgrad.compare.mistake import Mistake, nearest

__all__ = ["Target", "targets"]

DRAWS = 8  # of a specification, to see the signs that it has


@dataclasses.dataclass(frozen=True)
class Target:
    """A derivation, the function it belongs to, arguments; how the two are written."""

    id: str
    candidate: Callable[..., Any]
    reference: Callable[..., Any]
    args: tuple
    alike: tuple[tuple, ...] = ()  # arguments of other seeds
    kind: declare.Kind = "function"
    argnums: tuple[int, ...] | None = None
    functions: tuple[reproduce.Spelled, reproduce.Spelled] | None = None


def targets(name: str, seed: int) -> list[Target]:
    """`softmax`, `activations.softmax`, `activations.softmax[ties]`, FILE.py or FILE.py::NAME."""
    path, _, inside = name.partition("::")
    return _in_file(path, inside, seed) if path.endswith(".py") else _built_in(name, seed)


def _built_in(name: str, seed: int) -> list[Target]:
    from handgrad import manual, reference

    every = cases.load()
    names = [n for case in every for n in (case.function, f"{case.topic}.{case.function}", case.id)]
    wanted = name.removeprefix("manual.")
    if os.path.isdir(name):
        raise Mistake(f"{name} is a folder; name a file of it and a function, file.py::name")
    if wanted not in names:
        selection.refuse_optimizer(wanted)
        raise Mistake(
            f"there is no function {name!r}{nearest(wanted, names)}; handgrad list shows them all"
        )
    found = []
    for case in every:
        if wanted in (case.function, f"{case.topic}.{case.function}", case.id):
            hand, plain = (getattr(room, case.function) for room in (manual, reference))
            if case.config:
                hand, plain = (functools.partial(f, **case.config) for f in (hand, plain))
            args, *alike = _draws(case, seed)
            found.append(Target(case.id, hand, plain, args, tuple(alike)))
    return found


def _draws(case: cases.Case, seed: int) -> list[tuple]:
    return [case.draw(seed + k) for k in range(DRAWS)]


def _in_file(path: str, inside: str, seed: int) -> list[Target]:
    if not os.path.isfile(path):
        raise Mistake(f"there is no file {path}")
    whole = os.path.abspath(path)
    before = len(declare.declared())  # of other files, run earlier in this process
    contents = suite.contents(whole, path)
    if contents.problem:
        raise Mistake(f"{contents.problem}\n{contents.traceback}".rstrip())
    since = declare.declared()[before:] or declare.declared()  # it may have been run already
    mine = [(n, d) for n, d in enumerate(since) if d.file == whole]
    names = suite.numbered([d.name for _, d in mine])
    known = dict.fromkeys([*names, *(d.name for _, d in mine)])
    if inside and inside not in known:
        raise Mistake(
            f"{path} declares no function {inside!r}{nearest(inside, known)}; it declares: "
            f"{', '.join(known)}"
        )
    found = []
    for (number, d), name in zip(mine, names, strict=True):
        if inside not in ("", name, d.name):
            continue
        needs = (
            "import runpy", "from handgrad.compare import declare", f"runpy.run_path({path!r})",
            f"d = declare.declared()[{number}]  # {d.name}",
        )  # fmt: skip
        case = cases.Case(d.name, *d.args)
        case.topic = os.path.basename(path)
        try:
            args, *alike = _draws(case, seed)
        except Exception as error:
            raise Mistake(f"{path}::{name}: {suite.undrawable(error)}") from None
        found.append(Target(
            f"{path}::{name}", d.candidate, d.reference, args, tuple(alike), d.kind, d.argnums,
            (reproduce.Spelled("d.candidate", *needs), reproduce.Spelled("d.reference")),
        ))  # fmt: skip
    return found
