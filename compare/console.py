"""How the command shows things, in a terminal or a pipe: tables, reports, code, a progress bar."""

import dataclasses
import io
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Column, Table
from rich.text import Text

from handgrad.compare.patience import look_up
from handgrad.compare.report import Accuracy
from handgrad.compare.suite import CASES, SOURCES, Item, Verdict

if TYPE_CHECKING:
    from handgrad.compare.claims import Trace
    from handgrad.compare.coverage import Coverage, Survivor
    from handgrad.compare.errata import Erratum
    from handgrad.compare.lower import Lowered

__all__ = [
    "Bar",
    "case_table",
    "code",
    "coverage_table",
    "errata",
    "inaccuracy",
    "list_table",
    "lowering_summary",
    "lowering_table",
    "markdown_table",
    "output",
    "report",
    "summary",
    "trace_table",
    "uncovered",
]

Results = Mapping[Item, Verdict]
ENDLESS = 10_000  # the width of a pipe: whoever reads there wraps for himself
EVERY = 30.0  # seconds between two lines on the progress where there is no bar
READABLE = 24  # the width below which a column of words is no pleasure
BESIDE = 200  # the width up to which two pieces of code stand side by side
ACCURACY = ("accuracy: worst error, autodiff's own there", "at the platform's default precision")
WORDS = {
    "right": "right",
    "wrong": "wrong",
    "not compared": "not compared",
    "crashed": "crashed",
    "timeout": "timed out",
    "memory": "out of memory",
    "raised": "failed",
}


def output(stderr: bool = False) -> Console:
    """A console that never fails for want of a character in the terminal's encoding."""
    stream = sys.stderr if stderr else sys.stdout
    if stream is None:  # closed by the shell
        return Console(file=io.StringIO())
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if console.is_terminal:
        return console
    console.file, console.width = cast(IO[str], _Trimmed(stream)), ENDLESS
    return console


class _Trimmed:
    """A stream that gets no spaces at the ends of lines, with which tables are filled up."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Bar:
    """What is running, what is done: a bar on stderr; where that is no terminal, a line at times.

    A log shows then how far a run had come that was stopped, and what was not right until then.
    """

    def __init__(self, total: int):
        console = output(stderr=True)
        self._running: dict[str, None] = {}
        self._failed: list[str] = []
        self._over = threading.Event()
        self._progress = Progress(
            BarColumn(None, table_column=Column(min_width=8, ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
            TimeElapsedColumn(Column(no_wrap=True, min_width=7)),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2),
            ),
            expand=True,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> "Bar":
        self._progress.start()
        if self._progress.disable:
            self._lines = threading.Thread(target=self._tell, daemon=True)
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._progress.disable:
            self._over.set()
            self._lines.join()

    def _tell(self) -> None:
        begin = time.monotonic()
        while not self._over.wait(EVERY):
            task = self._progress.tasks[0]
            seconds = f"{time.monotonic() - begin:.0f} s"
            done = f"{task.completed:.0f} of {task.total:.0f} done in {seconds}"
            failed = [f"not right: {', '.join(self._failed)}"] * bool(self._failed)
            running = [f"at {', '.join(self._running)}"] * bool(self._running)
            print("handgrad:", " · ".join([done, *failed, *running]), file=sys.stderr, flush=True)

    def begin(self, name: str) -> None:
        look_up()
        self._running[name] = None
        self._show(0)

    def end(self, name: str, ok: bool) -> None:
        self._running.pop(name, None)
        self._failed += [name] * (not ok)
        self._show(1)

    def step(self, name: str, done: int, total: int) -> None:
        """One thing after the other: this one begins, and those before it are done."""
        look_up()
        self._running = {name: None}
        self._progress.update(self._task, description=name, completed=done, total=total)

    def advance(self, name: str, steps: int) -> None:
        """So much more of this is done."""
        look_up()
        self._running = {name: None}
        self._show(steps)

    def _show(self, steps: int) -> None:
        failed = [f"{len(self._failed)} not right"] * bool(self._failed)
        text = " · ".join([*failed, *self._running])
        self._progress.update(self._task, description=text, advance=steps)


@dataclasses.dataclass(frozen=True)
class Fitting:
    """A table; where it does not fit, without its lesser columns, or as a paragraph a row."""

    columns: Mapping[str, Sequence[str | Text]]
    lesser: Sequence[str]  # what another column or the summary tells as well
    folding: Sequence[str]  # what may go over several lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = dict(self.columns)
        for name in ("", *self.lesser):
            shown.pop(name, None)
            if sum(self._width(console, options, n) + 3 for n in shown) <= options.max_width:
                table = _table()
                for header in shown:
                    numbers = all(str(cell)[:1].isdigit() for cell in shown[header])
                    justify = "right" if numbers and header in self.lesser else "left"
                    table.add_column(header, justify=justify, no_wrap=header not in self.folding)
                for cells in zip(*shown.values(), strict=True):
                    table.add_row(*cells)
                yield table
                return
        for title, *cells in zip(*shown.values(), strict=True):
            yield Text(str(title), "bold")
            for header, cell in zip(list(shown)[1:], cells, strict=True):
                if not str(cell):
                    continue
                lines = Text.assemble(f"{header}: ", cell).wrap(console, options.max_width - 2)
                yield from (Text.assemble("  ", line) for line in lines)

    def _width(self, console: Console, options: ConsoleOptions, name: str) -> int:
        """Of the longest cell; where cells may be folded, of the longest word, and READABLE."""
        endless = options.update_width(ENDLESS)
        cells = [Measurement.get(console, endless, c) for c in (name, *self.columns[name])]
        width = max(c.maximum for c in cells)
        if name in self.folding:
            return max(min(width, READABLE), *(c.minimum for c in cells))
        return width


def case_table(found: Results) -> Fitting:
    """One row a topic; without what was not measured."""
    accuracy, beside = ACCURACY
    columns: dict[str, list[str | Text]] = {}
    for topic in dict.fromkeys(item.topic for item in found):
        mine = {item: verdict for item, verdict in found.items() if item.topic == topic}
        ok = all(verdict.ok for verdict in mine.values())
        row = {
            "topic": topic,
            "functions": str(len({item.function for item in mine})),
            "cases": str(len(mine)),
            "derivations": Text(f"{'✓' if ok else '✗'} {counts(mine)}", "green" if ok else "red"),
            "verified": _verified(mine),
            accuracy: _worst(mine),
            beside: _worst_by_default(mine),
        }
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    if all(item.origin == SOURCES for item in found):
        columns.pop("functions", None)
    if not any(verdict.accuracy for verdict in found.values()):
        columns.pop(accuracy, None)
    if not any(verdict.by_default for verdict in found.values()):
        columns.pop(beside, None)
    return Fitting(columns, ("functions", "cases", "verified"), ACCURACY)


def _verified(found: Results) -> str:
    """Such as `12 gradients, 30 lines`."""
    totals: dict[str, int] = {}
    for verdict in found.values():
        totals[verdict.unit] = totals.get(verdict.unit, 0) + verdict.verified
    parts = [f"{n} {unit}{'s' * (n != 1)}" for unit, n in totals.items()]
    return ", ".join(parts)


def counts(found: Results) -> str:
    """Such as `right`, or `11 right, 1 wrong, 1 timed out`."""
    statuses = [verdict.status for verdict in found.values()]
    if set(statuses) <= {"right"}:
        return "right"
    return ", ".join(f"{statuses.count(s)} {word}" for s, word in WORDS.items() if s in statuses)


def _worst(found: Results) -> Text:
    every = [(a, item) for item, verdict in found.items() for a in verdict.accuracy]
    if not every:
        return Text("not measured", style="dim")
    measured = [pair for pair in every if not pair[0].of_nothing] or every
    a, item = max(measured, key=lambda pair: _badness(pair[0]))
    losing = sum(not verdict.accurate for verdict in found.values())
    where = f"{_error(a)}, in {item.id}"
    return Text(f"{losing} lose digits; {where}", style="yellow") if losing else Text(where)


def _worst_by_default(found: Results) -> Text:
    """Reported, and nothing decided by it."""
    measured = [a for verdict in found.values() for a in verdict.by_default]
    return Text(_error(max(measured, key=lambda a: a.hand)) if measured else "not measured")


def _badness(a: Accuracy) -> tuple[bool, float]:
    return not a.ok, a.hand


def _error(a: Accuracy) -> str:
    return f"{a.hand:.3g} ulp ({a.autodiff:.3g})"


def inaccuracy(item: Item, verdict: Verdict) -> Text:
    """A line on a right derivation whose code loses digits."""
    a = max(verdict.accuracy, key=_badness)
    return Text(
        f"! {item.id}: right, but its code loses digits in {a.dtype}: {a.hand:.3g} ulp in the "
        f"gradient of {a.path}, autodiff's own {a.autodiff:.3g}",
        style="yellow",
    )


def report(verdict: Verdict, command: str = "") -> Text:
    """A report as it is printed; `command` reproduces it."""
    text = Text(verdict.text)
    text.highlight_regex(r"\A✓.*", "bold green")
    text.highlight_regex(r"\A✗.*", "bold red")
    text.highlight_regex(r"(?m)^  →.*", "bold")
    text.highlight_regex(r"(?m)^  note:.*", "dim")
    if verdict.printed:
        text.append("\n  it printed (every line once):")
        text.append("".join(f"\n  │ {line}" for line in _clean(verdict.printed)), "dim")
    if command:
        text.append("\n  reproduce: ").append(command, "cyan")
    return text


def _clean(printed: str) -> list[str]:
    """Each line once, since a function is called many times over; no control characters."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", printed)
    return list(dict.fromkeys(text.rstrip().splitlines()))


def summary(found: Results, total: int, ending: str) -> Text:
    """The last line."""
    ok = all(verdict.ok for verdict in found.values())
    done = f"{len(found)} of {total}" if len(found) < total else f"{total}"
    mark = "✗" if not ok else "✓" if len(found) == total else "…"
    return Text(
        f"{mark} {done} case{'s' * (total != 1)}: {counts(found) if found else 'nothing done'}"
        f" · {_verified(found) or 'nothing'} verified · {ending}",
        style="bold red" if not ok else "bold green" if len(found) == total else "bold yellow",
    )


def coverage_table(measured: Sequence["Coverage"]) -> Table:
    """One row a function: how many of the changes of its equations its inputs notice."""
    table = _table()
    table.add_column("function", overflow="fold")
    table.add_column("coverage", justify="right")
    table.add_column("noticed", justify="right")
    table.add_column("make no difference", justify="right")
    for c in measured:
        if c.unavailable is not None:
            table.add_row(c.name, Text("not available", style="yellow"), "", "")
            continue
        style = "green" if not c.survived else "red"
        share = Text(f"{_percent(c.fraction)}", style=style)
        table.add_row(c.name, share, f"{c.killed} of {c.total}", str(len(c.equivalent) or ""))
    return table


def _percent(fraction: float) -> str:
    """Rounded down: 100% is said of nothing less."""
    return f"{int(1000 * fraction) / 10:g}%"


def uncovered(measured: Sequence["Coverage"], least: float) -> Text:
    """What no input exercises, line by line; changes that make no difference, with the reason."""
    text = Text()
    for c in measured:
        if c.unavailable is not None:
            text.append(f"\n! {c.name}: coverage not available: {c.unavailable}\n", "yellow")
            continue
        if c.survived or c.equivalent:
            text.append(f"\n{c.name}\n", "bold")
        weak = [str(s) for s in c.survived if not s.reason]
        for line in (*weak, *_alike(s for s in c.survived if s.reason)):
            text.append(f"  not verified by these inputs  {line}\n", "red")
        for line in _alike(c.equivalent):
            text.append(f"  makes no difference  {line}\n", "dim")
    if short := [c.name for c in measured if not c.reaches(least)] if least else []:
        text.append(
            f"\n✗ the coverage of {', '.join(short)} is less than {_percent(least)}\n", "bold red"
        )
    return text


def _alike(changes: Iterable["Survivor"]) -> list[str]:
    """One line for each line of the source, and each reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for s in changes:
        groups.setdefault((str(s.place), s.reason), []).append(s.words)
    return [
        f"{place}: {'; '.join(words[:2])}{f'; {len(words) - 2} more' * (len(words) > 2)}: {reason}"
        for (place, reason), words in groups.items()
    ]


def trace_table(rows: Sequence["Trace"]) -> Fitting:
    """From a claim of the documents to the code that runs, one row a derivation."""
    names = ("claim", "derivation", "source", "manual", "reference", "verdict")
    columns: dict[str, list[str | Text]] = {
        name: [Text(getattr(row, name), "" if row.ok else "bold red") for row in rows]
        for name in names
    }
    return Fitting(columns, ("reference",), names[1:5])


def list_table(items: Sequence[Item]) -> Fitting:
    """One row an item."""
    columns: dict[str, list[str | Text]] = {
        "case": [Text(item.id) for item in items],
        "function": [("manual." if i.origin == CASES else "") + i.function for i in items],
        "inputs": [Text(item.sample) for item in items],
    }
    return Fitting(columns, ("function",), ("inputs",))


def markdown_table(items: Sequence[Item]) -> str:
    """One row a topic: its functions, or the names of its derivations, and how many cases."""
    of_sources = all(item.origin == SOURCES for item in items)
    kind = "derivations" if of_sources else "functions"
    lines = [f"| topic | {kind} | cases |", "| --- | --- | ---: |"]
    for topic in dict.fromkeys(item.topic for item in items):
        mine = [item for item in items if item.topic == topic]
        names = [
            item.id.removeprefix(f"{topic}.") if of_sources else f"`{item.function}`"
            for item in mine
        ]
        lines.append(f"| {topic} | {', '.join(dict.fromkeys(names))} | {len(mine)} |")
    return "\n".join(lines)


def lowering_table(found: Sequence["Lowered"]) -> Fitting:
    """One row a sample of an operation: whether it lowers, or why not, and into what."""
    columns: dict[str, list[str | Text]] = {
        "operation": [Text(row.id) for row in found],
        "lowers": [Text("✓", "green") if r.ok else Text(f"✗ {r.reasons}", "red") for r in found],
        "forward, bytes": [f"{row.forward.size:,}" for row in found],
        "backward, bytes": [f"{row.backward.size:,}" for row in found],
        "custom calls": [", ".join(row.custom_calls) or "none" for row in found],
    }
    return Fitting(columns, ("custom calls", "backward, bytes", "forward, bytes"), ("lowers",))


def lowering_summary(found: Sequence["Lowered"], seconds: float) -> Text:
    """The last line."""
    platforms = found[0].forward.platforms
    failing = [row for row in found if not row.ok]
    calls = sum(bool(row.custom_calls) for row in found)
    verdict = f"{len(failing)} cannot be lowered" if failing else "all lower"
    return Text(
        f"{'✗' if failing else '✓'} {len(found)} operation{'s' * (len(found) != 1)}, forward and "
        f"backward, for {', '.join(platforms)}: {verdict} · {calls} with custom calls · "
        f"{seconds:.1f} s",
        style="bold red" if failing else "bold green",
    )


def errata(table: Iterable["Erratum"]) -> Text:
    """Document by document: what is printed, what holds instead, and the numbers that show it."""
    text, document = Text(), ""
    for row in table:
        if row.document != document:
            document = row.document
            text.append(f"{document}\n", "bold")
        mark, style = ("✓", "green") if row.confirmed else ("✗", "bold red")
        text.append(f"  {mark} ", style).append(f"{row.place or 'no place given'} [{row.claim}]\n")
        text.append(f"      printed  {row.printed}\n")
        text.append(f"      holds    {row.correction or '(no correction)'}\n", "green")
        text.append(f"      numbers  {row.numbers}\n      because  {row.why}\n\n")
    return text


def code(console: Console, sides: Mapping[str, str]) -> None:
    """Two pieces of Python side by side, or one after the other where they do not fit."""
    widths = [max(map(len, text.splitlines()), default=0) for text in sides.values()]
    if sum(widths) + 4 * len(widths) <= min(console.width, BESIDE):
        table = _table()
        for title in sides:
            table.add_column(title)
        table.add_row(*map(_syntax, sides.values()))
        console.print(table)
        return
    for title, text in sides.items():
        console.print(Text(title, "bold"))
        console.print(Padding(_syntax(text), (0, 0, 1, 2)))


def _syntax(text: str) -> Text:
    """In colours, and wrapped where a line is too long: a `Syntax` of Rich is cut off there."""
    style = Syntax("", "python", theme="ansi_dark", background_color="default", word_wrap=True)
    found = style.highlight(text)
    found.overflow = "fold"
    found.rstrip()
    return found


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
