import subprocess

import pytest

from studies import provenance


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "requirements.lock").write_text("a==1\n")
    return tmp_path


def test_the_commit_and_whether_files_differ_from_it(checkout):
    assert "mlflow.source.git.commit" not in provenance.tags([], checkout)  # there is none yet
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "one")
    tags = provenance.tags([], checkout)
    assert tags["mlflow.source.git.commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert tags["git.dirty"] == "false"
    (checkout / "new.py").write_text("")
    assert provenance.tags([], checkout)["git.dirty"] == "true"


def test_what_is_not_known_has_no_tag(checkout, monkeypatch, tmp_path):
    inside = checkout / "inside"  # a repository around it has no say
    inside.mkdir()
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "one")
    tags = provenance.tags(["a=1"], inside)
    assert not {"mlflow.source.git.commit", "git.dirty", "lock.hash"} & tags.keys()
    assert {"mlflow.source.name", "machine"} <= tags.keys()
    monkeypatch.setenv("PATH", "")
    assert "mlflow.source.git.commit" not in provenance.tags([], checkout)


def test_the_command_can_be_typed_again_and_the_lock_is_known_by_its_content(checkout):
    tags = provenance.tags(["+study=a", "+study.factors={initializer: [zeros]}"], checkout)
    assert tags["mlflow.source.name"] == "python -m studies.run +study=a '+study.factors={initializer: [zeros]}'"
    assert tags["mlflow.source.type"] == "LOCAL"
    assert len(tags["lock.hash"]) == 16
    (checkout / "requirements.lock").write_text("a==2\n")
    assert provenance.tags([], checkout)["lock.hash"] != tags["lock.hash"]


def test_a_user_without_a_name_is_no_error(checkout, monkeypatch):
    def unknown():
        raise KeyError("uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert "mlflow.user" not in provenance.tags([], checkout)
