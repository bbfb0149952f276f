import os
import shutil
import signal
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from analysis import load
from studies import run
from studies.command.checkpoints import Checkpoints
from studies.execute.actor import HELD
from studies.execute.cluster import _bind
from studies.execute.ray import ATTEMPTS, Ray
from studies.execute.task import Reading, Task
from studies.record import Checkpoint, Result, Started, StudyError, Trial
from tests.test_checkpoints import TIMES, weights

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
    time.sleep(0.2)  # what is yielded is sent while the task goes on
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path):
    first = not os.path.exists(path)
    yield "first" if first else "second"
    if first:
        time.sleep(0.2)
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    yield "done"


def die_after_checkpoints(payload):
    """And once more after its result."""
    yield Checkpoint("t0", payload + 1, bytes(2**20))
    if payload == 2:
        yield Result("t0", "finished")
        time.sleep(2 * HELD)
        yield "what comes then has that be sent"
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


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
    time.sleep(0.3)
    yield ray.get_runtime_context().get_node_id(), int(value.sum()), value.flags.writeable, _mapped(value)


def _mapped(array):
    """What the memory of an array is a part of."""
    place = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= place < high:
            return line


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
        assert len(seen(executor, 2)) == 2
        yield executor


def seen(executor, count):
    """The workers, each by its node and process, once so many nodes have one, which a busy machine takes long for."""
    found, until = set(), time.monotonic() + 90
    while len({node for node, _ in found}) < count and time.monotonic() < until:
        found |= {rs[0] for rs in records(executor, "where", tasks([0.2] * 2 * count, group=str)).values()}
    return found


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
    pids = {pid for _, pid in seen(ray, 2)}
    again = {pid for rs in records(ray, "where", tasks([0.3] * 4, group=str)).values() for _, pid in rs}
    assert again == pids  # they are kept, with what they have compiled


OWN = """
import keras

def net(input_shape, classes):
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(inputs := keras.Input(input_shape)))
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Dropout(0.5)(x)))
"""


def stored(store):
    """What a store has of the trials, but for what hangs on time and place, and their models' weights."""
    frames = load.trials("single", store), load.epochs("single", store), load.layers("single", store)
    frames = [frame.drop(columns=[*TIMES, "seconds", "folder"], errors="ignore") for frame in frames]
    keys = {run.run_id: run.tags["trial.key"] for run in load.ended("single", store)}
    models = {keys[file.parts[-3]]: weights(file) for file in store.rglob("model.keras")}
    assert len(models) == 2 and all(len(model) >= 4 for model in models.values())
    return [frame.map(repr).sort_values(list(frame)).to_csv(index=False) for frame in frames], models


def test_trials_are_a_pools_to_the_bit_though_a_worker_dies_after_a_checkpoint(
    cluster, cli, fresh, tmp_path, monkeypatch
):
    (tmp_path / "mine_of_cluster.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["~model", "+model={_target_: mine_of_cluster.net}", "targets.allow=[mine_of_cluster.]"]
    words += ["study.seeds=2", "training.epochs=3", "data.train_size=200", "checkpoints.epochs=1"]
    words += ["tracking.models=all"]
    kept, died = Checkpoints.keep, []

    def keep(checkpoints, record):
        said = kept(checkpoints, record)
        [executor] = run.EXECUTORS.values()
        for worker in executor.crew if not died else ():
            if worker.tasks and worker.tasks[0].key == record.key:
                worker.kill()
                died.append(record.key)
        return said

    stores = [shutil.copytree(fresh, tmp_path / name) for name in ("pool", "ray")]
    code, _, error = cli(*words, f"tracking.root={stores[0]}")
    assert code == 0, error
    monkeypatch.setattr(Checkpoints, "keep", keep)
    code, printed, error = cli(
        *words, f"tracking.root={stores[1]}", "executor=ray", f"executor.address={cluster.address}"
    )
    assert code == 0 and died and " goes on after epoch " in printed, (printed, error)
    assert stored(stores[0]) == stored(stores[1])


def test_a_trial_says_what_it_ran_on(ray):
    from studies.command import provenance

    started = [r for _, r in ray.run(HERE + "double", tasks([1])) if isinstance(r, Started)]
    assert [s.circumstances for s in started] == [provenance.circumstances()]


def test_a_task_is_tried_again_from_its_newest_checkpoint_as_long_as_it_gets_on(ray):
    kept, ends = [], []
    for _, record in ray.run(HERE + "die_after_checkpoints", tasks([0], renewed=lambda payload: len(kept))):
        (kept if isinstance(record, Checkpoint) else ends).append(record)
    assert [record.epoch for record in kept] == [1, 2, 3]
    assert [record.status for record in ends if isinstance(record, Result)] == ["finished"]


def test_a_task_that_kills_its_worker_is_tried_again_and_twice_is_crashed(ray, tmp_path):
    seen = [r for _, r in ray.run(HERE + "die_once", tasks([str(tmp_path / "died")]))]
    assert [r.attempt if isinstance(r, Started) else r for r in seen] == [1, "first", 2, "second", "done"]
    *alive, result = records(ray, "die", tasks([0]))["t0"]
    assert alive == ["alive"] * ATTEMPTS and result.status == "crashed"
    assert "its worker died 2 times, the last time The actor is dead because its worker process" in result.error


def test_an_exception_is_a_crash_with_its_traceback_and_no_retry(ray):
    before, result = records(ray, "fail", tasks(["luck"]))["t0"]
    assert before == "before" and result.status == "crashed" and "RuntimeError: no luck" in result.error
    (result,) = records(ray, "nowhere", tasks([0]))["t0"]
    assert result.status == "crashed" and "nowhere" in result.error


def test_a_hung_task_has_its_worker_killed_and_is_tried_again(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "timeout", 1.0)
    assert records(ray, "hang", tasks([str(tmp_path / "hung")])) == {"t0": ["done"]}


def test_a_worker_has_the_environment_of_a_pools_and_none_of_its_nodes_own(ray, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    names = ["TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "MALLOC_TRIM_THRESHOLD_"]
    work = [Task(f"t{n}", "g", n, [*names, "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"]) for n in (1, 3)]
    with pytest.raises(StudyError, match=r"executor\.cpus=3: no node has so much; the cluster has .* \(1 CPUs, 0 GPUs"):
        ray.close()
        records(ray, "variables", work[1:])
    monkeypatch.setattr(ray, "cpus", 1)
    found = records(ray, "variables", work)
    same = {"CUDA_VISIBLE_DEVICES": "-1", "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20), "ONEDNN_MAX_CPU_ISA": "avx2"}
    for n in (1, 3):
        told = {"TF_NUM_INTRAOP_THREADS": str(n), "OMP_NUM_THREADS": str(n), "TF_ENABLE_ONEDNN_OPTS": None}
        assert found[f"t{n}"] == [told | same]


def test_a_task_waits_where_the_driver_does_not_read_what_it_yields(ray):
    run = ray.run(HERE + "pour", tasks([200]))
    seen = [next(run), next(run)]
    time.sleep(1)
    slept = time.time()
    seen += run
    made = [record[-1] for _, record in seen if isinstance(record, tuple)]
    assert len(made) == 200 and made == sorted(made)
    assert sum(when < slept for when in made) < 60  # UNREAD, and what is on its way


def test_drained_it_ends_with_what_runs(cluster):
    with closing(Ray(cluster.address, workers=1)) as executor:
        ended = []
        for task, record in executor.run(HERE + "where", tasks([0.2] * 20)):
            executor.drain()
            ended += [task.key] if isinstance(record, tuple) else []
        assert 1 <= len(ended) <= 2 and list(executor.run(HERE + "double", tasks([1]))) == []


def test_a_dataset_goes_to_a_node_once_and_files_and_models_need_not_be_there(ray, tmp_path):
    import numpy

    file = tmp_path / "numbers.npy"
    numpy.save(file, numpy.ones((400, 400)))
    reading = Reading("numbers", HERE + "give", HERE + "take", str(file))
    given = []
    for _, record in ray.run(HERE + "read", tasks([str(file)] * 6, group=str, reads=reading)):
        file.unlink(missing_ok=True)  # the driver has read it
        given += [record] if isinstance(record, tuple) else []
    assert len({node for node, *_ in given}) == 2
    assert {(total, writeable) for _, total, writeable, _ in given} == {(160000, False)}
    assert all("/plasma" in line for *_, line in given)  # all workers of a node share it
    folder = tmp_path / "models"
    folder.mkdir()
    trials = [Trial(f"k{n}", "s", "scientific", {}, n, {}, (), "", model=str(folder / f"k{n}.keras")) for n in range(2)]
    found = records(ray, "save", tasks(trials))
    assert [r.status for rs in found.values() for r in rs] == ["finished"] * 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"k{n}.keras": b"weights of k%d" % n for n in range(2)
    }


def test_a_module_of_the_users_own_comes_to_the_nodes(ray, tmp_path):
    package = tmp_path / "mine_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("from mine_of_tests.inner import VALUE\n")
    (package / "inner.py").write_text("VALUE = 42\n")
    ray.bring([str(package)])
    ray.workers  # noqa: B018  it connects
    package.rename(tmp_path / "moved")
    assert records(ray, "imported", tasks(["mine_of_tests"])) == {"t0": [42]}
    (tmp_path / "moved").rename(package)


def test_a_node_of_other_versions_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("studies.execute.ray.versions", lambda: {"Python": "3.11", "keras": "3.99"})
    with closing(Ray(cluster.address)) as executor, pytest.raises(StudyError) as refused:
        list(executor.run(HERE + "double", tasks([1])))
    said = str(refused.value)
    assert said.startswith("the node ") and "not 3.11" in said and "not 3.99 as here" in said


def test_where_there_is_no_cluster_it_says_so(monkeypatch):
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(StudyError, match=rf"executor\.address={address}: nobody answers at 127.0.0.1:1\. Expected"):
            Ray(address).workers  # noqa: B018
    with pytest.raises(StudyError, match=r"executor\.cpus=0: expected more than 0"):
        Ray(cpus=0)


def test_a_ray_of_this_machine_listens_on_loopback_alone_and_ends_with_the_executor():
    psutil = pytest.importorskip("psutil")
    own = psutil.Process()

    def listening():
        """This process's family, and where each of it listens."""
        family = [own, *own.children(recursive=True)]
        ends = [(each, c) for each in family for c in each.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        return set(family), {(each, c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for each, c in ends}

    family, ends = listening()  # the cluster's, too
    with closing(Ray(workers=1)) as executor:
        assert records(executor, "double", tasks([1])) == {"t0": [1, 2]}
        folder, head = executor.connection.folder, executor.connection.ray.get_runtime_context().gcs_address
        there, heard = (now - before for now, before in zip(listening(), (family, ends), strict=True))
        assert head in {f"{ip}:{port}" for _, ip, port in heard}
        assert {ip for _, ip, _ in heard} == {"127.0.0.1"}
    assert there and not [each for each in there if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not os.path.exists(folder)


def test_a_ray_that_may_listen_elsewhere_is_not_started():
    with pytest.raises(StudyError, match="not known to listen on this machine's loopback alone"):
        _bind(object(), local=True)
    _bind(object(), local=False)


def test_of_a_node_that_is_killed_nothing_is_lost_and_nothing_else_is_run_again(cluster, ray, capfd):
    node = cluster.add_node(num_cpus=1)
    raylet = node.all_processes["raylet"][0].process.pid
    assert len(seen(ray, 3)) == 3
    work = tasks([0.3] * 24, group=lambda i: str(i % 3))
    found, starts, killed = {}, {}, False
    for task, record in ray.run(HERE + "where", work):
        if isinstance(record, Started):
            starts[task.key] = record.attempt
        else:
            found[task.key] = record
        if not killed and len(found) >= 12 and node.node_id in {each for each, _ in found.values()}:
            os.kill(raylet, signal.SIGKILL)
            killed = True
    assert killed and set(found) == {task.key for task in work}
    assert len({each for each, _ in found.values()}) == 3
    again = {key for key, attempt in starts.items() if attempt > 1}
    assert len(again) == 1 and max(starts.values()) == 2  # what its one worker was at
    assert capfd.readouterr() == ("", "")
