"""The command `handgrad`. Rich and JAX are imported when they are needed: it answers at once."""

import argparse
import os
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from handgrad.compare.mistake import Mistake, nearest
from handgrad.compare.patience import interrupt, look_up

if TYPE_CHECKING:
    from rich.console import Console

    from handgrad.compare.coverage import Coverage
    from handgrad.compare.report import Report
    from handgrad.compare.suite import Item, Verdict
    from handgrad.compare.workers import Pool

__all__ = ["main"]

RIGHT, WRONG, USAGE, INTERRUPTED = 0, 1, 2, 130
TIMEOUT = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser, names = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    if arguments is None:  # the command itself, which no other program runs
        signal.signal(signal.SIGINT, interrupt)
    try:
        name = next((word for word in words if not word.startswith("-")), None)
        if name is not None and name not in names:
            later = next((word for word in words if word in names), None)
            if words[0].startswith("-") and later is not None:
                raise Mistake(f"options stand after the command: handgrad {later} {words[0]} ...")
            raise Mistake(
                f"there is no command {name!r}{nearest(name, names)}; handgrad --help shows them "
                "all"
            )
        options = parser.parse_args(words)
        if options.command is None:
            parser.print_help()
            return RIGHT
        code = options.command(options)
        look_up()
        return code
    except (Mistake, OSError) as mistake:  # OSError: a file that cannot be read or written
        print(f"handgrad: {mistake}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("handgrad: interrupted", file=sys.stderr)
        return INTERRUPTED


# --- what can be typed ---------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """One that answers for its own words: argparse leaves a command's unknown ones to the whole."""

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        options, unknown = super().parse_known_args(*args, **named)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser, and the names of the commands."""
    parser = _Parser(
        prog="handgrad",
        description="Is a gradient derived by hand right? handgrad compares it with autodiff, "
        "element by element, and says where it goes wrong.",
        epilog="handgrad COMMAND --help tells more about a command.",
    )
    parser.add_argument("-V", "--version", action=_Version)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="name")
    _add_check(commands)
    _add_list(commands)
    _add_show(commands)
    _add_fuzz(commands)
    _add_figures(commands)
    _add_errata(commands)
    _add_lower(commands)
    return parser, list(commands.choices)


def _add_check(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="verify the built-in derivations, or those in a file of yours",
        description="Verify derivations. Without a FILE: everything built in. With one: what it\n"
        "declares with the decorators @backward_of, @gradient_of and @same_as.",
        epilog="examples:\n"
        "  handgrad check                              everything built in\n"
        "  handgrad check -k softmax                   what has softmax in its name\n"
        "  handgrad check my_derivation.py             what your file declares\n"
        "  handgrad check my_derivation.py::my_loss    one derivation of it\n"
        "  handgrad check --platform gpu               the accuracy as it is on that platform\n\n"
        "exit code: 0 all right, 1 a derivation is wrong or could not be compared,\n"
        "2 wrong usage or a file that cannot be used, 130 interrupted (Ctrl-C)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.set_defaults(command=_check)
    _add_selection(check)
    check.add_argument(
        "--seed", type=_natural, default=0, metavar="N",
        help="of the sample inputs and cotangents; the same seed, the same result (default 0)",
    )  # fmt: skip
    check.add_argument(
        "--scale", type=_positive, default=1.0, metavar="X",
        help="multiply the normally distributed sample inputs by X (default 1)",
    )  # fmt: skip
    check.add_argument(
        "--platform", choices=("cpu", "gpu", "tpu"),
        help="where to measure the accuracy, with matrix products at the highest precision, which "
        "decides, and at the platform's default; the derivation is judged in float64 on the CPU "
        "in any case (default: JAX's device and precision)",
    )  # fmt: skip
    check.add_argument(
        "-v", "--verbose", action="store_true",
        help="print the report of every case, not only of those that fail",
    )  # fmt: skip
    check.add_argument(
        "--coverage", action="store_true",
        help="measure too how much of every derivation its sample inputs exercise: how many of the "
        "changes of its equations they notice",
    )  # fmt: skip
    check.add_argument(
        "--coverage-min", type=_percentage, metavar="PERCENT",
        help="the same, and fail where it is less than PERCENT, or cannot be measured",
    )  # fmt: skip
    check.add_argument(
        "--json", metavar="FILE",
        help="write every report to FILE, as JSON; - is the standard output, and what is there "
        "otherwise goes to the standard error",
    )  # fmt: skip
    check.add_argument(
        "--junit", metavar="FILE", help="write the results to FILE, as JUnit XML; - as above"
    )
    check.add_argument(
        "-j", "--jobs", type=_whole, default=min(2, os.cpu_count() or 1), metavar="N",
        help="worker processes (default %(default)s)",
    )  # fmt: skip
    check.add_argument(
        "--timeout", type=_positive, default=TIMEOUT, metavar="S",
        help="seconds after which a case is stopped, and counted as failed (default 60)",
    )  # fmt: skip
    check.add_argument(
        "--memory", type=_positive, metavar="GB",
        help="memory that one worker process may take (default: 90 %% of this machine's)",
    )  # fmt: skip


def _add_list(commands: Any) -> None:
    listing = commands.add_parser(
        "list",
        help="list what can be verified",
        description="List every built-in case, or what a file of yours declares: its name, its "
        "function and its sample inputs. With --sources: every claim of the source documents, the "
        "code that runs for it, and the verdict; the derivations are verified for that.",
    )
    listing.set_defaults(command=_list, jobs=1, timeout=TIMEOUT, memory=None)
    _add_selection(listing)
    listing.add_argument(
        "--markdown", action="store_true",
        help="a Markdown table instead, by topic: the functions, and how many cases they have",
    )  # fmt: skip


def _add_show(commands: Any) -> None:
    show = commands.add_parser(
        "show",
        help="show a built-in function: mathematics, code, verdict",
        description="Show a built-in function: its signature, its mathematics, the code by hand "
        "beside the code that autodiff differentiates, and the verdict.",
    )
    show.add_argument("function", metavar="NAME", help="such as softmax or activations.softmax")
    show.set_defaults(command=_show, jobs=2, timeout=TIMEOUT, memory=None, seed=0, scale=1.0,
                      platform=None)  # fmt: skip


def _add_fuzz(commands: Any) -> None:
    fuzz = commands.add_parser(
        "fuzz",
        help="search for an input at which a derivation fails",
        description="Try other inputs than the samples: other sizes, scales, special values, ties. "
        "The first that fails is made as small as possible, and printed as Python.",
        epilog="exit code: 0 none found, 1 one found or a case that could not be searched, 2 wrong "
        "usage, 130 interrupted (Ctrl-C)",
    )
    fuzz.set_defaults(command=_fuzz)
    fuzz.add_argument(
        "target", metavar="NAME",
        help="a built-in function or case (softmax, dense.affine[no bias]), FILE.py or "
        "FILE.py::NAME",
    )  # fmt: skip
    fuzz.add_argument(
        "--seed", type=_natural, default=0, metavar="N",
        help="of the search; the same seed, the same inputs (default 0)",
    )  # fmt: skip
    fuzz.add_argument(
        "--trials", type=_whole, default=500, metavar="N",
        help="inputs tried for each case (default 500)",
    )  # fmt: skip
    fuzz.add_argument(
        "--budget", type=_positive, default=float("inf"), metavar="S",
        help="seconds after which the search ends, whatever was tried (default: none)",
    )  # fmt: skip


def _add_figures(commands: Any) -> None:
    figures = commands.add_parser(
        "figures",
        help="run the experiments of the source documents, and save their pictures",
        description="Run the experiments that the source documents describe, and save a picture of "
        "each as DIR/NAME.png. Needs matplotlib, and scikit-learn for its handwritten digits: "
        "pip install 'handgrad[examples]'.",
    )
    figures.add_argument("directory", metavar="DIR", help="where to; made if it does not exist")
    _add_seed(figures)
    figures.set_defaults(command=_figures)


def _add_errata(commands: Any) -> None:
    errata = commands.add_parser(
        "errata",
        help="what the source documents print and should not have",
        description="Every equation of the source documents that is wrong as printed, beside the "
        "one that holds, with the numbers that show it: all of it computed anew.",
    )
    _add_seed(errata)
    errata.set_defaults(command=_errata)


def _add_lower(commands: Any) -> None:
    lower = commands.add_parser(
        "lower",
        help="lower every operation for accelerators that are not here",
        description="Lower every operation by hand, forward and backward, through jax.export: for "
        "platforms that need not be there. One row an operation: whether it lowers, or the reason "
        "why not, its custom calls, and the bytes of StableHLO of the one module for them all.",
        epilog="exit code: 0 everything lowers, 1 something does not, 2 wrong usage",
    )
    lower.add_argument("names", nargs="*", help=argparse.SUPPRESS)  # to be told of -k
    lower.add_argument(
        "--platform", default="tpu,cuda,rocm,cpu", metavar="NAMES",
        help="with commas between; gpu is cuda and rocm (default %(default)s)",
    )  # fmt: skip
    lower.add_argument(
        "-k", type=_pattern, dest="pattern", metavar="PATTERN",
        help="only the cases whose name contains PATTERN; * and ? stand for any characters",
    )  # fmt: skip
    lower.add_argument(
        "--every-case", action="store_true",
        help="every case, not only the first of each operation",
    )  # fmt: skip
    lower.set_defaults(command=_lower)


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=_natural, default=0, metavar="N",
        help="of the random numbers; the same seed, the same result (default 0)",
    )  # fmt: skip


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", metavar="FILE.py[::NAME]",
        help="a Python file that declares derivations, or one of them by its name",
    )  # fmt: skip
    parser.add_argument(
        "--sources", action="store_true",
        help="the derivations of the source documents, line by line, instead of the functions",
    )  # fmt: skip
    parser.add_argument(
        "-k", type=_pattern, dest="pattern", metavar="PATTERN",
        help="only the cases whose name contains PATTERN; * and ? stand for any characters",
    )  # fmt: skip


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str):
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        python = ".".join(map(str, sys.version_info[:3]))
        print(f"handgrad {version('handgrad')} (jax {version('jax')}, Python {python})")
        parser.exit()


def _pattern(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError(
            "'' is no PATTERN; give a part of a name, such as softmax, or leave -k out for all"
        )
    return text


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _percentage(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return number


# --- check ---------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from handgrad.compare import console, export, selection

    begin = time.monotonic()
    if options.json == options.junit == "-":
        raise Mistake("--json - and --junit - cannot share the standard output; name a file")
    for path in (options.json, options.junit):
        if path is not None:
            _writable(path)
    coverage = options.coverage or options.coverage_min is not None
    if coverage and options.sources:
        raise Mistake(
            "--coverage measures what the sample inputs of a backward exercise; the derivations of "
            "--sources are verified line by line instead: leave one of the two out"
        )
    with _pool(options) as pool:
        _ask_for(options.platform, pool)
        items, unusable = selection.select(options, pool)
        found, stop = _examine(options, pool, items)
        measured = []
        if stop is None and coverage:
            measured, stop = _measure(options, pool, items)
    seconds = time.monotonic() - begin
    out = console.output(stderr="-" in (options.json, options.junit))
    _print_results(out, options, found)
    least = (options.coverage_min or 0.0) / 100
    if measured:
        out.print(console.coverage_table(measured))
        out.print(console.uncovered(measured, least))
    if options.json:
        text = export.as_json(
            found, seed=options.seed, scale=options.scale, interrupted=stop is not None,
            coverage=measured,
        )  # fmt: skip
        _write(options.json, text)
    if options.junit:
        _write(options.junit, export.as_junit(found, seconds))
    if items:
        ending = f"seed {options.seed} · {seconds:.1f} s"
        out.print(console.summary(found, len(items), ending))
    if stop is not None:
        raise stop
    if unusable:
        return USAGE
    covered = options.coverage_min is None or all(c.reaches(least) for c in measured)
    return RIGHT if covered and all(verdict.ok for verdict in found.values()) else WRONG


def _ask_for(platform: str | None, pool: "Pool") -> None:
    """A Mistake unless the workers find the platform."""
    from handgrad.compare import suite, workers

    tasks = [workers.Task(platform, suite.missing, (platform,))] if platform else []
    for outcome in pool.run(tasks):
        if why := outcome.value or outcome.failure:
            raise Mistake(f"--platform {platform} is not to be had: {why}")


def _pool(options: argparse.Namespace) -> "Pool":
    from handgrad.compare import suite, workers

    memory = options.memory and int(options.memory * 1e9)
    if memory is None and (whole := workers.memory_of_machine()) is not None:
        memory = int(0.9 * whole)
    return workers.Pool(options.jobs, options.timeout, memory, suite.prepare)


def _examine(
    options: argparse.Namespace, pool: "Pool", items: Sequence["Item"]
) -> tuple[dict["Item", "Verdict"], BaseException | None]:
    """The verdicts in the order of the items; and what came before the last, Ctrl-C perhaps."""
    from handgrad.compare import console, suite, workers

    by_id = {item.id: item for item in items}
    tasks = [
        workers.Task(item.id, suite.examine, (item, options.seed, options.scale, options.platform))
        for item in items
    ]
    found: dict[Item, Verdict] = {}
    stop = None
    with console.Bar(len(tasks)) as bar:
        try:
            for outcome in pool.run(tasks, lambda task: bar.begin(task.name)):
                item = by_id[outcome.task.name]
                found[item] = suite.verdict_of(item, outcome)
                bar.end(item.id, found[item].ok)
        except (KeyboardInterrupt, workers.WorkerError) as error:
            stop = error
    return {item: found[item] for item in items if item in found}, stop


def _measure(
    options: argparse.Namespace, pool: "Pool", items: Sequence["Item"]
) -> tuple[list["Coverage"], BaseException | None]:
    """The coverage of every function by all its sample inputs, as far as it has come."""
    from handgrad.compare import console, suite, workers

    by_id = {item.id: item for item in items}
    tasks = [
        workers.Task(item.id, suite.measure, (item, options.seed, options.scale)) for item in items
    ]
    found, stop = {}, None
    with console.Bar(len(tasks)) as bar:
        try:
            for outcome in pool.run(tasks, lambda task: bar.begin(task.name)):
                found[by_id[outcome.task.name]] = outcome
                bar.end(outcome.task.name, True)
        except (KeyboardInterrupt, workers.WorkerError) as error:
            stop = error
    return suite.coverages((item, found[item]) for item in items if item in found), stop


def _print_results(
    out: "Console", options: argparse.Namespace, found: dict["Item", "Verdict"]
) -> None:
    from handgrad.compare import console

    if found and not options.files:
        out.print(console.case_table(found))
        out.print()
    for item, verdict in found.items():
        if verdict.ok and not options.verbose and not options.files:
            if not verdict.accurate:
                out.print(console.inaccuracy(item, verdict))
                out.print()
            continue
        out.print(console.report(verdict, "" if verdict.ok else _reproduce(item, options)))
        out.print()


def _reproduce(item: "Item", options: argparse.Namespace) -> str:
    from handgrad.compare.suite import CASES, SOURCES

    selecting = {CASES: ["-k", item.id], SOURCES: ["--sources", "-k", item.id]}
    words = ["handgrad", "check", *selecting.get(item.origin, [item.id])]
    words += ["--seed", str(options.seed)]
    if options.scale != 1:
        words += ["--scale", str(options.scale)]
    if options.platform is not None:
        words += ["--platform", options.platform]
    if options.timeout != TIMEOUT:
        words += ["--timeout", str(options.timeout)]
    if options.memory is not None:
        words += ["--memory", str(options.memory)]
    return shlex.join(words)


def _write(path: str, text: str) -> None:
    """Into that file, or the standard output: in UTF-8 there too, whatever the terminal has."""
    if path != "-":
        pathlib.Path(path).write_text(text, "utf-8")
        return
    sys.stdout.buffer.write(text.encode())
    sys.stdout.flush()


def _writable(path: str) -> None:
    if path == "-":
        return
    if not path:
        raise Mistake("'' cannot be written; give the name of a file, or - for the standard output")
    folder = pathlib.Path(path).absolute().parent
    if not folder.is_dir():
        raise Mistake(f"{path} cannot be written, since the folder {folder} does not exist")
    file = pathlib.Path(path)
    if file.is_dir():
        raise Mistake(f"{path} cannot be written, since it is a folder; give the name of a file")
    new = not file.exists()
    if not new and not file.is_file():  # a pipe, which is opened once
        return
    try:
        file.open("a").close()
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error.strerror}") from None
    if new:
        file.unlink()


# --- the other commands --------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    from handgrad.compare import console, selection

    with _pool(options) as pool:
        items, unusable = selection.select(options, pool)
    if items and options.sources and not options.markdown:
        return _trace(options, {item.id.partition(".")[2] for item in items})
    if items:
        table = console.markdown_table if options.markdown else console.list_table
        console.output().print(table(items))
    return USAGE if unusable else RIGHT


def _trace(options: argparse.Namespace, names: set[str]) -> int:
    """From the claims of the documents to the code that runs, with the verdicts."""
    from handgrad.compare import claims, console

    with console.Bar(1) as bar:
        reports = claims.examine_all(progress=bar.step, names=names)
    found = {(report.claim, report.name) for report in reports}
    rows = [
        row
        for row in claims.traceability(reports)
        if (row.claim, row.derivation) in found or not options.pattern
    ]
    console.output().print(console.trace_table(rows))
    return RIGHT if all(row.ok for row in rows) else WRONG


def _show(options: argparse.Namespace) -> int:
    from handgrad.compare import console, selection, show

    items = selection.named(options.function)
    out = console.output()
    page = show.page(items[0])
    out.print(page.signature, style="bold")
    out.print()
    out.print(page.mathematics)
    out.print()
    console.code(out, page.sides)
    with _pool(options) as pool:
        found, stop = _examine(options, pool, items)
    out.print()
    out.print(console.case_table(found))
    for item, verdict in found.items():
        if not verdict.ok:
            out.print()
            out.print(console.report(verdict, _reproduce(item, options)))
    if stop is not None:
        raise stop
    return RIGHT if all(verdict.ok for verdict in found.values()) else WRONG


def _fuzz(options: argparse.Namespace) -> int:
    from handgrad.compare import console, targets
    from handgrad.compare.check import examine, searched

    found = targets.targets(options.target, options.seed)
    until = time.monotonic() + options.budget
    out, ok = console.output(), True
    with console.Bar(len(found) * options.trials) as bar:
        for target in found:
            sides = target.candidate, target.reference
            given: dict[str, Any] = {"kind": target.kind, "argnums": target.argnums}
            report = examine(*sides, *target.args, name=target.id, seed=options.seed, **given)
            if report.ok:
                report = searched(
                    report, *sides, target.args, **given, functions=target.functions,
                    alike=target.alike, trials=options.trials,
                    seconds=max(0.0, until - time.monotonic()),
                    progress=lambda n, name=target.id: bar.advance(name, n),
                )  # fmt: skip
            ok = _told(out, target.id, report) and ok
    return RIGHT if ok else WRONG


def _told(out: "Console", name: str, report: "Report") -> bool:
    """Print what came of a search; whether there was one, and it found nothing."""
    search = report.search
    if not report.ok:
        out.print(str(report))
        if search is None:  # it fails at the samples: there is nothing to search for
            selecting = [name] if "::" in name else ["-k", name]
            words = ["handgrad", "check", *selecting, "--seed", str(report.seed)]
            out.print(f"  reproduce: {shlex.join(words)}")
        return False
    assert search is not None
    if search.shapes:
        out.print(f"✓ {name}: {search}")
        return True
    why = "none of them could be used" if search.trials else "give a longer --budget"
    out.print(f"! {name}: {search}; {why}")
    return False


def _figures(options: argparse.Namespace) -> int:
    from handgrad.compare import console, figures

    with console.Bar(len(figures.EXPERIMENTS)) as bar:
        try:
            saved = figures.save_all(options.directory, bar.step, options.seed)
        except ModuleNotFoundError as error:
            raise Mistake(str(error)) from None
    out = console.output()
    for path, result in saved.items():
        out.print(f"{result}\n  {path}")
    return RIGHT if all(result.holds for result in saved.values()) else WRONG


def _errata(options: argparse.Namespace) -> int:
    from handgrad.compare import console, errata

    with console.Bar(1) as bar:
        table = errata.errata_table(options.seed, progress=bar.step)
    confirmed = sum(row.confirmed for row in table)
    out = console.output()
    out.print(console.errata(table))
    out.print(f"{len(table)} errata, {confirmed} confirmed by the numbers · seed {options.seed}")
    return RIGHT if confirmed == len(table) else WRONG


def _lower(options: argparse.Namespace) -> int:
    from handgrad.compare import console, lower

    if options.names:
        pattern = shlex.quote(options.names[0])
        raise Mistake(
            f"lower takes no names; for what has that in its name: handgrad lower -k {pattern}"
        )
    begin = time.monotonic()
    platforms = lower.platforms_of(options.platform)
    rows = lower.rows(options.pattern, options.every_case)
    found: list[lower.Lowered] = []
    with console.Bar(len(rows)) as bar:
        for case in rows:
            bar.begin(case.id)
            found.append(lower.lower_case(case, platforms))
            bar.end(case.id, found[-1].ok)
    out = console.output()
    out.print(console.lowering_table(found))
    out.print(console.lowering_summary(found, time.monotonic() - begin))
    return RIGHT if all(row.ok for row in found) else WRONG


if __name__ == "__main__":
    sys.exit(main())
