"""Processes that run one task at a time, and may crash, hang or eat memory without harm to others.

A task is a function that can be imported by name, and its arguments. What became of it comes back
as an `Outcome`; the process that a task has brought down is replaced by a fresh one.
"""

import collections
import contextlib
import dataclasses
import faulthandler
import importlib.util
import io
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from handgrad.compare.mistake import Mistake

__all__ = ["Outcome", "Pool", "Task", "WorkerError", "memory_of_machine"]

STARTUP = 300.0  # seconds that a process may take to start: JAX on a slow disk
GRACE = 1.0  # seconds between a late worker's writing down where it is and its end
LEAST = 5 * 10**8  # bytes: with less memory JAX does not even start
PRINTED = 20_000  # characters of what a task printed that are kept
LOG, WHERE = "printed", "where"  # files of a worker: what it printed, where it came to its end


class WorkerError(Mistake):
    """No process can be started, under the limits that were asked for at least."""


@dataclasses.dataclass(frozen=True)
class Task:
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The value of a task; or why there is none: a status, and a sentence without its subject."""

    task: Task
    value: Any = None
    status: str = "done"  # or "crashed", "timeout", "memory", "raised"
    failure: str = ""
    traceback: str = ""
    printed: str = ""  # what it wrote to stdout and stderr


class Pool:
    """Up to `jobs` worker processes, started when there is work, ended with the `with` block.

    timeout: seconds for one task. memory: bytes of data that a process may allocate (on Linux).
    prepare: called by each process at its start, and not counted in the time of a task.
    """

    def __init__(
        self,
        jobs: int,
        timeout: float,
        memory: int | None = None,
        prepare: Callable[[], Any] | None = None,
    ):
        self.jobs, self.timeout, self.memory, self.prepare = jobs, timeout, memory, prepare
        self._workers: list[_Worker] = []
        self._folder = tempfile.TemporaryDirectory(prefix="handgrad-", ignore_cleanup_errors=True)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._folder.cleanup()

    def run(
        self, tasks: Iterable[Task], started: Callable[[Task], object] = lambda task: None
    ) -> Iterator[Outcome]:
        """The outcomes as they come; `started` is told of every task that begins."""
        waiting = collections.deque(tasks)
        while waiting or any(w.task for w in self._workers):
            while waiting and len(self._workers) < self.jobs:
                self._workers.append(_Worker(self, self._folder.name))
                self._workers[-1].begin(waiting.popleft())
            for worker in self._workers:
                if waiting and not worker.task:
                    worker.begin(waiting.popleft())
            busy = [w for w in self._workers if w.task]
            patience = min(w.deadline for w in busy) - time.monotonic()
            signs = [sign for w in busy for sign in (w.connection, w.process.sentinel)]
            connection.wait(signs, timeout=max(patience, 0.0))
            for worker in busy:
                outcome = worker.look(started)
                if worker.ended:
                    self._workers.remove(worker)
                    if worker.task:  # it had died before it came to this one
                        waiting.appendleft(worker.task)
                if outcome is not None:
                    yield outcome


class _Worker:
    """The parent's end of one process."""

    def __init__(self, pool: Pool, folder: str):
        self.timeout, self.memory = pool.timeout, pool.memory
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.folder, pool.memory, pool.prepare)
        )
        with _deaf_to_interrupts():
            self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.fresh, self.running, self.ended = True, False, False
        self.deadline = 0.0

    def begin(self, task: Task) -> None:
        self.task, self.running = task, False
        self.deadline = time.monotonic() + STARTUP
        with contextlib.suppress(OSError):  # it is dead, as `look` will see
            self.connection.send((task.function, task.args, self.timeout))

    def look(self, started: Callable[[Task], object]) -> Outcome | None:
        """The outcome of the task, once there is one."""
        task = self.task
        assert task is not None
        late = time.monotonic() > self.deadline
        alive = self.process.is_alive()
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if message is not None:
                    self.task = None
                    return Outcome(task, **message)
                self.fresh, self.running = False, True
                self.deadline = time.monotonic() + self.timeout + GRACE
                started(task)
                late = False
        except (EOFError, OSError):
            self.process.join(GRACE)
            alive = False
        if alive and not late:
            return None
        patience = STARTUP if self.fresh else self.timeout
        status, failure = "timeout", f"did not finish within {patience:g} s"
        if not alive:
            status, failure = _death(self.process.exitcode, self._read(LOG) + self._read(WHERE))
        self.end()
        if self.fresh:
            if self.memory is not None and self.memory < LEAST:
                raise WorkerError(
                    f"a worker that may take {self.memory / 1e9:g} GB of memory cannot be started: "
                    f"it {failure}; JAX alone takes about {LEAST / 1e9:g} GB, so give it more"
                )
            log = self._read(LOG).rstrip()
            raise WorkerError(f"a worker cannot be started: it {failure}\n{log}".rstrip())
        if not self.running:
            return None
        self.task = None
        if place := _place(self._read(WHERE)):
            failure += f"; it was at {place}"
        return Outcome(task, None, status, failure, printed=self._read(LOG))

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.process.kill()
            self.process.join()
            self.process.close()
            self.connection.close()

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text("utf-8", errors="replace")[-PRINTED:] if path.exists() else ""


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started here ignores Ctrl-C from its first moment: the parent answers it alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- how a process came to its end ---------------------------------------------------------------


def _death(code: int | None, log: str) -> tuple[str, str]:
    """Status and sentence."""
    if any(sign in log for sign in ("bad_alloc", "MemoryError", "out of memory", "Out of memory")):
        return "memory", "ran out of memory, which ended its process"
    if code is None:
        return "crashed", "closed its connection to the process that waits for it"
    if code >= 0:
        return "crashed", f"ended its process with exit code {code}"
    if -code == signal.SIGKILL:
        return "memory", "was killed by the system, most likely for taking too much memory"
    name = signal.strsignal(-code) or f"signal {-code}"
    return "crashed", f"crashed its process ({name.lower()})"


def _place(dump: str) -> str:
    """The innermost line of the user's (or a built-in derivation's) code that faulthandler saw."""
    for file, line, function in re.findall(r'File "(.+?)", line (\d+) in (\S+)', dump):
        if _is_users(file):
            return f"{file}, line {line}, in {function}"
    return ""


def _is_users(file: str) -> bool:
    return not file.startswith("<") and (file.startswith(OURS) or not file.startswith(INTERNAL))


def _folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    here = pathlib.Path(__file__).resolve().parent
    paths = sysconfig.get_paths()
    jax = importlib.util.find_spec("jax")
    internal = [str(here), *(paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib"))]
    if jax is not None and jax.origin:
        internal.append(str(pathlib.Path(jax.origin).parent))
    ours = [str(here.parent / room) for room in ("manual", "reference")]
    return tuple(p + os.sep for p in internal), tuple(p + os.sep for p in ours)


INTERNAL, OURS = _folders()


# --- in the worker -------------------------------------------------------------------------------


def _serve(
    tasks: connection.Connection,
    folder: pathlib.Path,
    memory: int | None,
    prepare: Callable[[], Any] | None,
) -> None:
    log = _redirect(folder / LOG)
    where = open(folder / WHERE, "a", encoding="utf-8")  # noqa: SIM115 (open until the end)
    faulthandler.enable(where)
    threading.Thread(target=_die_with_parent, args=(folder.parent,), daemon=True).start()
    if memory is not None:
        _limit(memory)
    if prepare is not None:
        prepare()
    while True:
        try:
            function, args, timeout = tasks.recv()
        except EOFError:  # the parent was killed
            return _die_with_parent(folder.parent)
        os.truncate(log, 0)
        where.truncate(0)
        tasks.send(None)
        faulthandler.dump_traceback_later(timeout, file=where)
        result = _run(function, args)
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        sys.stderr.flush()
        printed = (folder / LOG).read_text("utf-8", errors="replace")[-PRINTED:]
        tasks.send(result | {"printed": printed})


def _run(function: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    try:
        return {"value": function(*args)}
    except MemoryError:
        return {"status": "memory", "failure": "ran out of memory"}
    except BaseException as error:  # SystemExit too: the worker lives on
        sentence = "".join(traceback.format_exception_only(error)).strip()
        return {
            "status": "raised",
            "failure": f"raised {sentence}",
            "traceback": _traceback(error),
        }


def _traceback(error: BaseException) -> str:
    """Without the frames of JAX and of this package, unless there are no others."""
    frames = traceback.extract_tb(error.__traceback__)
    shown = [f for f in frames if _is_users(f.filename)] or frames
    header = "Traceback (most recent call last):\n"
    return "".join([header, *traceback.format_list(shown), *traceback.format_exception_only(error)])


def _redirect(log: pathlib.Path) -> int:
    """Let all that is printed here, by C code too, go to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    return file


def _die_with_parent(folder: pathlib.Path) -> None:
    """And clean up, which a parent that was killed could not do."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def _limit(memory: int) -> None:
    """An allocation beyond the limit fails (a MemoryError in Python) before the machine suffers."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


def memory_of_machine() -> int | None:
    """Bytes of memory in this machine or container; None where that cannot be known."""
    known = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(ValueError, OSError):
            known.append(int(pathlib.Path("/sys/fs/cgroup", limit).read_text()))
    return min(known, default=None)
