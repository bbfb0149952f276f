"""Stores that machines share: a real PostgreSQL and a real MLflow server on it, killed, and asked for secrets."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from test_writer import STUDY, made_up_trials, records

from analysis import load
from analysis.read import server as reading
from studies import address, contract, terminal, waiting
from studies.address import Address
from studies.masking import masked
from studies.record import StudyError
from studies.store import client, database, holder, lease, writer
from studies.store import postgres as postgres_store

ROOT = Path(__file__).parent.parent
SECRET = "pass-wort_42x"
NOBODY = 65534


def binaries():
    """The folder of PostgreSQL's programs; Debian has them in none of PATH's."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Postgres:
    """A server of one's own, which asks for a password."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            os.chown(folder, NOBODY, NOBODY)
        (folder / "word").write_text(SECRET)
        (folder / "word").chmod(0o644)
        self.run(
            "initdb", "-A", "scram-sha-256", "-U", "boss", f"--pwfile={folder}/word", "-N", "--locale=C", "-E", "UTF8"
        )
        self.start()
        with admin(self) as connection:  # who may do no more than the recipe's: a superuser may set what others may not
            connection.execute(f"CREATE ROLE study LOGIN PASSWORD '{SECRET}'")

    def run(self, program, *words):
        command = [binaries() / program, "-D", self.folder / "data", *words]
        return subprocess.run(command, cwd="/", check=True, capture_output=True, **self.user)

    def start(self):
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=40"
        for _ in range(20):  # what was killed may have shared memory for a moment
            with suppress(subprocess.CalledProcessError):
                return self.run("pg_ctl", "-w", "-l", self.folder / "log", "-o", settings, "start")
            time.sleep(0.2)
        pytest.fail((self.folder / "log").read_text())

    def kill(self):
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        others = children(pid)
        os.kill(pid, signal.SIGKILL)
        for other in others:
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
        while any(Path(f"/proc/{each}/stat").exists() for each in others):
            time.sleep(0.02)

    def database(self, name):
        """A fresh database's address, without and with the password."""
        with admin(self) as connection:
            connection.execute(f'CREATE DATABASE "{name}" OWNER study')
        return f"postgresql://study@127.0.0.1:{self.port}/{name}"


@contextmanager
def admin(postgres, name="postgres"):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(f"postgresql://boss:{SECRET}@127.0.0.1:{postgres.port}/{name}", autocommit=True) as made:
        yield made


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


class Server:
    """`mlflow server` on a database, and its files."""

    def __init__(self, database, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        self.address = f"http://127.0.0.1:{self.port}"
        uri = database.replace("postgresql://study@", f"postgresql+psycopg://study:{SECRET}@")
        self.environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def start(self):
        words = ["server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["--artifacts-destination", str(self.folder / "files")]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self):
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        pytest.fail((self.folder / "server.log").read_text())

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def postgres():
    if binaries() is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # which another user may enter, unlike pytest's
    made = Postgres(folder)
    yield made
    made.kill()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    made = Server(postgres.database("served"), tmp_path_factory.mktemp("server"))
    made.start()
    made.wait()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setattr(address, "_KNOWN", {})


@pytest.fixture(scope="module")
def direct(postgres):
    """The address of a database that MLflow has made its tables in."""
    uri = postgres.database("direct")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", SECRET)
        database.make(address.place(uri, Path("/tmp")))
    return uri


@pytest.fixture(params=["postgres", "server"])
def shared(request, tmp_path):
    """The address of either store, and the folder that a driver has for it."""
    uri = (
        request.getfixturevalue("direct") if request.param == "postgres" else request.getfixturevalue("server").address
    )
    return address.place(uri, Path(tempfile.mkdtemp(prefix="files-", dir=tmp_path)))


@pytest.fixture
def study(request):
    """A study of the test's own; tables have little room for the places of its files."""
    return replace(STUDY, name=f"made up {hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}")


def trials_of(study):
    return [replace(trial, study=study.name) for trial in made_up_trials()]


def written(root, study, statuses=("finished", "diverged", "crashed", "timeout")):
    trials = trials_of(study)
    execution = writer.Execution(root, study, trials, "study: made up\n", None, {"machine": "m"})
    for trial, status in zip(trials, statuses, strict=True):
        execution.write(trial, *records(trial, status))
    execution.close("FINISHED", "| a table |", numbers={"trials": 4})
    return trials


def metric_rows(root, study):
    """How many values each run of a study's trials has of each metric, which none may have twice."""
    place = address.place(root)
    uri = address.mlflows(place) if place.is_server else place.uri.replace("postgresql:", "postgresql+psycopg:")
    mlflow = MlflowClient(uri)
    counts = {}
    for run in load.ended(study.name, root):
        history = {
            n: mlflow.get_metric_history(run.run_id, n) for n in ("val_loss", "test_accuracy", "weights/logits/l2")
        }
        counts[run.tags["trial.key"]] = {name: len(found) for name, found in history.items()}
    return counts


def assert_whole(root, study, trials):
    """Every trial once, with each metric's values once."""
    ended = [run.tags["trial.key"] for run in load.ended(study.name, root)]
    assert sorted(ended) == sorted(trial.key for trial in trials)
    rows = metric_rows(root, study)
    assert len({json.dumps(counts) for counts in rows.values()}) == 1
    assert rows[trials[0].key]["test_accuracy"] == 1 and rows[trials[0].key]["val_loss"] == contract.CHARTED_EPOCHS


def test_frames_are_those_of_a_folder_to_the_bit(shared, study, fresh, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(fresh, folder)
    for root in (folder, shared):
        written(root, study)
    for frame in (load.trials, load.epochs, load.layers, load.settings):
        here, there = frame(study.name, folder), frame(study.name, shared)
        assert list(here) == list(there) and len(here) == len(there) > 0
        for column in set(here) - {"folder"}:
            assert here[column].equals(there[column]), column
    mine, theirs = load.execution(study.name, folder), load.execution(study.name, shared)
    assert (mine.study, mine.arms, mine.hash, mine.status) == (theirs.study, theirs.arms, theirs.hash, theirs.status)
    assert load.finished_keys(study.name, folder) == load.finished_keys(study.name, shared)
    assert load.text(theirs, "comparison.md", shared) == "| a table |"
    with reading.kept():
        assert load.trials(study.name, shared).equals(load.trials(study.name, shared))
        assert load.execution(study.name, shared) == theirs


def test_what_is_longer_than_mlflow_keeps_comes_back_whole(shared, study):
    study = replace(study, factors={"model.depth": (1, 2), "x" * 20: tuple(i / 7 for i in range(900))})
    writer.Execution(shared, study, [], "").close("FINISHED")
    assert load.execution(study.name, shared).study == study


def test_a_store_has_many_writers_at_once(postgres, server, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from test_shared_store import *\n"
        "root, study = address.place(sys.argv[1], Path(sys.argv[4])), replace(STUDY, name=sys.argv[2])\n"
        "with database.claimed(root, study.name, ''):\n"
        "    database.make(root)\n"
        "    written(root, study)\n"
    )
    fresh = postgres.database("many")  # they make its tables too
    roots = (fresh, server.address)
    words = [[sys.executable, "-c", code, root, "one", str(ROOT / "tests"), str(tmp_path)] for root in roots]
    others = [subprocess.Popen(each, cwd=ROOT) for each in words]
    for root in roots:
        place, mine = address.place(root, tmp_path), replace(STUDY, name="two")
        with database.claimed(place, "two", ""):
            database.make(place)
            for _ in range(3):
                written(place, mine)
    for root, other in zip(roots, others, strict=True):
        assert other.wait(120) == 0
        assert [len(load.ended(name, root)) for name in ("one", "two")] == [4, 12]


def in_a_while(seconds, do):
    """Do something in a thread, in a while."""
    pool = ThreadPoolExecutor(1)
    done = pool.submit(lambda: (time.sleep(seconds), do()))
    pool.shutdown(wait=False)
    return done


def test_a_study_waits_for_a_database_that_was_killed(postgres, direct, study, tmp_path):
    root, lines = address.place(direct, tmp_path), []
    trials = trials_of(study)
    with database.claimed(root, study.name, ""), waiting.patient(60, lines.append):
        execution = writer.Execution(root, study, trials, "")
        for trial in trials[:2]:
            execution.write(trial, *records(trial))
        for trial in trials[2:]:
            postgres.kill()
            back = in_a_while(0.4, postgres.start)
            execution.write(trial, *records(trial))
            back.result()
        postgres.kill()
        back = in_a_while(0.4, postgres.start)
        execution.close("FINISHED", numbers={"trials": 4})
        back.result()
        with pytest.raises(StudyError, match="another process runs"):  # the lock came back with the connection
            other_driver(root, study)
    assert_whole(root, study, trials)
    assert f"{direct} is away since" in lines[0] and "loses nothing" in lines[0] and "back after" in lines[1]
    assert len(lines) == 6 and SECRET not in str(lines)


def other_driver(root, study, sweep=""):
    """Another driver, in another process that holds a study; or what it says."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom studies import address\nfrom studies.store import database\n"
        "with database.claimed(address.place(sys.argv[1], Path('/tmp')), sys.argv[2], sys.argv[3]):\n"
        "    print('mine', flush=True)\n    sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root), study.name, sweep],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stdout.readline() == "mine\n":
        return process
    raise StudyError(process.communicate()[1].strip().splitlines()[-1])


def test_a_study_waits_for_a_server_that_was_killed_and_for_its_database(postgres, server, study, tmp_path):
    root, lines = address.place(server.address, tmp_path), []
    trials = trials_of(study)
    with database.claimed(root, study.name, ""), waiting.patient(120, lines.append):
        execution = writer.Execution(root, study, trials, "")
        execution.write(trials[0], *records(trials[0]))
        begun = in_a_while(0, lambda: execution.write(trials[1], *records(trials[1])))
        time.sleep(0.03)
        server.kill()
        time.sleep(0.5)
        server.start()
        begun.result()
        postgres.kill()
        back = in_a_while(1, postgres.start)
        execution.write(trials[2], *records(trials[2]))
        back.result()
        assert load.finished_keys(study.name, root) == {trial.key for trial in trials[:3]}
        execution.write(trials[3], *records(trials[3]))
        execution.close("FINISHED", "| a table |")
    assert_whole(root, study, trials)
    assert f"{server.address} is away since" in lines[0] and sum("is back after" in line for line in lines) >= 2


class Deaf:
    """A way to a server on which one answer in so many is lost: what was asked for is done."""

    def __init__(self, port, every):
        self.to, self.every, self.count = port, every, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with suppress(OSError):
            while True:
                threading.Thread(target=self.pass_on, args=self.listening.accept()[:1], daemon=True).start()

    def pass_on(self, near):
        with near, socket.create_connection(("127.0.0.1", self.to)) as far:
            threading.Thread(target=self.copy, args=(near, far), daemon=True).start()
            while answer := far.recv(65536):
                self.count += 1
                if self.count % self.every == 0:
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(answer)

    def copy(self, near, far):
        with suppress(OSError):
            while asked := near.recv(65536):
                far.sendall(asked)


def test_what_was_written_and_whose_answer_was_lost_is_there_once(server, study, tmp_path):
    deaf = Deaf(server.port, 5)
    with waiting.patient(60, [].append):
        trials = trials_of(study)
        execution = writer.Execution(address.place(deaf.address, tmp_path), study, trials, "")
        for trial in trials:
            execution.write(trial, *records(trial))
        execution.close("FINISHED", numbers={"trials": 4})
    deaf.listening.close()
    assert deaf.count > 60
    assert_whole(server.address, study, trials)
    assert len(load.executions(study.name, server.address)) == 1
    assert len(runs_of(server, study)) == 5


def runs_of(server, study):
    mlflow = MlflowClient(server.address)
    return mlflow.search_runs([mlflow.get_experiment_by_name(study.name).experiment_id])


def test_what_a_killed_driver_had_half_written_goes(server, study, tmp_path):
    root = address.place(server.address, tmp_path)
    trials = trials_of(study)
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[3])\n"
        "from test_shared_store import *\n"
        "root, study = address.place(sys.argv[1], Path('/tmp')), replace(STUDY, name=sys.argv[2])\n"
        "trials = trials_of(study)\n"
        "execution = writer.Execution(root, study, trials, '')\n"
        "execution.write(trials[0], *records(trials[0]))\n"
        "execution.store.client.set_terminated = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "execution.write(trials[1], *records(trials[1]))\n"
    )
    words = [sys.executable, "-c", code, server.address, study.name, str(ROOT / "tests")]
    assert subprocess.run(words, cwd=ROOT).returncode == -signal.SIGKILL
    store = client.ClientStore(root, study.name)
    store.begin("bare", {}, 0)  # and another was killed a moment earlier
    assert len(runs_of(server, study)) == 4
    theirs = store.client.create_run(store.experiment, run_name="a user's own").info.run_id
    assert load.finished_keys(study.name, root) == {trials[0].key}
    [killed] = load.executions(study.name, root)
    execution = writer.Execution(root, study, trials, "")
    for trial in trials[1:]:
        execution.write(trial, *records(trial))
    execution.close("FINISHED")
    assert_whole(root, study, trials)
    assert len(runs_of(server, study)) == 7
    assert store.client.get_run(theirs).info.lifecycle_stage == "active"
    assert [each.status for each in load.executions(study.name, root)] == ["KILLED", "FINISHED"]
    assert load.executions(study.name, root)[0].run_id == killed.run_id


def test_a_store_that_is_not_back_in_time_ends_the_study(study, tmp_path):
    root = address.place(f"http://127.0.0.1:{free_port()}", tmp_path)
    lines = []
    with (
        waiting.patient(0.5, lines.append),
        pytest.raises(StudyError, match=r"for longer than tracking\.patience=0\.5"),
    ):
        writer.Execution(root, study, trials_of(study), "")
    assert len(lines) == 1 and "onnection refused" in lines[0]
    with pytest.raises(StudyError, match="does not answer"):  # nobody waits who only reads
        load.trials(study.name, root)


def test_who_waits_for_a_store_can_be_interrupted(study, tmp_path, monkeypatch):
    monkeypatch.setattr(terminal._State, "received", None)  # and so it is again for the tests that follow
    root = address.place(f"postgresql://study@127.0.0.1:{free_port()}/gone", tmp_path)
    interrupt = in_a_while(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    began = time.monotonic()
    with terminal.interruptible():
        try:
            with waiting.patient(60, [].append), terminal.held():
                writer.Execution(root, study, trials_of(study), "")
        except terminal.Interrupted:
            terminal.settle()
        interrupt.result()
        assert terminal.received() == signal.SIGINT
    assert time.monotonic() - began < 5


@pytest.fixture(params=["folder", "postgres", "server"])
def held_in(request, tmp_path, monkeypatch):
    """Each kind of store, to be held by a driver."""
    monkeypatch.setattr(lease, "SECONDS", 2.0)
    if request.param == "folder":
        return tmp_path
    uri = (
        request.getfixturevalue("direct") if request.param == "postgres" else request.getfixturevalue("server").address
    )
    return address.place(uri, tmp_path)


def test_the_second_driver_of_a_study_says_who_has_it_and_a_hold_dies_with_its_holder(held_in, study):
    first = other_driver(held_in, study)
    expected = f"another process runs {study.name} in {re.escape(str(held_in))}"
    with pytest.raises(StudyError, match=expected) as refused, database.claimed(held_in, study.name, ""):
        pass
    said = str(refused.value)
    assert f"process {first.pid} on {socket.gethostname()}" in said and "since" in said and "database.claimed" in said
    with database.claimed(held_in, "another study", ""):
        pass
    first.kill()
    first.wait()
    began = time.monotonic()
    with database.claimed(held_in, study.name, ""):
        assert time.monotonic() - began < 1.9  # a lease would run longer, of a process that nobody knows to be dead
        with pytest.raises(StudyError, match=f"process {os.getpid()} on"):
            other_driver(held_in, study)
    other_driver(held_in, study).kill()


def test_the_jobs_of_one_sweep_hold_a_study_together(held_in, study):
    with database.claimed(held_in, study.name, "a"):
        other = other_driver(held_in, study, "a")
        for sweep in ("", "b"):
            with pytest.raises(StudyError, match="another process runs"):
                other_driver(held_in, study, sweep)
        other.kill()
        other.wait()


def test_a_lease_of_another_machine_runs_out_unless_it_is_renewed(server, study, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 2.0)
    root, told = address.place(server.address, tmp_path), []
    store = client.ClientStore(root, study.name)

    def beat(seconds_ago):
        there = replace(holder.me(), host="elsewhere", machine="another", pid=7)
        text = json.dumps(json.loads(there.text) | {"beat": time.time() - seconds_ago})
        store.client.set_experiment_tag(store.experiment, lease.TAG, text)

    beat(0.5)
    refused = pytest.raises(StudyError, match=r"process 7 on elsewhere.*for [12] s if it has died")
    with refused, database.claimed(root, study.name, ""):
        pass
    beat(3600)  # its clock is behind, and it lives
    alive = in_a_while(0.4, lambda: beat(3599))
    with pytest.raises(StudyError, match="process 7 on elsewhere"), database.claimed(root, study.name, "", told.append):
        pass
    alive.result()
    with database.claimed(root, study.name, "", told.append):
        assert "seems to have died (process 7 on elsewhere" in told[-1]
        beat(0)  # it was only asleep, and takes it back
        time.sleep(1)
        with pytest.raises(StudyError, match=r"process 7 on elsewhere.*has taken"):
            writer.Execution(root, study, trials_of(study), "")


def test_a_driver_that_was_stopped_for_longer_than_its_lease_writes_nothing_more(server, study, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 2.0)
    monkeypatch.setattr(lease.Lease, "_beat", lambda self: None)  # nor does a stopped process
    root = address.place(server.address, tmp_path)
    with database.claimed(root, study.name, ""):
        store = client.ClientStore(root, study.name)
        store.begin("before", {}, 0)
        time.sleep(1)
        there = replace(holder.me(), host="elsewhere", machine="another", pid=7)
        store.client.set_experiment_tag(store.experiment, lease.TAG, there.text)
        with pytest.raises(StudyError, match=r"process 7 on elsewhere.*has taken"):
            store.begin("after", {}, 0)
        assert len(runs_of(server, study)) == 1


def test_jobs_that_begin_together_make_one_experiment(server, study, tmp_path):
    root = address.place(server.address, tmp_path)
    with ThreadPoolExecutor(6) as pool:
        assert (
            len({store.experiment for store in pool.map(lambda _: client.ClientStore(root, study.name), range(6))}) == 1
        )


def test_who_has_waited_enough_waits_for_no_server_that_hangs(study, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "BRIEFLY", "1")
    with socket.create_server(("127.0.0.1", 0)) as hung, waiting.patient(60, [].append):
        root = address.place(f"http://127.0.0.1:{hung.getsockname()[1]}", tmp_path)
        began = time.monotonic()
        with waiting.impatient(), pytest.raises(MlflowException, match="timed out"):
            client.ClientStore(root, study.name)
        assert time.monotonic() - began < 10


STUDY_WORDS = ("data=digits", "model.width=8", "training.epochs=1", "study.seeds=2", "study.name=whole")


def text_of(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["postgres", "server"])
def test_a_study_leaves_no_secret_anywhere(kind, request, postgres, here, tmp_path, monkeypatch):
    monkeypatch.delenv("PGPASSWORD")
    if kind == "postgres":
        plain = request.getfixturevalue("direct")
        uri, name = plain.replace("study@", f"study:{SECRET}@"), "direct"
    else:
        plain = request.getfixturevalue("server").address
        uri, name = plain.replace("http://", f"http://me:{SECRET}@"), "served"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "")
    words = (*STUDY_WORDS, f"tracking.uri='{uri}'", f"tracking.root={tmp_path}/own")
    code, said, errors = here(*words)
    assert code == 0, errors
    assert f"results   {plain}" in said and "report    " in said and "View run" not in said
    again, more, _ = here(*words)
    assert again == 0 and "2 finished before, 0 to run" in more
    wrong = uri.replace(SECRET, f"{SECRET}wrong").replace(f":{postgres.port}/", f":{free_port()}/")
    refused, _, error = here(*STUDY_WORDS, f"tracking.uri='{wrong}'", f"tracking.root={tmp_path}/own")
    assert (refused, error.count("\n")) == (2 if kind == "postgres" else 0, int(kind == "postgres"))
    dump = subprocess.run(
        [binaries() / "pg_dump", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "study", name],
        env=os.environ | {"PGPASSWORD": SECRET},
        capture_output=True,
        check=True,
    ).stdout
    kept = text_of(tmp_path) + (
        text_of(request.getfixturevalue("server").folder / "files") if kind == "server" else b""
    )
    assert b"whole" in dump and b"study:\n" in kept and b"<!doctype html>" in kept.lower()
    for text in (said, errors, more, error, dump.decode(), kept.decode(errors="replace")):
        assert SECRET not in text
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert load.execution("whole", plain).command.count(plain) == 1
    assert len(load.trials("whole", uri)) == 2


def test_a_database_that_is_not_there_or_refuses_is_one_paragraph(postgres, cli, monkeypatch, tmp_path):
    with admin(postgres) as connection:
        connection.execute("CREATE DATABASE theirs")
        connection.execute(f"CREATE ROLE narrow LOGIN CONNECTION LIMIT 0 PASSWORD '{SECRET}'")
    with admin(postgres, "theirs") as connection:
        connection.execute("CREATE TABLE customers (id int)")
    base = f"127.0.0.1:{postgres.port}"
    for uri, expected in (
        (f"postgresql://study@{base}/nosuch", "is not there"),
        (f"postgresql://study:wrongword@{base}/postgres", "~/.pgpass"),
        (f"postgresql://study@{base}/theirs", "none of MLflow's"),
        (f"postgresql://narrow:{SECRET}@{base}/postgres", "has no room .too many connections"),
        (f"postgresql://study@127.0.0.1:{free_port()}/a", "does not answer"),
        (f"postgresql://study:a@b/c@{base}", "no address of a database"),
        (f"postgresql://study:100%sure@{base}/a", "no address of a database"),
        (f"postgresql://study:wrongword@{base}/a?nosuch=1", "no address of a database.*nosuch"),
        (f"http://127.0.0.1:{postgres.port}", "does not answer|no MLflow"),
        ("s3://bucket/a", "is no folder"),
        (f"localhost:{postgres.port}", f"is no folder, but a host and a port.*http://localhost:{postgres.port}"),
    ):
        code, _, error = cli(f"tracking.uri='{uri}'", f"tracking.root={tmp_path}")
        assert code == 2 and error.count("\n") == 1 and re.search(expected, error), error
        assert not re.search("wrongword|a@b|100%", error)
    monkeypatch.delenv("PGPASSWORD")
    code, _, error = cli(f"tracking.uri=postgresql://boss@{base}/theirs", f"tracking.root={tmp_path}")
    assert code == 2 and f"@{base}/theirs refuses (no password supplied): put a line" in error


def test_a_database_notices_who_is_gone(direct):
    """And lets go of what a machine held that was switched off."""
    with closing(postgres_store.connect(address.place(direct))) as made:
        names = "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"
        assert [made.execute(f"SHOW {name}").fetchone()[0] for name in names] == ["10", "5", "3", "30000"]


def test_mlflows_own_variable_moves_nothing(here, monkeypatch, tmp_path, server):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    code, said, _ = here(*STUDY_WORDS[:3], f"tracking.root={tmp_path}/folder", "study.name=unmoved")
    assert code == 0 and "MLFLOW_TRACKING_URI is set, and is not used" in said
    assert load.studies(f"{tmp_path}/folder") == ["unmoved"] and "unmoved" not in load.studies(server.address)


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("a=postgresql://me:s3@cr/et@there:5432/db b", "a=postgresql://me@there:5432/db b"),
        ('["postgresql://me:secret@there/db", "x@y"]', '["postgresql://me@there/db", "x@y"]'),
        ("https://me:secret@there/a, http://there:5000/@b", "https://there/a, http://there:5000/@b"),
        ("host=there password=secret user=me", "host=there password=*** user=me"),
        ("postgresql://there/db?sslmode=require&password=secret", "postgresql://there/db?sslmode=require&password=***"),
    ],
)
def test_addresses_have_no_passwords_in_what_is_said(text, without):
    assert masked(text) == without
    assert str(StudyError(text)) == without


def test_an_address_is_text_without_its_password_wherever_it_goes():
    known = address.place(f"postgresql://me:{SECRET}@there/db", Path("/files"))
    assert isinstance(known, Address) and known.uri.count(SECRET) == 1
    for text in (known, str(known), f"{known}", repr(known), json.dumps([known]), "/".join([known])):
        assert SECRET not in text
    assert str(known).uri == known.uri == address.place("postgresql://me@there/db").uri
    assert known == "postgresql://me@there/db"
