"""Write docs/catalogue.md: what other libraries derive by hand, and what this one has of it.

python docs/catalogue.py           # rewrite the page
python docs/catalogue.py --check   # exit 1 if the page is not what it would be

Their operations stand in catalogue.json, with the file and the commit they were read from; ours are
those that `handgrad list` shows.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from handgrad.compare.cases import load

PAGE = pathlib.Path(__file__).with_suffix(".md")
DATA = PAGE.with_suffix(".json")


def page() -> str:
    libraries = json.loads(DATA.read_text("utf-8"))["libraries"]
    ours = list(dict.fromkeys(case.function for case in load()))
    check(libraries, ours)
    lines = [
        "# The operations, beside those of other libraries",
        "",
        "Written by `python docs/catalogue.py`, out of `docs/catalogue.json` and the cases. An",
        "operation counts as had only where one function here computes the same quantity.",
        "",
        "| library | its operations | of them here | here and not there |",
        "| --- | ---: | ---: | ---: |",
    ]
    for library in libraries:
        had = [row for row in library["operations"] if row["ours"]]
        shared = {name for row in had for name in row["ours"]}
        lines.append(
            f"| [{library['name']}]({library['repository']}) | {len(library['operations'])} "
            f"| {len(had)} | {len(ours) - len(shared)} |"
        )
    for library in libraries:
        source = f"{library['repository']}/blob/{library['commit']}/{library['source']}"
        commit = library["commit"][:7]
        lines += [
            "",
            f"## {library['name']}",
            "",
            f"{library['about'][0].upper()}{library['about'][1:]}.",
            f"Source: [{library['source']} at {commit}]({source}).",
            "",
            "| there | here |",
            "| --- | --- |",
        ]
        for row in library["operations"]:
            names = ", ".join(f"`{name}`" for name in row["ours"]) or "–"
            lines.append(f"| {row['theirs']} | {names} |")
    known = {n for library in libraries for row in library["operations"] for n in row["ours"]}
    lines += ["", "## Here, and in neither of these lists", ""]
    lines += [", ".join(f"`{name}`" for name in ours if name not in known) + "."]
    return "\n".join(lines) + "\n"


def check(libraries: Sequence[dict], ours: Sequence[str]) -> None:
    """A ValueError for a name that no operation has, and for one of theirs that stands twice."""
    for library in libraries:
        theirs = [row["theirs"] for row in library["operations"]]
        for name in theirs:
            if theirs.count(name) > 1:
                raise ValueError(f"{DATA.name}: {library['name']} has {name!r} more than once")
        for row in library["operations"]:
            for name in row["ours"]:
                if name not in ours:
                    raise ValueError(f"{DATA.name}: there is no operation {name!r} here")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args(arguments)
    text = page()
    if given.check:
        if PAGE.exists() and PAGE.read_text("utf-8") == text:
            return 0
        print(f"{PAGE.name} is out of date: run python docs/catalogue.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
