"""For pytest: failed checks read like reports, fixtures know a seed, the gradients are counted.

pytest loads this in every session of an environment that has handgrad installed; so it imports
neither JAX nor NumPy, and leaves alone all tests that check no gradient.
"""

import functools
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable, Generator
from typing import Any

import pytest

__all__ = ["handgrad_check", "handgrad_check_backward", "handgrad_check_gradient"]

SEED = "--handgrad-seed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("handgrad", "gradients derived by hand").addoption(
        SEED, type=int, default=0, metavar="N",
        help="seed of the fixtures handgrad_check, handgrad_check_backward and "
        "handgrad_check_gradient; the same seed, the same verdict (default: 0)",
    )  # fmt: skip


@pytest.fixture
def handgrad_check(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`handgrad.compare.check(candidate, reference, *args)`, seeded by --handgrad-seed."""
    return _seeded("check", request)


@pytest.fixture
def handgrad_check_backward(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`handgrad.compare.check_backward(backward, reference, *args)`, likewise."""
    return _seeded("check_backward", request)


@pytest.fixture
def handgrad_check_gradient(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`handgrad.compare.check_gradient(gradient, loss, *args)`, likewise."""
    return _seeded("check_gradient", request)


def _seeded(name: str, request: pytest.FixtureRequest) -> Callable[..., Any]:
    from handgrad import compare

    function = getattr(compare, name)
    request.config.stash[COUNT].watch()
    return functools.partial(function, seed=request.config.getoption(SEED))


# --- counting ------------------------------------------------------------------------------------


class Count:
    """How many checks there were, how many came out right, and how many gradients they verified."""

    def __init__(self) -> None:
        self._here = [0, 0, 0]  # since the last report of this process
        self._total = [0, 0, 0]  # of all reports, those of xdist's workers too
        self._examine: Callable[..., Any] | None = None

    def watch(self) -> None:
        """Count what the checks find from now on, once their module is imported."""
        module: Any = sys.modules.get("handgrad.compare.check")
        if module is None or self._examine is not None:
            return
        self._examine = examine = module.examine

        @functools.wraps(examine)
        def counted(*args: Any, **options: Any) -> Any:
            report = examine(*args, **options)
            found = [1, int(report.ok), report.verified]
            self._here = [a + b for a, b in zip(self._here, found, strict=True)]
            return report

        module.examine = counted

    def stop(self) -> None:
        module: Any = sys.modules.get("handgrad.compare.check")
        if self._examine is not None:
            module.examine, self._examine = self._examine, None

    def attach(self, report: pytest.TestReport) -> None:
        """Plain numbers, which xdist sends along with the report."""
        report.handgrad, self._here = self._here, [0, 0, 0]  # pyright: ignore

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = getattr(report, "handgrad", [0, 0, 0])
        self._total = [a + b for a, b in zip(self._total, found, strict=True)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        checks, right, verified = self._total
        if not checks:
            return
        line = f"handgrad: {verified} gradient{'s' * (verified != 1)} verified"
        line += f" in {checks} check{'s' * (checks != 1)}"
        line += f", {checks - right} of them not right" * (right < checks)
        terminalreporter.write_line(line, green=right == checks, yellow=right < checks)


COUNT = pytest.StashKey[Count]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNT] = Count()
    config.pluginmanager.register(config.stash[COUNT], "handgrad-count")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    count = item.config.stash[COUNT]
    count.watch()
    try:
        return (yield)
    finally:
        count.stop()


# --- failures ------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    whole = item.config.getoption("fulltrace")
    if call.excinfo is not None and not whole and _shorten(call.excinfo.value):
        call.excinfo = pytest.ExceptionInfo.from_exception(call.excinfo.value)
    report = yield
    if call.excinfo is not None and _is_mismatch(call.excinfo.value):
        _reword(report, call.excinfo.value)
    item.config.stash[COUNT].attach(report)
    return report


def _shorten(error: BaseException) -> bool:
    """Of an exception that came through a check, leave the frames of the user alone."""
    if not _came_through(error):
        return False
    entries, entry = [], error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    kept = None
    for entry in reversed(entries):
        if not entry.tb_frame.f_code.co_filename.startswith(INTERNAL):
            kept = types.TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = kept
    notes = getattr(error, "__notes__", [])
    notes[:] = [note for note in notes if "JAX has removed its internal frames" not in note]
    while (before := error.__cause__ or error.__context__) is not None:
        if _came_through(before):  # the check had called the function in another way before
            error.__cause__, error.__suppress_context__ = None, True
            break
        error = before
    return True


def _came_through(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename.startswith(HERE) for frame, _ in frames)


def _is_mismatch(error: BaseException) -> bool:
    return isinstance(error, AssertionError) and type(error).__module__.startswith(
        "handgrad.compare."
    )


def _reword(report: pytest.TestReport, error: BaseException) -> None:
    """The report without an exception's name before it; in the summary what matters of it."""
    lines = str(error).strip().splitlines()
    problem = getattr(getattr(error, "report", None), "problem", None)
    longrepr: Any = report.longrepr
    if getattr(longrepr, "reprcrash", None) is not None:
        longrepr.reprcrash.message = problem or lines[0]
    for entry in getattr(getattr(longrepr, "reprtraceback", None), "reprentries", [])[-1:]:
        shown = [line for line in entry.lines if not line.startswith("E ")]
        if len(shown) < len(entry.lines):
            entry.lines[:] = shown + [f"E   {line}" for line in lines]


def _folder(package: str) -> str:
    spec = importlib.util.find_spec(package)
    return os.path.dirname(spec.origin or "") + os.sep if spec is not None else os.devnull


HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
INTERNAL = (HERE, _folder("jax"))
