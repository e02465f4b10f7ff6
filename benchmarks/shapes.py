"""Of slips after which a backward pass raises, or returns other shapes: how many are mended?

    python benchmarks/shapes.py                  # a few minutes, a Markdown table
    python benchmarks/shapes.py -k attention     # of functions that have it in their name
    python benchmarks/shapes.py --write          # the table also to benchmarks/SHAPES.md

Each slip is put into the right backward passes of `benchmarks/corpus` wherever its pattern first
matches; what still runs is no shape error and not counted. Mended: a change of that very line is
given that makes the derivation right. Elsewhere: a change of another line is.
"""

import argparse
import dataclasses
import inspect
import pathlib
import re
import statistics
import sys
import textwrap
import time
from collections.abc import Iterator

from corpus import ENTRIES, Entry
from corpus.tools import rewritten
from rich.console import Console
from rich.progress import track

from handgrad.compare import examine

FILE = pathlib.Path(__file__).parent / "SHAPES.md"
SLIPS = {
    "a matrix not transposed": (r"\.T\b", ""),
    "a matrix transposed": (r"\b(\w+) @ (\w+)\b(?![.(\[])", r"\1 @ \2.T"),
    "a product the other way round": (r"\b(?<!\.)(\w+) @ (\w+)\b(?![.(\[])", r"\2 @ \1"),
    "a sum over the other axis": (r"\.sum\(0\)", ".sum(1)"),
    "a sum over everything": (r"\.sum\(0\)", ".sum()"),
    "a sum left out": (r"\.sum\(0\)", ""),
    "an axis not kept": (r", keepdims=True", ""),
    "an axis not put in": (r"\[(:|\.\.\.), None\]", ""),
    "the first axis for the last": (r"axis=-1|(?<=\()-1(?=[,)])", "0"),
    "letters of an einsum exchanged": (r"->(\w*)(\w)(\w)\b", r"->\1\3\2"),
    "the next step": (r"\[(t|i|k)\]", r"[\1 + 1]"),
    "a slice from the other end": (r"\[(\d):\]", r"[:\1]"),
    "an index left out": (r"\[0\]", ""),
    "sizes exchanged": (r"reshape\(([^,()]+), ([^,()]+)\)", r"reshape(\2, \1)"),
}


@dataclasses.dataclass(frozen=True)
class Planted:
    slip: str
    entry: Entry
    line: int


def planted(pattern: str) -> Iterator[Planted]:
    """Every right backward pass with every slip that it has a place for."""
    seen = set()
    for entry in ENTRIES:
        function = entry.backward
        if not entry.right or pattern not in entry.name or function in seen:
            continue
        seen.add(function)
        try:
            lines, first = inspect.getsourcelines(function)
        except (OSError, TypeError):
            continue
        source = textwrap.dedent("".join(lines))
        if not source.startswith("def "):
            continue
        body = source.index("\n")
        for slip, (old, new) in SLIPS.items():
            found = re.compile(old).search(source, body)
            if found is None:
                continue
            changed = source[: found.start()] + found.expand(new) + source[found.end() :]
            wrong = rewritten(function, changed, slip)
            line = first + source[: found.start()].count("\n")
            yield Planted(slip, dataclasses.replace(entry, backward=wrong), line)


def checked(one: Planted) -> tuple[str, float] | None:
    """ "mended", "elsewhere" or "", and the seconds; None for what runs."""
    entry = one.entry
    started = time.perf_counter()
    report = examine(entry.backward, entry.reference, *entry.args, kind="backward")
    seconds = time.perf_counter() - started
    if report.problem is None:
        return None
    lines = [re.search(r">:(\d+): ", d.text) for d in report.diagnoses]
    told = {int(found[1]) for found in lines if found is not None}
    return "mended" if one.line in told else "elsewhere" if told else "", seconds


def table(results: dict[str, list[tuple[str, float]]]) -> str:
    every = [r for of in results.values() for r in of]
    text = "| slip | do not run | mended | elsewhere | s a check, median | most |\n"
    text += "|---|---:|---:|---:|---:|---:|\n"
    for slip, of in [*results.items(), ("all", every)]:
        if of:
            words, seconds = zip(*of, strict=True)
            text += (
                f"| {slip} | {len(of)} | {words.count('mended')} | {words.count('elsewhere')} "
                f"| {statistics.median(seconds):.2f} | {max(seconds):.1f} |\n"
            )
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", metavar="PATTERN", default="", help="only what has it in its name")
    parser.add_argument("--write", action="store_true", help=f"write the table to {FILE.name} too")
    parser.add_argument("--left", action="store_true", help="list what is not mended")
    given = parser.parse_args(arguments)
    chosen = [*planted(given.k)]
    if not chosen:
        parser.error(f"no backward pass with {given.k!r} in its name has a place for a slip")
    results: dict[str, list[tuple[str, float]]] = {slip: [] for slip in SLIPS}
    for one in track(chosen, "shapes", console=Console(stderr=True)):
        found = checked(one)
        if found is not None:
            results[one.slip].append(found)
        if given.left and found is not None and found[0] != "mended":
            print(f"{one.slip} in {one.entry.name}, line {one.line}: {found[0] or 'not mended'}")
    text = table(results)
    sys.stdout.write(text)
    if given.write:
        made = "Made by `python benchmarks/shapes.py --write`; what is counted stands there."
        FILE.write_text(f"# Backward passes that do not run\n\n{made}\n\n{text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
