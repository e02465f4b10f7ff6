"""Worker processes: what each way to come to grief is reported as, and that the rest goes on.

The tasks are functions of the standard library, which a worker can import by name.
"""

import ctypes
import functools
import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from handgrad.compare import workers
from handgrad.compare.workers import Pool, Task, WorkerError

SLOW = 30.0  # a timeout that no task here is to reach


def run(*tasks, jobs=1, timeout=SLOW, **options):
    with Pool(jobs, timeout, **options) as pool:
        outcomes = {o.task.name: o for o in pool.run(tasks)}
    assert outcomes.keys() == {task.name for task in tasks}
    return outcomes


def test_values_come_back_from_other_processes():
    tasks = [Task(f"{i}", operator.mul, (i, i)) for i in range(5)]
    outcomes = run(*tasks, Task("pid", os.getpid), jobs=2)
    assert [outcomes[f"{i}"].value for i in range(5)] == [0, 1, 4, 9, 16]
    assert all(o.status == "done" and not o.failure and not o.printed for o in outcomes.values())
    assert outcomes["pid"].value != os.getpid()


def test_one_process_serves_many_tasks():
    pids = {o.value for o in run(*[Task(f"{i}", os.getpid) for i in range(4)]).values()}
    assert len(pids) == 1


def test_crash_hang_and_exit_are_told_apart_and_the_rest_goes_on():
    outcomes = run(
        Task("before", operator.add, (1, 1)),
        Task("segfault", ctypes.string_at, (0,)),
        Task("abort", os.abort),
        Task("exit", os._exit, (7,)),
        Task("killed", signal.raise_signal, (signal.SIGKILL,)),
        Task("hang", time.sleep, (1000,)),
        Task("after", operator.add, (2, 2)),
        timeout=1.5,
    )
    assert {name: (o.status, o.failure.partition(";")[0]) for name, o in outcomes.items()} == {
        "before": ("done", ""),
        "segfault": ("crashed", "crashed its process (segmentation fault)"),
        "abort": ("crashed", "crashed its process (aborted)"),
        "exit": ("crashed", "ended its process with exit code 7"),
        "killed": ("memory", "was killed by the system, most likely for taking too much memory"),
        "hang": ("timeout", "did not finish within 1.5 s"),
        "after": ("done", ""),
    }
    assert outcomes["after"].value == 4


def test_an_exception_leaves_the_process_alive():
    outcomes = run(
        Task("raise", operator.truediv, (1, 0)),
        Task("exit", sys.exit, (3,)),
        Task("pid", os.getpid),
        Task("pid again", os.getpid),
    )
    assert outcomes["raise"].status == "raised"
    assert outcomes["raise"].failure == "raised ZeroDivisionError: division by zero"
    assert outcomes["raise"].traceback.endswith("ZeroDivisionError: division by zero\n")
    assert outcomes["exit"].failure == "raised SystemExit: 3"
    assert outcomes["pid"].value == outcomes["pid again"].value


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")
def test_memory_is_limited():
    outcomes = run(
        Task("much", bytes, (4 * 10**9,)), Task("little", bytes, (10,)), memory=2 * 10**9
    )
    assert (outcomes["much"].status, outcomes["much"].failure) == ("memory", "ran out of memory")
    assert outcomes["little"].value == bytes(10)


def test_what_a_task_prints_is_its_own():
    outcomes = run(
        Task("one", print, ("first",)),
        Task("low level", os.write, (2, b"second\n")),
        Task("silent", operator.add, (1, 1)),
        Task("three", print, ("third",)),
        Task("last words", os.system, ("echo fourth; kill -SEGV $PPID",)),
    )
    printed = {name: o.printed for name, o in outcomes.items()}
    assert printed.pop("last words").startswith("fourth\n")
    assert printed == {
        "one": "first\n", "low level": "second\n", "silent": "", "three": "third\n",
    }  # fmt: skip


def test_a_task_is_not_blamed_for_a_death_before_it():
    dying = Task("dying", signal.setitimer, (signal.ITIMER_REAL, 0.2))  # and SIGALRM kills
    outcomes = []
    with Pool(1, SLOW) as pool:
        for outcome in pool.run([dying, Task("next", operator.add, (1, 1))]):
            outcomes.append(outcome)
            time.sleep(1.0)  # in which the process dies, without a task
    assert [(o.task.name, o.status, o.value) for o in outcomes] == [
        ("dying", "done", (0.0, 0.0)), ("next", "done", 2),
    ]  # fmt: skip


def test_started_is_told_before_the_outcome_comes():
    told = []
    with Pool(1, SLOW) as pool:
        tasks = [Task("a", operator.add, (1, 1)), Task("b", operator.add, (1, 1))]
        for outcome in pool.run(tasks, lambda task: told.append(task.name)):
            assert told[-1] == outcome.task.name
    assert told == ["a", "b"]


def test_a_pool_that_cannot_start_says_why():
    with pytest.raises(WorkerError) as raised:
        run(Task("any", operator.add, (1, 1)), prepare=functools.partial(sys.exit, "no room"))
    sentence, _, log = str(raised.value).partition("\n")
    assert sentence == "a worker cannot be started: it ended its process with exit code 1"
    assert log == "no room"


def test_too_little_memory_to_start_is_one_sentence():
    much = functools.partial(bytes, 10**9)
    with pytest.raises(WorkerError) as raised:
        run(Task("any", operator.add, (1, 1)), memory=10**8, prepare=much)
    assert str(raised.value) == (
        "a worker that may take 0.1 GB of memory cannot be started: it ran out of memory, which "
        "ended its process; JAX alone takes about 0.5 GB, so give it more"
    )


def test_an_interrupt_is_left_to_the_parent():
    outcomes = run(Task("handler", signal.getsignal, (signal.SIGINT,)))
    assert outcomes["handler"].value == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def test_leaving_the_block_ends_the_processes():
    with Pool(2, SLOW) as pool:
        outcomes = pool.run(
            [Task("pid", os.getpid), Task("hang", time.sleep, (1000,))],
        )
        pid = next(outcomes).value
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


TASKS = """
import ctypes, time

def late():
    time.sleep(1.1)

def crash():
    ctypes.string_at(0)
"""


def test_the_place_of_a_crash_is_that_of_its_own_task(tmp_path, monkeypatch):
    """A task that ends just after its time has been noted as late; the next one is not there."""
    (tmp_path / "tasks_of_a_test.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    import tasks_of_a_test as tasks  # pyright: ignore

    outcomes = run(Task("late", tasks.late), Task("crash", tasks.crash), timeout=1.0)
    assert outcomes["late"].status == "done"
    assert outcomes["crash"].failure == (
        "crashed its process (segmentation fault); it was at "
        f"{tmp_path / 'tasks_of_a_test.py'}, line 8, in crash"
    )


PARENT = """
import multiprocessing, time
from handgrad.compare.workers import Pool, Task

begun = []

def started(task):
    begun.append(task)
    if len(begun) == 2:
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)

if __name__ == "__main__":
    with Pool(2, 100) as pool:
        list(pool.run([Task(name, time.sleep, (100,)) for name in "ab"], started))
"""


def test_workers_die_with_their_parent(tmp_path):
    """A parent that is killed cannot end its workers: they notice, even in the midst of a task."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    folder = tmp_path / "temporary"
    folder.mkdir()
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20  # of the 100 seconds that the task would take
    while time.monotonic() < deadline and any(map(_is_running, pids)):
        time.sleep(0.05)
    assert not any(map(_is_running, pids))
    assert list(folder.iterdir()) == []


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("dump", "place"),
    [
        ('  File "/home/me/mine.py", line 3 in f\n', "/home/me/mine.py, line 3, in f"),
        (
            f'  File "{os.__file__}", line 9 in wait\n  File "<string>", line 1 in <module>\n'
            '  File "/home/me/mine.py", line 3 in f\n  File "/home/me/main.py", line 8 in g\n',
            "/home/me/mine.py, line 3, in f",
        ),
        (f'  File "{workers.__file__}", line 9 in _serve\n', ""),
        (f'  File "{workers.OURS[0]}dense.py", line 9 in affine\n',
         f"{workers.OURS[0]}dense.py, line 9, in affine"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_place_is_the_users_innermost_line(dump, place):
    assert workers._place(dump) == place


def test_memory_of_this_machine_is_known():
    memory = workers.memory_of_machine()
    assert memory is None or memory > 10**8
