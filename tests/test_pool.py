import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import closing

import pytest

from studies.execute.pool import EXPECTED, PIPE_BYTES, Pool, expect, expect_no_more
from studies.execute.queue import AHEAD_BYTES, Queue
from studies.execute.serial import Serial
from studies.execute.task import Task
from studies.execute.worker import environment
from studies.record import Checkpoint, Result, Started, StudyError

HERE = "tests.test_pool:"


def double(payload):
    yield payload
    yield 2 * payload


def where(payload):
    time.sleep(0.05)
    yield os.getpid()


def die(payload):
    yield "alive"
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path):
    yield "first" if not os.path.exists(path) else "second"
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def die_after_result(key):
    yield Result(key, "finished")
    time.sleep(0.2)  # what is yielded is sent while the task goes on
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_checkpoint(path):
    with open(path, "a") as file:
        file.write(".")
    if os.path.getsize(path) == 1:
        yield Checkpoint("t0", 1, b"")
    os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def kill_server(path):
    yield "first" if not os.path.exists(path) else "second"
    if not os.path.exists(path) or not path:
        open(path or os.devnull, "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    yield "done"


def quick_then_die(path):
    if path and not os.path.exists(path):
        open(path, "w").close()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def last_to_die(payload):
    """Slow at first, as if it compiled; one task dies when both workers have done theirs and one is idle."""
    folder, dies = payload
    warm = folder / str(os.getpid())
    if not warm.exists():
        time.sleep(0.3)
        warm.touch()
    if dies and not (folder / "died").exists():
        deadline = time.monotonic() + 20
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def swell(payload):
    yield len(payload)
    yield bytes(3 * PIPE_BYTES)


def processes(payload):
    yield os.getpid(), os.getppid()
    time.sleep(60)


def draw(payload):
    import numpy

    time.sleep(0.1)
    yield numpy.random.random()  # noqa: NPY002  forks share the global one


def fail(payload):
    yield "before"
    raise RuntimeError(f"no {payload}")


def variable(name):
    yield os.environ.get(name)


@pytest.fixture
def pool():
    pool = Pool(workers=2)
    yield pool
    pool.close()


def tasks(payloads, group=lambda i: "g", threads=1):
    return [Task(f"t{i}", group(i), threads, payload) for i, payload in enumerate(payloads)]


def records(executor, function, work):
    """Each task's records, by key, without the `Started`s."""
    found = {task.key: [] for task in work}
    for task, record in executor.run(HERE + function, work):
        found[task.key].append(record)
    return {key: [r for r in rs if not isinstance(r, Started)] for key, rs in found.items()}


@pytest.mark.parametrize("kind", [Serial, lambda: Pool(2)], ids=["serial", "pool"])
def test_every_task_yields_its_records_in_order(kind):
    executor = kind()
    try:
        assert records(executor, "double", tasks(range(7))) == {f"t{i}": [i, 2 * i] for i in range(7)}
        assert records(executor, "double", []) == {}
    finally:
        executor.close()


def test_one_process_runs_tasks_of_one_number_of_threads(monkeypatch):
    monkeypatch.setattr("studies.execute.serial.threads", None)
    for name in environment(1, number=0):
        monkeypatch.setenv(name, "")
    one, three = (tasks(["OMP_NUM_THREADS"], threads=threads) for threads in (1, 3))

    def refused(work, message):
        with pytest.raises(StudyError, match=message):
            next(Serial().run(HERE + "double", work))

    refused([*one, *three], r"engine\.threads=3: expected 1, .*; use executor=pool")  # before any has run
    assert records(Serial(), "variable", three) == {"t0": ["3"]}
    refused(one, r"engine\.threads=1: expected 3, .*; use executor=pool")
    assert records(Serial(), "variable", three) == {"t0": ["3"]}


def test_what_is_printed_by_importing_what_a_serial_task_needs_is_heard_as_little_as_a_workers(
    tmp_path, monkeypatch, capfd
):
    (tmp_path / "noisy_of_tests.py").write_text(
        "import os\nos.write(2, b'log of an import')\ndef run(payload):\n    os.write(2, b'of a task')\n    yield 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("studies.execute.serial.threads", None)
    assert [record for _, record in Serial().run("noisy_of_tests:run", tasks([0]))][1:] == [1]
    assert capfd.readouterr().err == "of a task"


def test_a_crash_in_a_users_own_code_begins_with_its_line(pool, tmp_path):
    place = f"(tests/test_pool.py, line {fail.__code__.co_firstlineno + 2}, in fail)"
    for executor in (Serial(), pool):
        result = records(executor, "fail", tasks(["luck"]))["t0"][-1]
        assert result.error.startswith(f"RuntimeError: no luck {place}\n")


def test_a_pool_keeps_its_workers_between_runs(pool):
    first = records(pool, "where", tasks(range(4)))
    second = records(pool, "where", tasks(range(4)))
    pids = {pid for found in (first, second) for rs in found.values() for pid in rs}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_group_stays_on_one_worker_while_there_are_groups_for_all(pool):
    found = records(pool, "where", tasks(range(8), group=lambda i: f"g{i % 2}"))
    assert len({pid for i in (0, 2, 4) for pid in found[f"t{i}"]}) == 1
    assert len({pid for i in (1, 3, 5) for pid in found[f"t{i}"]}) == 1


def test_the_most_costly_group_starts_first():
    pool = Pool(workers=1)
    try:
        work = [Task("a", "cheap", 1, 1, cost=1), Task("b", "dear", 1, 2, cost=9), Task("c", "cheap", 1, 3, cost=1)]
        order = [task.key for task, record in pool.run(HERE + "double", work) if isinstance(record, Started)]
    finally:
        pool.close()
    assert order == ["b", "a", "c"]


def test_a_worker_that_dies_costs_its_task_a_retry_and_no_other_task_anything(pool, tmp_path):
    work = tasks([str(tmp_path / "died")])
    seen = [record for _, record in pool.run(HERE + "die_once", work)]
    assert seen == [Started("t0", 1), "first", Started("t0", 2), "second", "done"]
    assert records(pool, "double", tasks(range(5))) == {f"t{i}": [i, 2 * i] for i in range(5)}


def test_a_task_whose_worker_dies_after_its_result_has_that_alone(pool):
    seen = [record for _, record in pool.run(HERE + "die_after_result", tasks(["t0"]))]
    assert [type(record) for record in seen] == [Started, Result] and seen[-1].status == "finished"


def test_a_task_that_kills_its_worker_twice_after_a_checkpoint_is_crashed(pool, tmp_path):
    seen = [record for _, record in pool.run(HERE + "die_after_checkpoint", tasks([str(tmp_path / "deaths")]))]
    assert [record.attempt for record in seen if isinstance(record, Started)] == [1, 2]
    assert "its worker died 2 times" in seen[-1].error


def test_a_task_that_kills_its_worker_twice_is_crashed(pool):
    found = records(pool, "die", tasks([0]))["t0"]
    assert found[:-1] == ["alive", "alive"]
    assert isinstance(found[-1], Result) and found[-1].status == "crashed"
    assert "SIGKILL" in found[-1].error and "last words" in found[-1].error


def test_an_exception_is_a_crash_with_its_traceback_and_no_retry(pool):
    before, result = records(pool, "fail", tasks(["luck"]))["t0"]
    assert before == "before" and result.status == "crashed"
    assert "RuntimeError: no luck" in result.error and "in fail" in result.error


def test_a_function_that_is_not_there_is_a_crash(pool):
    (result,) = records(pool, "nowhere", tasks([0]))["t0"]
    assert result.status == "crashed" and "nowhere" in result.error


def test_tasks_get_workers_with_their_number_of_threads(pool):
    work = [Task(f"t{n}", "g", n, "TF_NUM_INTRAOP_THREADS") for n in (1, 3)]
    assert records(pool, "variable", work) == {"t1": ["1"], "t3": ["3"]}


def alive(pids, seconds=10):
    """Those of the processes that are still there after a while."""
    deadline = time.monotonic() + seconds
    while (there := [pid for pid in pids if runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return there


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_are_forked_from_one_server_and_are_gone_when_it_is_closed():
    pool = Pool(2)
    found = []
    for _, record in pool.run(HERE + "processes", tasks(range(2), group=str)):
        found += [record] if isinstance(record, tuple) else []
        if len(found) == 2:
            break
    workers, servers = (set(pids) for pids in zip(*found, strict=True))
    assert len(workers) == 2 and len(servers) == 1 and os.getpid() not in servers
    assert not [pid for pid in workers if os.getpgid(pid) != min(servers)]  # no Ctrl-C reaches them
    pool.close()
    assert not alive(workers | servers, seconds=1)


def test_a_server_that_is_killed_takes_its_workers_along_and_costs_their_tasks_a_retry(pool, tmp_path):
    started = time.monotonic()
    seen = [record for _, record in pool.run(HERE + "kill_server", tasks([str(tmp_path / "died")]))]
    assert seen == [Started("t0", 1), "first", Started("t0", 2), "second", "done"]
    assert time.monotonic() - started < 60  # its sleep
    found = records(pool, "kill_server", tasks([""]))["t0"]
    assert isinstance(found[-1], Result) and "SIGKILL" in found[-1].error


def test_a_task_that_waits_at_a_worker_that_dies_loses_nothing(tmp_path):
    pool = Pool(1)
    try:
        work = tasks(["", "", "", str(tmp_path / "died"), "", ""])
        attempts = [record for _, record in pool.run(HERE + "quick_then_die", work) if isinstance(record, Started)]
    finally:
        pool.close()
    assert attempts == [Started(f"t{i}", n) for i, n in ((0, 1), (1, 1), (2, 1), (3, 1), (3, 2), (4, 1), (5, 1))]


@pytest.mark.parametrize("place", [-1, -2], ids=["last", "with one ahead"])
def test_a_task_whose_worker_dies_is_done_by_one_that_has_run_dry(pool, tmp_path, place):
    payloads = [(tmp_path, False)] * 12
    payloads[place] = (tmp_path, True)
    found = records(pool, "last_to_die", tasks(payloads))
    assert found == {f"t{i}": ["done"] for i in range(12)}
    assert len(list(tmp_path.iterdir())) == 3  # that one of them died, and no third worker had to become warm


def test_no_run_ends_while_tasks_wait(monkeypatch, pool):
    monkeypatch.setattr(Queue, "take", lambda *_: None)
    with pytest.raises(RuntimeError, match="3 tasks were never given"):
        records(pool, "double", tasks(range(3)))


@pytest.mark.parametrize("size", [10, AHEAD_BYTES - 500, 2 * PIPE_BYTES])
def test_large_tasks_and_records_block_nobody(size):
    pool = Pool(1)
    try:
        found = records(pool, "swell", tasks([bytes(size)] * 4))
    finally:
        pool.close()
    assert {key: [r if isinstance(r, int) else len(r) for r in rs] for key, rs in found.items()} == {
        key: [size, 3 * PIPE_BYTES] for key in found
    }


def test_workers_do_not_share_a_generator(pool):
    drawn = [record for records_ in records(pool, "draw", tasks(range(2), group=str)).values() for record in records_]
    assert drawn[0] != drawn[1]


def test_workers_take_turns_on_the_gpus_that_the_user_lists(monkeypatch):
    monkeypatch.setattr("studies.execute.worker.gpus", lambda: ["3", "GPU-a"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a")
    assert [environment(1, n)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["3", "GPU-a", "3"]
    monkeypatch.setattr("studies.execute.worker.gpus", lambda: [])
    assert "CUDA_VISIBLE_DEVICES" not in environment(1, 0)


@pytest.mark.parametrize("when", ["busy", "importing"])
def test_no_process_is_left_when_the_driver_is_killed(when):
    code = f"""
from studies.execute.pool import Pool
from studies.execute.task import Task
pool = Pool(2)
pool.start("{HERE}processes", 2)
print(pool.servers[1].process.pid, flush=True)
for task, record in pool.run("{HERE}processes", [Task(str(i), str(i), 1, i) for i in range(4)]):
    if isinstance(record, tuple): print(*record, flush=True)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = {int(driver.stdout.readline())}
    if when == "busy":
        pids |= {int(pid) for _ in range(2) for pid in driver.stdout.readline().split()}
        assert len(pids) == 3
    driver.kill()
    driver.wait()
    assert not alive(pids, seconds=30)


LOOK = """
import os, sys
import keras
import tensorflow
from tensorflow.python.eager import context
ABSENT = [name for name in ("matplotlib.pyplot", "pandas", "sklearn.base") if sys.modules.get(name) is None]
LOADED_BY = os.getpid()
def look(payload):
    memory = dict(line.split(":")[:2] for line in open("/proc/self/smaps_rollup") if ":" in line[:20])
    kb = {name: int(memory[name].split()[0]) for name in ("Rss", "Pss")}
    threads = len(os.listdir("/proc/self/task"))
    import pandas  # it can be had all the same
    yield LOADED_BY, os.getppid(), threads, context._context is None, len(ABSENT), kb
"""


def test_a_worker_has_tensorflow_imported_but_not_started_and_shares_its_memory(tmp_path, monkeypatch):
    (tmp_path / "looking.py").write_text(LOOK)
    monkeypatch.syspath_prepend(tmp_path)
    pool = Pool(2)
    try:
        found = [r for _, r in pool.run("looking:look", tasks(range(2), group=str)) if isinstance(r, tuple)]
    finally:
        pool.close()
    assert len(found) == 2
    for loaded_by, parent, threads, asleep, absent, kb in found:
        assert loaded_by == parent and threads == 1 and asleep and absent == 3
        assert kb["Pss"] < 0.6 * kb["Rss"], kb


def test_what_is_not_of_one_thread_is_not_forked(tmp_path, monkeypatch):
    (tmp_path / "threaded.py").write_text(
        "import os, threading, time\n"
        "LOADED_BY = os.getpid()\n"
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        "def look(payload): yield LOADED_BY == os.getpid()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pool = Pool(1)
    try:
        assert [r for _, r in pool.run("threaded:look", tasks([0])) if not isinstance(r, Started)] == [True]
    finally:
        pool.close()


def test_the_number_of_workers():
    with pytest.raises(StudyError, match="workers=0: expected 1 or more"):
        Pool(workers=0)
    assert Pool(workers=3).workers == 3


class Counted(str):
    """A group that counts how often anybody looks at it."""

    looks = 0

    def __hash__(self):
        Counted.looks += 1
        return super().__hash__()

    def __lt__(self, other):
        Counted.looks += 1
        return super().__lt__(other)

    __eq__ = str.__eq__


class Idle:
    """What a queue knows of a worker."""

    def __init__(self, groups=()):
        self.groups, self.compiled, self.open, self.tasks = set(groups), set(), {}, []

    def done(self):
        return 1.0


@pytest.mark.parametrize("known", ["by nobody", "by both", "by the other"])
@pytest.mark.parametrize("groups", [4, 10**9], ids=["few groups", "each its own"])
def test_what_it_takes_to_hand_out_tasks_is_near_linear_in_their_number(known, groups):
    def looks(count):
        work = [Task(str(i), Counted(i % groups), 1, None, cost=1 + i % 7) for i in range(count)]
        names = [task.group for task in work]
        crew = [Idle(names if known == "by both" else ()), Idle(names if known != "by nobody" else ())]
        Counted.looks = 0
        queue, taken = Queue(work, crew), []
        while task := queue.take(crew[len(taken) % 2], crew):
            queue.note(crew[len(taken) % 2], task)
            taken.append(task.key)
        assert len(taken) == len(set(taken)) >= count - 3
        return Counted.looks

    assert looks(4000) < 5 * looks(1000)


def test_a_worker_joins_a_group_only_while_that_ends_it_sooner():
    def joins(waiting, first, later):
        knower, other = Idle(), Idle()
        queue = Queue(tasks(range(waiting + 2)), [knower, other])
        for seconds in (first, later):
            knower.done = lambda seconds=seconds: seconds
            queue.note(knower, queue.take(knower, [knower, other]))
        assert len(queue.waiting["g"]) == waiting
        return queue.take(other, [knower, other]) is not None

    assert not joins(waiting=4, first=3.0, later=0.5)
    assert joins(waiting=20, first=3.0, later=0.5)
    assert joins(waiting=1, first=3.0, later=60.0)
    unknown = Queue(tasks(range(2)), [Idle(), Idle()])
    assert unknown.take(Idle(), [Idle()]) and unknown.take(Idle(), [Idle(["g"])])  # nobody knows how long it takes


class Mortal(Idle):
    """A worker of no process; of a group it does not know, the first task takes long."""

    def __init__(self, groups=(), threads=1):
        super().__init__(groups)
        self.threads, self.tasks = threads, deque()

    def done(self):
        return 0.01 if self.tasks.popleft().group in self.compiled else 5.0


@pytest.mark.parametrize("seed", range(200))
def test_every_task_is_done_once_whoever_dies(seed):
    rng = random.Random(seed)
    groups = [f"g{i}" for i in range(rng.randint(1, 4))]
    work = [
        Task(str(i), rng.choice(groups), rng.choice((1, 1, 1, 2)), None, cost=rng.choice((0.1, 1.0, 7.0)))
        for i in range(rng.randint(1, 40))
    ]
    crew = [Mortal(rng.sample(groups, rng.randint(0, len(groups)))) for _ in range(rng.randint(1, 4))]
    queue, done, deaths = Queue(work, crew), Counter(), rng.randint(0, 12)
    while True:
        for place, worker in enumerate(crew):
            if not worker.tasks and (task := queue.take(worker, crew)):
                if worker.threads != task.threads:
                    worker = crew[place] = Mortal(threads=task.threads)
                worker.tasks.append(task)
            if len(worker.tasks) == 1 and (task := queue.ahead(worker)):
                worker.tasks.append(task)
        busy = [worker for worker in crew if worker.tasks]
        if not busy:
            break
        worker = rng.choice(busy)
        if deaths and (rng.random() < 0.2 or len(busy) == 1):  # the last that works: the others have run dry
            deaths -= 1
            crew[crew.index(worker)] = Mortal(threads=worker.threads)
            for task in reversed(worker.tasks):
                queue.put(task, crew)
        else:
            task = worker.tasks[0]
            queue.note(worker, task)
            done[task.key] += 1
    assert done == Counter(task.key for task in work)


def test_an_expected_server_is_the_first_pools(monkeypatch):
    expect(HERE + "double")
    [expected] = EXPECTED
    with closing(Pool(1)) as mine:
        assert [record for _, record in mine.run(HERE + "double", tasks([3]))][1:] == [3, 6]
        assert mine.servers == {1: expected} and not EXPECTED


@pytest.mark.parametrize("change", ["function", "environment", "death"])
def test_a_server_that_is_not_as_one_would_be_now_is_left_and_ended(monkeypatch, change):
    expect(HERE + ("where" if change == "function" else "double"))
    [expected] = EXPECTED
    if change == "environment":
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    if change == "death":
        expected.process.kill()
        expected.process.wait()
    with closing(Pool(1)) as mine:
        assert [record for _, record in mine.run(HERE + "double", tasks([3]))][1:] == [3, 6]
        assert mine.servers[1] is not expected
    expect_no_more()
    assert expected.process.returncode is not None and not EXPECTED
