"""How many wrong backward passes does a gradient checker catch, and how often does it cry wolf?

    python benchmarks/detect.py                    # every checker that is installed
    python benchmarks/detect.py --ours-only -k layer_norm
    python benchmarks/detect.py --json detect.json --markdown benchmarks/DETECTION.md
    python benchmarks/detect.py --share 1/2 --json one.json      # in two parts, and joined
    python benchmarks/detect.py --join one.json two.json --markdown benchmarks/DETECTION.md

Runs the collection in `benchmarks/corpus` (proven wrong or right by `tests/test_corpus.py`)
through handgrad and its peers. torch's gradcheck and HIPS autograd reach the JAX functions
through NumPy; the compilation of that bridge is not in their seconds, all of ours is.
"""

import argparse
import dataclasses
import functools
import importlib
import importlib.util
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from corpus import ENTRIES, Entry
from corpus.proof import cotangent, distance, floating, pullback, with_floats
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from handgrad.manual.quick import compiled

# What a reader must find in the explanation to recognise the mistake: a kind of diagnosis, or the
# words of a mend. A word that other mistakes share does not count; the line alone counts only
# where a change of that very line is given that makes the derivation right.
OTHER_VALUE = r"wrong operand|use `.*` for"
NO_FUNCTION = r"leave out the function|`\w+` too many|take \w+ (\w+ )?`"
MEAN = r"(mean|sum) (taken )?for (a )?(sum|mean)"
SCALED = (
    r"wrong constant|(double|halve) `|(multiply|divide) .* by -?[\d.]|factor (left out|too many)"
)
CAUSES: dict[str, tuple[set[str], str]] = {
    "sign": ({"sign"}, r"wrong sign|negate|instead of (adding|subtracting)"),
    "constant factor": ({"factor"}, f"{SCALED}|{MEAN}"),
    "transposed": ({"transposed"}, r"transpos|(indices|axes|order) exchanged"),
    "missing path": ({"path", "missing"}, r"left out|add `|to be added to"),
    "operand dropped": ({"operand", "path"}, r"left out|(multiply|divide) `.* by `|add `|power"),
    "wrong operand": ({"swapped"}, f"{OTHER_VALUE}|exchanged|factor (left out|too many)"),
    "pre/post-activation": ({"point"}, f"{OTHER_VALUE}|{NO_FUNCTION}"),
    "stale residual": ({"point"}, f"{OTHER_VALUE}|{NO_FUNCTION}"),
    "wrong axis": ({"reduced"}, r"(wrong|over|another) axis|sum `.*` over"),
    "mean for sum": ({"factor"}, MEAN),
    "shifted in time": ({"shifted"}, f"shift|step (later|earlier)|in time|{OTHER_VALUE}"),
    "permuted": ({"permuted", "swapped"}, f"exchanged|whole blocks|{OTHER_VALUE}"),
    "first or last step": ({"partial", "slice"}, r"off by one|to be added to"),
    "cotangent ignored": ({"ignores-cotangent"}, r"(?!)"),
    "cotangent squared": ({"squares-cotangent", "nonlinear"}, r"(?!)"),
    "kernel not rotated": ({"flipped"}, r"revers|rotat"),
    "off by one": ({"shifted", "partial", "slice"}, r"off by one|shifted by one|one (more|less)"),
    "one element": ({"element"}, r"an element treated apart"),
    "eps": (set(), r"wrong side of a parenthesis|add [\d.]+e-\d+ to|EPS|eps"),
    "variance bias": ({"factor"}, r"`ddof`"),
    "single precision": ({"precision"}, r"`astype`"),
    "another argument": ({"swapped"}, r"order exchanged"),
    "masked elements": ({"region"}, r"mask|condition|wrong (side|bound)"),
    "kink side": ({"region"}, r"wrong side|cases .*exchanged|the two cases"),
    "approximation": ({"near"}, r"derivative of|wrong (constant|function)"),
    "negative inputs": ({"region"}, r"negative"),
    "abs or sign": (set(), r"absolute value|sign\("),
    "threshold": ({"region"}, r"wrong (side|bound|constant)|clip|condition"),
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a checker says of an entry: `passed` is None when it fails to answer."""

    passed: bool | None
    seconds: float
    text: str = ""


# ------------------------------------------------------------------------------- the checkers
# Each takes an entry and returns a function that runs one check and gives (passed, text);
# what is done before it returns is not timed.


def ours(entry: Entry) -> Callable:
    from handgrad.compare import examine

    def check():
        report = examine(entry.backward, entry.reference, *entry.args, kind="backward")
        return bool(report.ok), "\n".join(f"{d.kind}: {d.text}" for d in report.diagnoses)

    return check


def torch_gradcheck(entry: Entry, fast: bool) -> Callable:
    import torch

    forward, backward, floats = numpy_bridge(entry)

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return torch.from_numpy(forward(*(t.numpy() for t in tensors)))

        @staticmethod
        def backward(ctx, dy):
            grads = backward(*(t.numpy() for t in ctx.saved_tensors), dy.contiguous().numpy())
            return tuple(torch.from_numpy(g) for g in grads)

    def check():
        torch.manual_seed(0)
        inputs = [torch.from_numpy(a.copy()).requires_grad_() for a in floats]
        return torch.autograd.gradcheck(
            Bridge.apply, inputs, fast_mode=fast, raise_exception=False
        ), ""

    return check


def jax_check_grads(entry: Entry, x64: bool) -> Callable:
    @jax.custom_vjp
    def function(*floats):
        return entry.reference(*with_floats(entry.args, floats))

    def pull(floats, dy):
        grads = entry.backward(*with_floats(entry.args, floats), dy)
        return tuple(jnp.asarray(grads[i], dy.dtype) for i in floating(entry.args))

    function.defvjp(lambda *floats: (function(*floats), floats), pull)

    def check():
        with jax.enable_x64(x64):
            floats = [jnp.asarray(entry.args[i]) for i in floating(entry.args)]
            jax.test_util.check_grads(function, floats, order=1, modes=("rev",))
        return True, ""

    return check


def hips_check_grads(entry: Entry) -> Callable:
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    forward, backward, floats = numpy_bridge(entry)
    function = primitive(forward)

    def of_argument(i):
        return lambda ans, *args: lambda dy: backward(*args, dy)[i]

    defvjp(function, *map(of_argument, range(len(floats))))

    def check():
        np.random.seed(0)  # noqa: NPY002 (the generator that autograd.test_util draws from)
        every = tuple(range(len(floats)))  # without it, the first argument alone is checked
        check_grads(function, every, modes=["rev"], order=1)(*floats)
        return True, ""

    return check


BRIDGES: dict[str, tuple] = {}
TRUTHS: dict[str, tuple] = {}


def numpy_bridge(entry: Entry) -> tuple[Callable, Callable, list[np.ndarray]]:
    """Forward and backward on float64 NumPy arrays, compiled; and the floating arguments."""
    if entry.name not in BRIDGES:
        BRIDGES[entry.name] = build_bridge(entry)
    return BRIDGES[entry.name]


def build_bridge(entry: Entry) -> tuple[Callable, Callable, list[np.ndarray]]:
    where = floating(entry.args)

    def of_floats(*floats):
        return entry.reference(*with_floats(entry.args, floats))

    def pull(*floats_and_dy):
        *floats, dy = floats_and_dy
        grads = entry.backward(*with_floats(entry.args, floats), dy)
        return tuple(grads[i] for i in where)

    floats = [entry.args[i] for i in where]
    fast_forward, fast_pull = compiled(of_floats), compiled(pull)
    with jax.enable_x64(True):
        dy = cotangent(entry)
        fast_forward(*floats)
        try:
            fast_pull(*floats, dy)
        except jax.errors.TracerArrayConversionError:
            fast_pull = pull

    def forward(*floats):
        with jax.enable_x64(True):
            return np.array(fast_forward(*floats), np.float64)

    def backward(*floats_and_dy):
        with jax.enable_x64(True):
            return tuple(np.array(g, np.float64) for g in fast_pull(*floats_and_dy))

    return forward, backward, floats


CHECKERS = {
    "handgrad": ("handgrad.compare", ours),
    "torch gradcheck": ("torch", functools.partial(torch_gradcheck, fast=False)),
    "torch gradcheck, fast": ("torch", functools.partial(torch_gradcheck, fast=True)),
    "jax check_grads, float32": ("jax", functools.partial(jax_check_grads, x64=False)),
    "jax check_grads, x64": ("jax", functools.partial(jax_check_grads, x64=True)),
    "HIPS check_grads": ("autograd", hips_check_grads),
}


def installed(name: str) -> bool:
    module, _ = CHECKERS[name]
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return False
    return module != "handgrad.compare" or hasattr(importlib.import_module(module), "examine")


def ask(name: str, entry: Entry) -> Answer:
    """Run one check; an AssertionError is a "no", any other exception no answer."""
    start = time.perf_counter()
    try:
        check = CHECKERS[name][1](entry)
        start = time.perf_counter()
        passed, text = check()
    except AssertionError as error:
        passed, text = False, str(error)
    except Exception as error:  # a checker's own failure must not end the benchmark
        passed, text = None, f"{type(error).__name__}: {error}"
    return Answer(passed, time.perf_counter() - start, text)


# --------------------------------------------------------------------------------- the figures


def deviation(entry: Entry) -> float:
    """The relative error that a wrong entry plants, in its worst element."""
    _, backward, floats = numpy_bridge(entry)
    with jax.enable_x64(True):
        dy = cotangent(entry)
        if entry.function not in TRUTHS:  # its wrong entries share their sample
            pull = functools.partial(pullback, entry.reference)
            TRUTHS[entry.function] = compiled(pull)(entry.args, dy)
    truth = TRUTHS[entry.function]
    return distance(backward(*floats, dy), tuple(t for t in truth if t is not None))


def summary(entries: list[Entry], answers: list[Answer], deviations: dict[str, float]) -> dict:
    """One row of the table."""
    pairs = list(zip(entries, answers, strict=True))
    caught = [(e, a) for e, a in pairs if not e.right and a.passed is False]
    return {
        "wrong": sum(not e.right for e in entries),
        "right": sum(e.right for e in entries),
        "caught": len(caught),
        "false alarms": sum(e.right and a.passed is False for e, a in pairs),
        "at kinks": sum(a.passed is False and e.category == "kink convention" for e, a in pairs),
        "no answer": sum(a.passed is None for a in answers),
        "median seconds": statistics.median(a.seconds for a in answers),
        "smallest caught": min((deviations[e.name] for e, _ in caught), default=None),
        "cause named": sum(cause_named(e, a.text) for e, a in caught),
        "not named": [e.name for e, a in caught if not cause_named(e, a.text)],
        "category named": sum(category_named(e, a.text) for e, a in caught),
        "line named": sum(line_named(e, a.text) for e, a in caught),
        "with a line": sum(e.line is not None for e, _ in caught),
        "misses": [e.name for e, a in pairs if not e.right and a.passed],
        "alarms": [e.name for e, a in pairs if e.right and a.passed is False],
        "unanswered": [f"{e.name} ({a.text[:100]})" for e, a in pairs if a.passed is None],
    }


def cause_named(entry: Entry, text: str) -> bool:
    """Whether a reader of the explanations recognises the mistake."""
    return category_named(entry, text) or line_named(entry, text)


def category_named(entry: Entry, text: str) -> bool:
    """By a kind of diagnosis, or by the words of a mend, that mean this category."""
    kinds, words = CAUSES[entry.category]
    for kind, said in explanations(text):
        quoted = re.sub(re.escape(entry.backward.__code__.co_filename), "", said)
        if kind in kinds or (kind == "mend" and re.search(words, quoted)):
            return True
    return False


def line_named(entry: Entry, text: str) -> bool:
    """By a mend of that very line of that very file."""
    file = entry.backward.__code__.co_filename
    place = f"{file if file.startswith('<') else Path(file).name}:{entry.line}: "
    return entry.line is not None and any(
        kind == "mend" and said.startswith(place) for kind, said in explanations(text)
    )


def explanations(text: str) -> list[tuple[str, str]]:
    """(kind, sentence) of every diagnosis."""
    return [(kind, said) for line in text.splitlines() for kind, _, said in [line.partition(": ")]]


HEADS = ("checker", "caught", "false alarms", "no answer", "s per check", "smallest caught")


def cells(name: str, row: dict) -> tuple[str, ...]:
    smallest = row["smallest caught"]
    return (
        name,
        f"{row['caught']}/{row['wrong']}",
        f"{row['false alarms']}/{row['right']} ({row['at kinks']} at kinks)",
        str(row["no answer"]),
        f"{row['median seconds']:.3f}",
        "none" if smallest is None else f"{smallest:.0e}",
    )


def markdown(rows: dict[str, dict]) -> str:
    lines = [
        "# Gradient checkers on a collection of backward passes",
        "",
        "Made by `python benchmarks/detect.py --markdown benchmarks/DETECTION.md`, at once or in "
        "parts that `--join` puts together: every entry of `benchmarks/corpus`, which "
        "`tests/test_corpus.py` proves wrong or right. Seconds are the median of one check, the "
        "explanation included, in a process that has checked others, on a machine that did other "
        "work besides.",
        "",
    ]
    lines += ["| " + " | ".join(HEADS) + " |", "|---" + "|---:" * (len(HEADS) - 1) + "|"]
    lines += ["| " + " | ".join(cells(name, row)) + " |" for name, row in rows.items()]
    if (row := rows.get("handgrad")) and row["caught"]:
        lines += ["", *named(row), "", *(f"- `{entry}`" for entry in row["not named"])]
    for name, row in rows.items():
        for kind in ("misses", "alarms", "unanswered"):
            if row[kind]:
                lines += ["", f"**{name}, {kind}**", "", *(f"- `{entry}`" for entry in row[kind])]
    return "\n".join(lines) + "\n"


def named(row: dict) -> list[str]:
    """How often handgrad says what the mistake is, and where."""
    return [
        f"Of the {row['caught']} that it caught, handgrad named the cause of {row['cause named']} "
        f"({row['cause named'] / row['caught']:.1%}): the category of {row['category named']}, and "
        f"the line with a change that mends it of {row['line named']} among the "
        f"{row['with a line']} whose mistake has a line." + " Not named:" * bool(row["not named"])
    ]


def show(console: Console, rows: dict[str, dict]) -> None:
    for name, row in rows.items():
        for kind in ("misses", "alarms", "unanswered"):
            if row[kind]:
                console.print(f"\n[bold]{name}, {kind}[/bold]")
                console.print(
                    "\n".join(f"  {e}" for e in row[kind]),
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    table = Table("checker", title="Gradient checkers on the corpus")
    for head in HEADS[1:]:
        table.add_column(head, justify="right")
    for name, row in rows.items():
        table.add_row(*cells(name, row))
    console.print(table)
    if (row := rows.get("handgrad")) and row["caught"]:
        console.print("\n".join(named(row)))
        console.print("\n".join(f"  not named: {e}" for e in row["not named"]), markup=False)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", help="checkers whose name contains NAME")
    parser.add_argument("--ours-only", action="store_true", help="handgrad alone")
    parser.add_argument("-k", metavar="PATTERN", default="", help="entries whose name matches")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every answer")
    parser.add_argument(
        "--share", metavar="I/N", default="1/1", help="every Nth entry from the Ith: a run in parts"
    )
    parser.add_argument(
        "--join", metavar="FILE", nargs="+", type=Path, help="what such runs wrote, and run nothing"
    )
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the table")
    options = parser.parse_args()
    share = re.fullmatch(r"(\d+)/(\d+)", options.share)
    if share is None or not 1 <= int(share[1]) <= int(share[2]):
        parser.error(f"--share is {options.share}; it must be I/N with I from 1 to N, such as 1/2")
    for file in options.join or ():
        if not file.is_file():
            parser.error(f"--join: there is no file {file}")
    for file in filter(None, (options.json, options.markdown)):  # known before an hour of work
        if file.is_dir() or not file.absolute().parent.is_dir():
            parser.error(f"{file} cannot be written: it is a folder, or in none that there is")
    return options


def join(files: list[Path]) -> tuple[list[Entry], dict[str, list[Answer]], dict[str, float]]:
    """The entries that runs in parts have answered, their answers, and what they deviate by."""
    found: dict[str, dict[str, dict]] = {}
    for file in files:
        for name, parts in json.loads(file.read_text())["answers"].items():
            found.setdefault(name, {}).update((part["entry"], part) for part in parts)
    entries = [e for e in ENTRIES if all(e.name in parts for parts in found.values())]
    answers = {
        name: [Answer(*(parts[e.name][k] for k in ("passed", "seconds", "text"))) for e in entries]
        for name, parts in found.items()
    }
    first = next(iter(found.values()))
    return entries, answers, {e.name: first[e.name]["deviation"] for e in entries if not e.right}


def main() -> None:
    options, console = parse(), Console()
    if options.join:
        entries, answers, deviations = join(options.join)
        write(console, options, entries, answers, deviations)
        return
    wanted = "handgrad" if options.ours_only else (options.only or "")
    names = [name for name in CHECKERS if wanted.lower() in name.lower()]
    for name in [name for name in names if not installed(name)]:
        console.print(f"{name}: not installed, left out")
        names.remove(name)
    part, parts = map(int, options.share.split("/"))
    entries = [e for e in ENTRIES if re.search(options.k, e.name, re.IGNORECASE)][part - 1 :: parts]
    if not names or not entries:
        raise SystemExit(
            f"nothing to run: checkers are {'; '.join(CHECKERS)}; -k matched {len(entries)} entries"
        )

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    answers: dict[str, list[Answer]] = {}
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        wrong = [e for e in entries if not e.right]
        deviations = {
            e.name: deviation(e) for e in progress.track(wrong, description="planted errors")
        }
        for name in names:
            answers[name] = [ask(name, e) for e in progress.track(entries, description=name)]

    write(console, options, entries, answers, deviations)


def write(
    console: Console, options: argparse.Namespace, entries: list[Entry],
    answers: dict[str, list[Answer]], deviations: dict[str, float],
) -> None:  # fmt: skip
    rows = {name: summary(entries, given, deviations) for name, given in answers.items()}
    show(console, rows)
    if options.markdown:
        options.markdown.write_text(markdown(rows))
    if options.json:
        detail = {
            name: [
                {"entry": e.name, "right": e.right, "category": e.category, "line": e.line}
                | {"deviation": deviations.get(e.name)}
                | dataclasses.asdict(a)
                for e, a in zip(entries, given, strict=True)
            ]
            for name, given in answers.items()
        }
        options.json.write_text(json.dumps({"summary": rows, "answers": detail}, indent=1))


if __name__ == "__main__":
    main()
