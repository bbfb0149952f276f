import os
import signal
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from studies.execute.ray import Ray
from studies.execute.task import Task
from studies.record import Result, Started

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

HERE = "tests.test_ray:"
SECRET = "ab" * 32


def double(payload):
    yield payload
    yield 2 * payload


def where(seconds):
    import ray

    time.sleep(seconds)
    yield ray.get_runtime_context().get_node_id(), os.getpid()


def die(payload):
    yield "alive"
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path):
    first = not os.path.exists(path)
    yield "first" if first else "second"
    if first:
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def hang(path):
    first = not os.path.exists(path)
    open(path, "w").close()
    time.sleep(60 * first)
    yield "done"


def fail(payload):
    yield "before"
    raise RuntimeError(f"no {payload}")


def variables(names):
    yield {name: os.environ.get(name) for name in names}


def pour(count):
    import ray  # noqa: F401

    for number in range(count):
        yield "record", number, time.time()


def save(trial):
    Path(trial.model).write_bytes(b"weights of " + trial.key.encode())
    yield Result(trial.key, "finished")


def give(path):
    import numpy

    return numpy.load(path)


HAD = {}


def take(of, value):
    HAD[of] = value


def read(path):
    import ray

    value = HAD[path]
    yield ray.get_runtime_context().get_node_id(), int(value.sum()), value.flags.writeable, _mapped(value)


def _mapped(array):
    """What the memory of an array is a part of."""
    place = array.__array_interface__["data"][0]
    for line in open("/proc/self/maps"):
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= place < high:
            return line.split()[-1]


def imported(name):
    import importlib

    yield importlib.import_module(name).VALUE


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of a processor each, which miss those that are killed within two seconds."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", SECRET)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    from ray.cluster_utils import Cluster

    fast = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": fast}
    )
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def ray(cluster):
    with closing(Ray(cluster.address)) as executor:
        yield executor


def tasks(payloads, group=lambda i: "g", threads=1, **more):
    return [Task(f"t{i}", group(i), threads, payload, **more) for i, payload in enumerate(payloads)]


def records(executor, function, work):
    found = {task.key: [] for task in work}
    for task, record in executor.run(HERE + function, work):
        found[task.key].append(record)
    return {key: [r for r in rs if not isinstance(r, Started)] for key, rs in found.items()}


def test_every_task_yields_its_records_in_order_on_both_nodes(ray):
    assert records(ray, "double", tasks(range(7))) == {f"t{i}": [i, 2 * i] for i in range(7)}
    assert records(ray, "double", []) == {}
    assert ray.workers == 2
    found = records(ray, "where", tasks([0.3] * 4, group=str))
    nodes, pids = (set(each) for each in zip(*(rs[0] for rs in found.values()), strict=True))
    assert len(nodes) == len(pids) == 2
    again = {pid for rs in records(ray, "where", tasks([0.3] * 4, group=str)).values() for _, pid in rs}
    assert again == pids  # they are kept, with what they have compiled


def test_a_trial_says_what_it_ran_on(ray):
    from studies.command import provenance

    started = [r for _, r in ray.run(HERE + "double", tasks([1])) if isinstance(r, Started)]
    assert [s.circumstances for s in started] == [provenance.circumstances()]
