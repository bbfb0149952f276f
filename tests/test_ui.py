"""What the command for MLflow's pages says and refuses; the pages themselves are in test_browser.py."""

import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import load, report, ui
from studies.record import Study, StudyError
from studies.store import database, writer

ROOT = Path(__file__).parent.parent
STUDY = Study("made up", "Does it?", {}, (0,), {}, "val_accuracy")


@pytest.fixture
def root(tmp_path):
    """A store with two studies, the first of them executed twice."""
    database.make(tmp_path)
    for name in ("one", "one", "two"):
        writer.Execution(tmp_path, replace(STUDY, name=name), [], "").close("FINISHED")
    return tmp_path


def command(*words):
    return subprocess.run([sys.executable, "-m", "analysis.ui", *words], cwd=ROOT, capture_output=True, text=True)


def test_the_guide_leads_to_the_latest_execution_of_each_study(root):
    guide = ui.guide("http://there", root, ui.looks(root))
    for name in ("one", "two"):
        latest, *others = reversed(load.executions(name, root))
        page = f"http://there/#/experiments/{latest.experiment_id}/runs/{latest.run_id}"
        assert f"{page}?{ui.TRAINING}" in guide and f"{page}/artifactPath/{report.FILE}" in guide
        assert not any(other.run_id in guide for other in others)
    assert "Ctrl-C" in guide and all(query in guide for query in ui.FILTERS)


def test_the_list_of_runs_has_the_studys_columns_where_there_are_any(root):
    assert ui.COLUMNS not in ui.guide("http://there", root, ui.looks(root))
    tags = {"mlflow.source.name": "python -m studies.run"}
    writer.Execution(root, replace(STUDY, name="two"), [], "", provenance=tags).close("FINISHED")
    assert ui.guide("http://there", root, ui.looks(root)).count(ui.COLUMNS) == 1


def test_a_study_that_cannot_be_read_is_not_in_the_guide(root):
    assert [execution.study.name for execution in ui.looks(root)] == ["one", "two"]
    shutil.rmtree(root / "artifacts" / "one")
    assert [execution.study.name for execution in ui.looks(root)] == ["two"]


def test_a_free_port_is_the_one_asked_for_the_usual_one_or_another():
    with socket.create_server((ui.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StudyError, match=f"--port {port}: cannot be had .*in use"):
            ui.free_port(port)
        usual, ui.PORT = ui.PORT, port
        try:
            other, claim = ui.free_port()
            assert other not in (0, port)
            claim.close()
        finally:
            ui.PORT = usual
    with pytest.raises(StudyError, match="--port 70000: cannot be had"):
        ui.free_port(70000)


def test_two_who_ask_for_a_port_at_once_get_two(monkeypatch):
    with socket.create_server((ui.HOST, 0)) as free:
        monkeypatch.setattr(ui, "PORT", free.getsockname()[1])
    first, claim = ui.free_port()  # its server has not started yet
    other, another = ui.free_port()
    with claim, another:
        assert first == ui.PORT and other != first
        with pytest.raises(StudyError, match=f"--port {first}: cannot be had .*in use"):
            ui.free_port(first)
    again, claim = ui.free_port()
    claim.close()
    assert again == first


def test_a_store_that_is_not_there_is_one_paragraph_and_nothing_is_made(tmp_path):
    done = command("--root", str(tmp_path / "nowhere"))
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "there is no store in" in done.stderr and "-m studies.run +study=init_comparison" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "is a server already" in command("--root", "http://127.0.0.1:1").stderr


def test_a_server_that_dies_leaves_its_last_words(root):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of the future'")
    done = command("--root", str(root))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "MLflow's server ended by itself" in done.stderr and "of the future" in done.stderr
