import importlib
import subprocess
import sys

import pytest

from studies.command import compose, provenance
from studies.design.study import STUDYS
from studies.record import content_key


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


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A function from files to the hash of a module, in a folder from which Python imports."""
    monkeypatch.syspath_prepend(tmp_path)

    def hashed(files, module="mine_of_provenance"):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        importlib.invalidate_caches()
        provenance._source.cache_clear()
        return provenance.source(module)

    return hashed


def test_a_package_is_known_by_all_its_source_and_not_executed(beside):
    trap = "raise RuntimeError('executed')\n"
    files = {"mine_of_provenance/__init__.py": trap, "mine_of_provenance/deep/nets.py": "x = 1\n"}
    first = beside(files)
    assert len(first) == 16 and beside({"mine_of_provenance/notes.txt": "new"}) == first
    assert beside({"mine_of_provenance/deep/nets.py": "x = 2\n"}) not in (first, "")
    assert beside(files) == first
    assert beside({"mine_of_provenance/deep/more.py": ""}) != first
    assert "mine_of_provenance" not in sys.modules


def test_a_module_is_known_by_what_it_imports_from_beside_it_too(beside):
    files = {
        "mine_of_provenance.py": "import os, numpy\ndef net():\n    from helper_of_provenance import x\n",
        "helper_of_provenance.py": "import mine_of_provenance\nx = 1\n",
        "other_of_provenance.py": "",
    }
    first = beside(files)
    assert beside({"other_of_provenance.py": "x = 1\n"}) == first != ""
    assert beside({"helper_of_provenance.py": "x = 2\n"}) != first
    assert beside({"mine_of_provenance.py": "def broken(:\n"}) not in (first, "")


def test_what_has_no_source_has_no_hash(beside):
    for module in ("nosuch_of_provenance", "sys", "os", "datetime", "json"):
        assert beside({}, module) == ""


def test_the_users_own_may_have_the_name_of_one_of_pythons(beside, monkeypatch):
    monkeypatch.delitem(sys.modules, "cProfile", raising=False)
    first = beside({"cProfile.py": "x = 1\n"}, "cProfile")
    assert first not in ("", beside({"cProfile.py": "x = 2\n"}, "cProfile"))


def test_an_executor_of_the_users_own_is_no_part_of_the_key(config, beside):
    base = config(["targets.allow=[mine_of_provenance.]"])
    base["executor"] = {"_target_": "mine_of_provenance.Cluster"}
    keys = []
    for text in ("x = 1\n", "x = 2\n"):
        beside({"mine_of_provenance.py": text})
        _, identity, _ = compose.settle({name: part for name, part in base.items() if name not in STUDYS})
        keys.append(content_key(identity))
    assert keys[0] == keys[1]


def test_edited_code_of_the_users_own_has_other_keys(config, beside):
    base = config()
    base["model"]["_target_"], base["targets"]["allow"] = "mine_of_provenance.net", ["mine_of_provenance."]

    def key():
        _, identity, _ = compose.settle({name: part for name, part in base.items() if name not in STUDYS})
        return content_key(identity)

    beside({"mine_of_provenance.py": "x = 1\n"})
    first = key()
    beside({"mine_of_provenance.py": "x = 2\n"})
    assert key() != first
    beside({"mine_of_provenance.py": "x = 1\n"})
    assert key() == first
    base["targets"]["allow"].append("unused.")
    assert key() == first


@pytest.mark.parametrize(("visible", "kind"), [(None, "gpu"), ("1", "gpu"), ("", "cpu"), ("-1", "cpu")])
def test_the_device_is_what_the_user_lets_be_seen(monkeypatch, visible, kind):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(provenance, "_has_gpu", lambda: True)
    assert provenance.device() == provenance.engine()["device"] == kind
    monkeypatch.setattr(provenance, "_has_gpu", lambda: False)
    assert provenance.device() == "cpu"


@pytest.mark.parametrize("here", [True, False])
def test_where_trials_run_elsewhere_the_device_of_the_key_is_what_they_ask_for(config, monkeypatch, here):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(provenance, "_has_gpu", lambda: here)

    def settled(*words):
        base = {name: part for name, part in config(list(words)).items() if name not in STUDYS}
        node, identity, _ = compose.settle(base)
        return node["engine"]["device"], content_key(identity)

    (one, cpu), (other, gpu) = settled("executor=ray"), settled("executor=ray", "executor.gpus=0.5")
    assert (one, other) == ("cpu", "gpu") and cpu != gpu
    assert settled("executor=pool") == (("gpu", gpu) if here else ("cpu", cpu))


def test_arithmetic_that_the_user_chose_is_of_the_key_and_a_cache_is_not(monkeypatch):
    for name in provenance.BITS:
        monkeypatch.delenv(name, raising=False)
    assert provenance.engine()["environment"] == {}
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/x")
    assert provenance.engine()["environment"] == {}
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/x --tf_xla_auto_jit=2")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert provenance.engine()["environment"] == {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2", "TF_ENABLE_ONEDNN_OPTS": "0"}
