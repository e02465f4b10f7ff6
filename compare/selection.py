"""Which items the words on the command line select: files, names in them, and -k PATTERN."""

import argparse
import dataclasses
import fnmatch
import os
import pathlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from handgrad.compare import suite
from handgrad.compare.cases import Case
from handgrad.compare.mistake import Mistake, nearest
from handgrad.compare.suite import Item
from handgrad.compare.workers import Pool, Task

__all__ = ["matching", "named", "refuse_optimizer", "select"]

Named = TypeVar("Named", Item, Case)


def select(options: argparse.Namespace, pool: Pool) -> tuple[list[Item], bool]:
    """The items, and whether some file cannot be used (which is then said on stderr)."""
    unusable = False
    if options.files and options.sources:
        raise Mistake("a FILE and --sources exclude each other; run the command twice")
    if options.files:
        items, unusable = _in_files(options.name, options.files, pool)
    elif options.sources:
        items = _of_sources(pool)
    else:
        items = suite.built_in()
    of = " ".join([*options.files, *["--sources"] * bool(options.sources)])
    return matching(options.pattern, items, f"handgrad list {of}".rstrip()), unusable


def matching(
    pattern: str | None, items: Sequence[Named], listing: str = "handgrad list"
) -> list[Named]:
    """The items, or cases, whose id contains the pattern of -k; a Mistake where none does."""
    if pattern is None or not items:
        return list(items)
    found = [item for item in items if _matches(pattern, item.id)]
    if not found:
        refuse_optimizer(pattern)
        names = [item.function for item in items] + [item.id for item in items]
        raise Mistake(
            f"no case has {pattern!r} in its name{nearest(pattern, names)}; "
            f"{listing} shows them all"
        )
    return found


def named(name: str) -> list[Item]:
    """The cases of the built-in function of this name (`affine`, `dense.affine`)."""
    items = suite.built_in()
    if ".py" in name:
        raise Mistake(f"{name} is no function of handgrad; show takes these alone")
    name = name.partition("[")[0].removeprefix("manual.")
    found = [item for item in items if name in (item.function, f"{item.topic}.{item.function}")]
    if not found:
        refuse_optimizer(name)
        names = [item.function for item in items]
        names += [f"{item.topic}.{item.function}" for item in items]
        raise Mistake(
            f"there is no function {name!r}{nearest(name, names)}; handgrad list shows them all"
        )
    return [item for item in found if item.topic == found[0].topic]


def refuse_optimizer(name: str) -> None:
    """A Mistake if that is none of the functions but an optimiser: those are checked otherwise."""
    from handgrad.manual import optimizers

    if name.lower().removeprefix("optimizers.") in optimizers.__all__:
        raise Mistake(
            f"{name!r} is in handgrad.manual.optimizers, and what is there is checked by "
            "check_optimizer, from handgrad.compare: README.md shows how, under Optimisers, and "
            "docs/optimizers.md has the conventions"
        )


def _matches(pattern: str, name: str) -> bool:
    glob = pattern.lower().replace("[", "[[]")  # a bracket stands for itself: ids have them
    return fnmatch.fnmatchcase(name.lower(), f"*{glob}*")


def _of_sources(pool: Pool) -> list[Item]:
    for outcome in pool.run([Task("the derivations of the sources", suite.sources)]):
        if outcome.value is not None:
            return outcome.value
        raise Mistake(f"{outcome.task.name}: listing them {outcome.failure}\n{outcome.traceback}")
    return []


def _in_files(command: str, targets: Sequence[str], pool: Pool) -> tuple[list[Item], bool]:
    wanted = _wanted(command, targets)
    tasks = [Task(path, suite.contents, (os.path.abspath(path), path)) for path in wanted]
    contents: dict[str, suite.Contents] = {}
    for outcome in pool.run(tasks):
        path = outcome.task.name
        if outcome.value is None:
            problem = f"{path} cannot be used: when it was imported it {outcome.failure}"
            contents[path] = suite.Contents((), problem, outcome.traceback, outcome.printed)
        else:
            contents[path] = dataclasses.replace(outcome.value, printed=outcome.printed)
    items: list[Item] = []
    for path, names in wanted.items():
        for line in contents[path].printed.splitlines():
            print(f"{path} │ {line}", file=sys.stderr)
        if contents[path].problem:
            print(f"handgrad: {contents[path].problem}", file=sys.stderr)
            if contents[path].traceback:
                print(contents[path].traceback, file=sys.stderr)
        items += _those(contents[path].items, names, path)
    return items, any(c.problem for c in contents.values())


def _wanted(command: str, targets: Iterable[str]) -> dict[str, set[str]]:
    """File -> the names asked for in it; none stands for all."""
    wanted: dict[str, set[str]] = {}
    whole = set()
    for target in targets:
        path, separator, name = target.partition("::")
        if os.path.isdir(path):
            raise Mistake(f"{path} is a folder; give the files in it: {path.rstrip(os.sep)}/*.py")
        if not path.endswith(".py"):
            hint = f"for built-in cases of that name: handgrad {command} -k {shlex.quote(path)}"
            if not path:
                hint = "give one, as in FILE.py::NAME"
            raise Mistake(f"{path or target!r} is not a Python file; {hint}")
        if not os.path.isfile(path):
            here = [str(p) for p in pathlib.Path(path).parent.glob("*.py")]
            raise Mistake(f"there is no file {path}{nearest(path, here)}")
        if separator and not name:
            raise Mistake(f"{target} names no function; without :: all of the file is meant")
        wanted.setdefault(path, set()).add(name)
        if not name:
            whole.add(path)
    return {path: set() if path in whole else names for path, names in wanted.items()}


def _those(items: Sequence[Item], names: set[str], path: str) -> list[Item]:
    if not names or not items:
        return list(items)
    known = {item.function: item for item in items} | {
        item.id.split("::")[1]: item for item in items
    }
    for name in sorted(names - known.keys()):
        raise Mistake(
            f"{path} declares no {name!r}{nearest(name, known)}; it declares: {', '.join(known)}"
        )
    return [item for item in items if {item.function, item.id.split("::")[1]} & names]
