"""The store where it is, what it may touch there, and what ends in a paragraph: real databases, real disks."""

import errno
import math
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console
from test_writer import STUDY, made_up_trials, records, written

from analysis import load
from analysis.read import runs
from benchmarks import tables
from studies import contract
from studies.command import sweep
from studies.command.driver import Driver
from studies.contract import STATISTICS
from studies.record import EpochRecord, LayerRecord, Result, Started, StudyError
from studies.store import database, writer

ROOT = Path(__file__).parent.parent


@pytest.fixture
def root(fresh, tmp_path):
    return copied(fresh, tmp_path / "store")


def copied(fresh, root):
    root.mkdir(parents=True)
    shutil.copy(fresh / "mlflow.db", root)
    return root


@pytest.fixture(params=["sql", "client"])
def either(request, monkeypatch):
    """Either way to write."""
    if request.param == "client":
        monkeypatch.setattr("studies.contract.SCHEMAS", ())
    return request.param


def sql(root, statement, *values):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def places(root):
    """Of every experiment and run."""
    return dict(
        sql(root, "SELECT name, artifact_location FROM experiments UNION ALL SELECT run_uuid, artifact_uri FROM runs")
    )


def run_again(root, study=STUDY):
    writer.Execution(root, study, made_up_trials(), "").close("FINISHED")


def assert_mlflow_finds_the_files(root):
    client = MlflowClient(contract.uri(root))
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        assert Path(client.download_artifacts(run.info.run_id, "")).is_relative_to(root)
        assert client.list_artifacts(run.info.run_id)


def as_an_earlier_version_left_it(root, times):
    """Without tags, in the folder of earlier stores, and rewritten by the earlier rule at each run."""
    sql(root, "DELETE FROM experiment_tags WHERE key LIKE 'studies.%'")
    (root / "artifacts" / "made up").rename(root / "artifacts" / "made_up")
    here = (root / "artifacts").as_uri()
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        sql(root, f"UPDATE {table} SET {column} = REPLACE({column}, 'made%20up', 'made_up')")
        for _ in range(times):
            for row, place in sql(root, f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%/artifacts/%'"):
                place = f"{here}/{place.split('/artifacts/', 1)[1]}"
                sql(root, f"UPDATE {table} SET {column} = ? WHERE rowid = ?", place, row)


def test_places_below_folders_called_artifacts_stay_as_they_are(fresh, tmp_path, either):
    root = copied(fresh, tmp_path / "artifacts" / "of" / "artifacts" / "store")
    written(root)
    before = places(root)
    assert before[STUDY.name] == (root / "artifacts" / STUDY.name).as_uri()
    run_again(root)
    assert before.items() <= places(root).items()
    assert_mlflow_finds_the_files(root)


@pytest.mark.parametrize("moved", [False, True], ids=["there", "moved"])
def test_places_that_an_earlier_version_damaged_are_repaired(fresh, tmp_path, moved):
    root = copied(fresh, tmp_path / "artifacts" / "store")
    written(root)
    as_an_earlier_version_left_it(root, 3)
    assert places(root)[STUDY.name].count("/store/") == 4
    if moved:
        root = root.rename(tmp_path / "elsewhere")
    run_again(root)
    assert places(root)[STUDY.name] == (root / "artifacts" / "made_up").as_uri()
    assert_mlflow_finds_the_files(root)


def test_other_projects_experiments_are_left_alone_wherever_the_store_goes(root, tmp_path):
    client = MlflowClient(contract.uri(root))
    theirs = client.create_experiment("theirs", f"file://{tmp_path}/artifacts/3")
    client.set_tag(client.create_run(theirs).info.run_id, "study", "theirs")
    written(root)
    ours = client.get_experiment_by_name(STUDY.name).experiment_id
    [guest, _] = [client.create_run(ours).info.run_id for _ in range(2)]
    sql(root, "UPDATE runs SET artifact_uri = 's3://bucket/artifacts/made up/1/artifacts' WHERE run_uuid = ?", guest)
    before = places(root)
    kept = [name for name in before if name in ("Default", "theirs", guest) or "/artifacts/3/" in before[name]]
    assert len(kept) == 4
    moved = root.rename(tmp_path / "moved")
    run_again(moved)
    after = places(moved)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert all(str(moved) in after[name] for name in before.keys() - kept)
    assert load.studies(moved) == [STUDY.name, "theirs"]


def test_an_experiment_of_something_else_with_the_studys_name_is_refused_and_left(root, either):
    client = MlflowClient(contract.uri(root))
    client.set_experiment_tag(client.create_experiment(STUDY.name), "mlflow.note.content", "theirs")
    for _ in range(2):
        with pytest.raises(StudyError, match=r"the experiment made up .* study\.name=NAME"):
            run_again(root)
    assert client.get_experiment_by_name(STUDY.name).tags == {"mlflow.note.content": "theirs"}
    written_elsewhere = replace(STUDY, name="another")
    run_again(root, written_elsewhere)
    assert load.studies(root) == ["another", "made up"]


@pytest.mark.parametrize("tagged", [True, False], ids=["now", "earlier version"])
def test_a_renamed_experiment_still_holds_its_study(root, either, monkeypatch, tagged):
    trials = written(root)
    client = MlflowClient(contract.uri(root))
    experiment = client.get_experiment_by_name(STUDY.name).experiment_id
    client.rename_experiment(experiment, "a better name")
    if not tagged:
        sql(root, "DELETE FROM experiment_tags WHERE key LIKE 'studies.%'")
    finished = {trial.key for trial, status in zip(trials, range(4), strict=True) if status != 2}
    if tagged or either == "sql":  # MLflow's client finds by name what has no tag
        assert load.finished_keys(STUDY.name, root) == finished and load.studies(root) == [STUDY.name]
    run_again(root)
    assert len(client.search_experiments()) == 2
    assert client.get_experiment(experiment).name == "a better name"
    monkeypatch.setattr("studies.contract.SCHEMAS", ())
    assert load.finished_keys(STUDY.name, root) == finished
    with pytest.raises(StudyError, match="the experiment a better name"):
        run_again(root, replace(STUDY, name="a better name"))


def test_a_deleted_experiment_is_there_again_without_what_was_deleted_with_it(root, either):
    trials = written(root)
    client = MlflowClient(contract.uri(root))
    client.delete_experiment(client.get_experiment_by_name(STUDY.name).experiment_id)
    assert load.finished_keys(STUDY.name, root) == set() and load.studies(root) == []
    execution = writer.Execution(root, STUDY, trials, "")
    execution.write(trials[0], *records(trials[0]))
    execution.close("FINISHED")
    assert load.finished_keys(STUDY.name, root) == {trials[0].key} and load.studies(root) == [STUDY.name]
    assert len(load.executions(STUDY.name, root)) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trial.status", None),
        ("trial.status", "splendid"),
        ("trial.seed", "one"),
        ("trial.arm", "{"),
        ("trial.arm", "[]"),
        ("trial.nuisance", "3"),
        ("study", None),
        ("trial.role", None),
        ("trial.key", None),
    ],
)
def test_a_trial_whose_tags_were_edited_is_one_that_is_not_there(root, key, value):
    trials = written(root, ["finished"] * 4)
    of_first = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'trial.key' AND value = ?) AND key = ?"
    if value is None:
        sql(root, f"DELETE FROM tags WHERE {of_first}", trials[0].key, key)
    else:
        sql(root, f"UPDATE tags SET value = ? WHERE {of_first}", value, trials[0].key, key)
    rest = [trial.key for trial in trials[1:]]
    assert load.finished_keys(STUDY.name, root) == set(rest)
    assert list(load.trials(STUDY.name, root)["key"]) == rest


@pytest.mark.parametrize("value", ["", "{", "3", '{"name": "made up", "factors": {}, "seeds": [0]}'])
def test_an_execution_whose_design_was_edited_is_passed_over(root, value):
    written(root)
    first = load.execution(STUDY.name, root)
    run_again(root)
    last = load.execution(STUDY.name, root)
    sql(root, "UPDATE tags SET value = ? WHERE key = 'study.design' AND run_uuid = ?", value, last.run_id)
    assert load.executions(STUDY.name, root) == [first]


@pytest.mark.parametrize("known", [contract.SCHEMAS, ()], ids=["sql", "client"])
def test_names_that_addresses_must_quote(fresh, tmp_path, monkeypatch, known):
    monkeypatch.setattr("studies.contract.SCHEMAS", known)
    studies = [replace(STUDY, name=name) for name in ("é è", "a b", "a_b")]
    root = copied(fresh, tmp_path / "50%25 #1 ?é")
    for name in (root.name, "moved%20 #?2"):
        root = root.rename(tmp_path / name)
        for study in studies:
            run_again(root, study)
        assert load.studies(root) == ["a b", "a_b", "é è"]
        assert not known or os.listdir(tmp_path) == [name]  # MLflow's client leaves an empty folder of the quoted name
    assert sorted(os.listdir(root / "artifacts")) == ["a b", "a_b", "é è"]
    assert_mlflow_finds_the_files(root)


def test_a_root_may_be_written_as_an_address_of_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for root, meant in (
        ("mlruns", "mlruns"),
        ("/a b/c%20d", "/a b/c%20d"),
        ("a:b", "a:b"),
        ("~/mlruns", "/home/me/mlruns"),
        ("a/~b", "a/~b"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
        ("sqlite:////a/b/mlflow.db", "/a/b"),
        ("sqlite:///b/mlflow.db", "b"),
        ("sqlite:///mlflow.db", "."),
    ):
        assert contract.folder(root) == Path(meant)
    for path in ("/100% a", "/what?/#1"):
        assert contract.folder(contract.uri(path)) == Path(path)


@pytest.mark.parametrize(
    "root",
    [
        "http://127.0.0.1:5000",
        "https://there",
        "http:/there",
        "s3://bucket/mlruns",
        "file://there/mlruns",
        "file:///mlruns?a=b",
        "sqlite:///mlruns/other.db",
        "sqlite://mlflow.db",
        "postgresql+psycopg://me@there/mlflow",
        "http://[",
    ],
)
def test_an_address_where_nothing_can_be_written_is_refused_before_anything_is_made(cli, tmp_path, root):
    code, _, error = cli(f"tracking.root='{root}'")
    assert code == 2 and error.count("\n") == 1 and error.startswith(f"error: tracking.root={root} is no folder")
    assert "file:///FOLDER" in error and list(tmp_path.iterdir()) == []


@contextmanager
def as_another(wanted):
    """Without the rights of root, which may read and write whatever it likes."""
    if os.geteuid() or not wanted:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("what", "writes", "reads"),
    [
        ("a folder", "Is a directory", "cannot be read"),
        ("a text", "not an SQLite database", "file is not a database"),
        ("damaged", "malformed|not an SQLite", "malformed|not a database"),
        ("another program's", "none of MLflow's tables", "none yet"),
        ("unreadable", "Permission denied", "unable to open database file"),
        ("read-only", "Permission denied", None),
        ("locked", "another program has kept mlflow.db locked", "locked"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_paragraph(root, monkeypatch, what, writes, reads):
    written(root)
    file, held = root / "mlflow.db", None
    for path in (root, *root.parents[:-2]):  # up to the folder of temporary files
        path.chmod(0o777)
    match what:
        case "a folder":
            file.unlink()
            file.mkdir()
        case "a text":
            file.write_text("not a database at all, but some text " * 100)
        case "damaged":
            file.write_bytes(file.read_bytes()[:100] + os.urandom(50_000))
        case "another program's":
            file.unlink()
            sql(root, "CREATE TABLE theirs (a)")
        case "unreadable":
            file.chmod(0)
        case "read-only":
            file.chmod(0o444)
        case "locked":
            monkeypatch.setattr("studies.store.database.PATIENCE", 0.1)
            monkeypatch.setattr(runs, "PATIENCE", 0.1)
            held = sqlite3.connect(file)
            held.execute("BEGIN EXCLUSIVE")
    with as_another(what in ("unreadable", "read-only")):
        with pytest.raises(StudyError, match=writes) as error:
            database.check_writable(root)
        assert str(root) in str(error.value) and "\n" not in str(error.value)
        if reads:
            with pytest.raises(StudyError, match=reads) as error:
                load.trials(STUDY.name, root)
            assert str(root) in str(error.value)
        else:
            assert len(load.trials(STUDY.name, root)) == 4
    if held:
        held.close()


def test_a_database_whose_writer_was_killed_in_the_middle_is_read(root):
    written(root)
    code = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('PRAGMA cache_size = 1')\n"
        "connection.execute(\"UPDATE tags SET value = 'half'\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(root / "mlflow.db")])
    assert (root / "mlflow.db-journal").stat().st_size
    assert len(load.trials(STUDY.name, root)) == 4


@contextmanager
def limited(root, how):
    """A disk at `root` with 300 kB of room left: a real one, or what this process may write to a file."""
    room = (root / "mlflow.db").stat().st_size + 300_000
    if how == "disk":
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(root)]).returncode:
            pytest.skip("no disk can be mounted here")
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_disk_that_fills_up_is_one_paragraph_and_what_was_finished_is_kept(fresh, root, how):
    with limited(root, how):
        shutil.copy(fresh / "mlflow.db", root)
        trial, done = made_up_trials()[0], set()
        execution = writer.Execution(root, STUDY, [trial], "")
        with pytest.raises(StudyError, match=r"there is no room left .* the same command goes on") as error:
            for number in range(200):
                one = replace(trial, key=f"{number:016}")
                execution.write(one, *records(one))
                done.add(one.key)
        assert str(error.value).startswith(str(root)) and done
        assert load.finished_keys(STUDY.name, root) == done
        if how == "disk":
            subprocess.run(["mount", "-o", "remount,size=100M", str(root)], check=True)
    if how == "limit":
        execution.write(one, *records(one))
        assert load.finished_keys(STUDY.name, root) == done | {one.key}


def test_no_room_for_a_fresh_database_is_one_paragraph(tmp_path):
    (tmp_path / ".mlflow.db.new").mkdir()
    with pytest.raises(StudyError, match="cannot be written"):
        database.make(tmp_path)
    with pytest.raises(StudyError, match="no room left"), database.guarded(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_a_database_cut_short_by_a_kill_is_made_anew(tmp_path):
    (tmp_path / ".mlflow.db.new").write_bytes(b"SQLite format 3")
    database.make(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".mlflow.lock", "mlflow.db"]
    before = (tmp_path / "mlflow.db").read_bytes()
    database.make(tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == before


def in_any_order(sql):
    """Its lines: MLflow makes some tables' constraints in an order that changes."""
    return sorted(line.strip(" \t,") for line in sql.splitlines())


def test_a_fresh_database_is_the_one_that_mlflow_makes(tmp_path):
    folder = tmp_path / "100% mine"
    folder.mkdir()
    theirs = tables.made_by_mlflow(folder)
    assert in_any_order(database.TABLES.read_text()) == in_any_order(theirs), "python -m benchmarks.tables"
    database.make(tmp_path)
    rows = []
    for root in (folder, tmp_path):
        with closing(sqlite3.connect(root / "mlflow.db")) as connection:
            assert in_any_order(tables.dumped(connection)) == in_any_order(theirs)
            [row] = connection.execute("SELECT * FROM experiments").fetchall()
        rows.append([str(value).replace(root.as_uri(), "ROOT") for value in row])
    assert [a for a, b in zip(*rows, strict=True) if a != b] == rows[0][4:6]  # when it was made


class Trained:
    """An executor of trials that have been trained already, which then ends as it is told."""

    def __init__(self, ending):
        self.ending, self.closed = ending, False

    def start(self, *_):
        pass

    def run(self, function, tasks):
        if function.endswith(":check"):
            return
        for task in tasks:
            yield task, Started(task.key, 1)
            yield task, EpochRecord(task.key, 0, 0, 0.1, 1.0, 0.5, 99.0, 0.5, 1.0)
            rows = ("kernel", math.nan), ("bias", 0.5)
            yield task, [LayerRecord(task.key, 0, "dense", name, (value,) * len(STATISTICS)) for name, value in rows]
            yield task, Result(task.key, "finished", val_accuracy=0.5, classes=10)
        raise self.ending

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("ending", "status"),
    [(RuntimeError("a bug"), "FAILED"), (StudyError("no room"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_an_execution_has_failed_unless_a_user_stopped_it(root, trial_of, ending, status):
    executor, console, trial = Trained(ending), Console(file=StringIO()), trial_of()
    driver = Driver(STUDY, executor, root, "", console)
    with sweep.begun([], False), suppress(RuntimeError, StudyError):
        assert driver.drive([trial], lambda _: []) == (130, {})
    assert load.execution(STUDY.name, root).status == status and executor.closed
    [warning] = load.trials(STUDY.name, root, [trial.key])["warning"]
    assert warning == "not finite in layer 1 from epoch 0; worse than guessing from epoch 0"
    assert load.layers(STUDY.name, root, [trial.key])["warning"].tolist() == ["not finite", ""]
