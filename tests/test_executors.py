import os
import signal
import subprocess
import sys
import time

import pytest

from studies.executors import Pool, Serial, Task, default_workers
from studies.record import Result, Started, StudyError

HERE = "tests.test_executors:"


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


def test_workers_end_when_the_driver_is_killed(tmp_path):
    code = f"""
import sys
from studies.executors import Pool, Task
for task, record in Pool(2).run("{HERE}where", [Task(str(i), str(i % 2), 1, i) for i in range(10**6)]):
    if isinstance(record, int): print(record, flush=True)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = {int(driver.stdout.readline()) for _ in range(6)}
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while (alive := [pid for pid in workers if os.path.exists(f"/proc/{pid}")]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not alive


def test_the_number_of_workers():
    with pytest.raises(StudyError, match="workers=0: expected 1 or more"):
        Pool(workers=0)
    assert Pool(workers=3).workers == 3
    assert 1 <= default_workers(threads=1) <= os.cpu_count()
    assert default_workers(threads=10**6) == 1
