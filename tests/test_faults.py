"""What happens to machines happens here, for real: to processes that the tests have started."""

import time
from contextlib import closing

import pytest

from studies.execute.pool import Pool
from studies.execute.serial import Serial
from studies.execute.task import Task
from studies.record import Started

HERE = "tests.test_faults:"


def nap(payload):
    time.sleep(0.2)
    yield payload


def tasks(count):
    return [Task(str(i), f"g{i}", threads=1, payload=i) for i in range(count)]


@pytest.mark.parametrize("kind", [lambda: Pool(workers=2), Serial], ids=["pool", "serial"])
def test_an_executor_that_is_drained_ends_what_runs_and_begins_nothing(kind):
    with closing(kind()) as executor:
        begun, done = [], []
        for task, record in executor.run(HERE + "nap", tasks(6)):
            (begun if isinstance(record, Started) else done).append(task.key)
            if not isinstance(record, Started):
                executor.drain()
        assert sorted(begun) == sorted(done) and 1 <= len(done) <= 3
        assert not list(executor.run(HERE + "nap", tasks(2)))
