"""What SECURITY.md promises, attacked: strangers' files, stores, archives and names are data, and stay in place."""

import ast
import dataclasses
import io
import lzma
import re
import shutil
import sqlite3
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import assert_one_paragraph
from test_writer import records

from analysis import compare, confusion, export, footprint, load, power, report, stored
from analysis.show import board, escaped
from studies.command import provenance, sweep, trust
from studies.factors import data, images, targets
from studies.record import Study, StudyError, Trial, plain, shown
from studies.store import writer

ROOT = Path(__file__).parent.parent
MARK = "mark_of_tests"
SECRET = "hush-hush-of-tests"
TOUCH = f"args: [touch, {MARK}]"

STRANGERS = {
    "a callback": f"hydra: {{callbacks: {{x: {{_target_: subprocess.Popen, {TOUCH}}}}}}}",
    "a log's factory": "hydra: {job_logging: {version: 1, root: {level: INFO, handlers: [x]}, handlers: {x: {(): "
    f"subprocess.Popen, {TOUCH}}}}}}}}}",
    "a log's file": "hydra: {job_logging: {version: 1, root: {level: INFO, handlers: [x]}, handlers: {x: {class: "
    f"logging.FileHandler, filename: {MARK}}}}}}}}}",
    "hydra's own log": "hydra: {hydra_logging: {root: {handlers: [x]}, handlers: {x: {class: logging.FileHandler, "
    f"filename: {MARK}}}}}}}}}",
    "the environment": f"hydra: {{job: {{env_set: {{TF_XLA_FLAGS: --xla_dump_to={MARK}}}}}}}",
    "a copy of the environment": "hydra: {job: {env_copy: [SECRET_OF_TESTS]}}",
    "a sweeper's parameter": "hydra: {mode: MULTIRUN, sweeper: {params: {model.width: {_target_: pathlib.Path.touch, "
    f"self: {{_target_: pathlib.Path, _args_: [{MARK}]}}}}}}}}}}",
    "a launcher": "defaults: [{override /hydra/launcher: joblib}]\nhydra: {mode: MULTIRUN}",
    "a folder": f"hydra: {{run: {{dir: {MARK}}}}}",
    "a folder of jobs": f"hydra: {{sweep: {{dir: {MARK}}}}}",
    "a folder of configs": f"hydra: {{output_subdir: {MARK}}}",
    "what it allows itself": f"targets: {{allow: [subprocess.]}}\nmodel: {{_target_: subprocess.Popen, {TOUCH}}}",
    "a level that allows": "study: {factors: {targets.allow: [[subprocess.], [os.]]}}",
    "an executor": f"executor: {{_target_: subprocess.Popen, {TOUCH}}}",
    "its executor by what it allows": "targets: {allow: [subprocess.]}\n"
    f"executor: {{_target_: subprocess.Popen, {TOUCH}}}\nstudy: {{factors: {{targets.allow: [[mine_of_tests.]]}}}}",
    "a cluster": "defaults: [{override /executor: ray}]\nexecutor: {address: 'ray://evil.example.com:10001'}",
    "a cluster without a scheme": "defaults: [{override /executor: ray}]\nexecutor: {address: 'evil.example.com:6379'}",
    "a server": "tracking: {root: 'http://evil.example.com:5000'}",
    "a nested target": "initializer: {value: {_target_: os.system, command: 'true'}}",
    "a description that Keras imports": "initializer: {value: {class_name: system, module: os, config: {}}}",
    "Keras's downloads": "initializer: {_target_: keras.utils.get_file, origin: 'file:///etc/passwd'}",
    "Keras's inside": "initializer: {_target_: keras.src.initializers.initializer.os.system}",
    "what a module of ours imports": "model: {_target_: studies.models.importlib.import_module, name: os}",
    "a secret": 'study: {question: "${oc.env:SECRET_OF_TESTS}"}',
    "a secret by a default": 'study: {question: "${oc.env:STUDIES_NOSUCH,${oc.env:SECRET_OF_TESTS}}"}',
    "a secret as a level": 'study: {factors: {model.width: ["${oc.env:SECRET_OF_TESTS}", 8]}}',
    "a name that leads out": "study: {name: ../../x}",
    "a name from the root": "study: {name: /tmp/x}",
    "a name with a zero byte": 'study: {name: "x\\0y"}',
    "a name that is too long": f"study: {{name: {'x' * 300}}}",
    "a python object": "study: !!python/object/apply:os.system [touch mark_of_tests]",
}
"""What a study's file from somewhere else may have."""


@pytest.mark.parametrize("what", STRANGERS)
def test_a_strangers_study_is_refused_before_it_does_anything(cli, tmp_path, monkeypatch, what):
    monkeypatch.setenv("SECRET_OF_TESTS", SECRET)
    file = tmp_path / "conf" / "study" / "stranger.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{STRANGERS[what]}\n")
    before = sorted(tmp_path.rglob("*"))
    answer = cli("+study=stranger", "plan=true")
    assert_one_paragraph(answer)
    assert sorted(tmp_path.rglob("*")) == before and not Path(MARK).exists()
    assert SECRET not in "".join(answer[1:])


def test_what_the_command_line_says_counts(cli, tmp_path, monkeypatch):
    """And what a file says of packages beside it."""
    monkeypatch.setattr(sweep, "words", lambda: ["targets.allow=[subprocess.,json.]", "hydra.run.dir=x"])
    trust.allow_only_own(["subprocess.", "json."])
    for refused in ("os.", "keras.", "studies.", "numpy.", "os.path."):
        with pytest.raises(StudyError, match=re.escape(f"targets.allow has {refused}")):
            trust.allow_only_own([refused])
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "beside_of_tests.py").write_text("")
    trust.allow_only_own(["beside_of_tests."])
    others = tmp_path / "lib" / "dist-packages"  # of the system, or of the user's home
    others.mkdir(parents=True)
    (others / "installed_of_tests.py").write_text("")
    monkeypatch.syspath_prepend(others)
    with pytest.raises(StudyError, match=re.escape("targets.allow has installed_of_tests.")):
        trust.allow_only_own(["installed_of_tests."])
    assert_one_paragraph(cli("--experimental-rerun=x.pickle"), "pickle")


def test_a_config_reads_places_from_the_environment_and_nothing_else(monkeypatch):
    monkeypatch.setenv("STUDIES_DATA", "/data")
    monkeypatch.setenv("SECRET_OF_TESTS", SECRET)
    monkeypatch.delenv("STUDIES_NOSUCH", raising=False)
    assert trust.variable("STUDIES_DATA") == "/data" and trust.variable("STUDIES_NOSUCH", "null") is None
    for name in ("SECRET_OF_TESTS", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PATH"):
        with pytest.raises(StudyError, match="reads no such variable"):
            trust.variable(name)
    said = str(provenance.tags([])) + str(provenance.engine())
    assert SECRET not in said


WORDS = (
    *(
        "os",
        "system",
        "keras",
        "src",
        "utils",
        "get_file",
        "saving",
        "load_model",
        "numpy",
        "load",
        "studies",
        "factors",
    ),
    *("models", "initializers", "optimizers", "regularizers", "executors", "pool", "Pool", "subprocess", "Popen", "io"),
    *(
        "importlib",
        "import_module",
        "get",
        "deserialize",
        "HeNormal",
        "Adam",
        "mlp",
        "__init__",
        "__globals__",
        "",
        "..",
    ),
)


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(".".join),
    st.sampled_from(["model", "initializer", "executor"]),
)
def test_no_target_is_let_through_but_those_of_the_table(target, group):
    try:
        targets.refuse_unlisted({group: {"_target_": target, "weights": None}}, [])
    except StudyError:
        return
    module, _, name = targets.canonical_name(target).rpartition(".")
    assert name in dict.fromkeys(targets.GROUPS[group].targets[module]) or module.startswith("keras.")
    assert module in targets.GROUPS[group].targets and name.isidentifier() and name not in targets.READERS


def test_no_code_of_ours_reads_pickles_or_loads_models_otherwise_than_safely():
    for file in [*(ROOT / "studies").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        text = file.read_text()
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            name, given_ = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            where = f"{file.name}:{call.lineno} {name}"
            if name.endswith("np.load"):
                assert given_.get("allow_pickle") == "False", where
            if name.endswith("load_model"):
                assert "safe_mode" not in given_, where
            if name == "yaml.load":
                assert "Safe" in ast.unparse(call) or "LOADER" in ast.unparse(call), where
            assert name not in ("eval", "exec", "joblib.load", "marshal.loads", "os.system"), where
            assert "pickle.load" not in name or file.name == "beside.py", where  # of its own fork, by a pipe
            assert given_.get("shell") != "True", where
        assert "enable_unsafe_deserialization" not in text
    assert not any("safe_mode" in page.read_text() for page in (ROOT / "docs").glob("*.md"))


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1")
    text += b" " * (-(11 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def npz(file, x: bytes, method=zipfile.ZIP_DEFLATED):
    labels = io.BytesIO()
    np.save(labels, np.arange(9) % 3)
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", labels.getvalue())
    return file


def shaped(shape, kind="<f4"):
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    "x",
    [
        npy(shaped("(10**13, 4, 4)")),
        npy(shaped("(10000000000000, 4, 4)")),
        npy(shaped("(99999999999999999999999, 4, 4)")),
        npy(shaped("(-1, 4, 4)")),
        npy(shaped("True")),
        npy(shaped("(3,)", "|O"), f"cos\nsystem\n(S'touch {MARK}'\ntR.".encode()),
        npy("{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (3,)}", b"0" * 99),
        npy(f"__import__('os').system('touch {MARK}')"),
        npy("[" * 3000 + "]" * 3000),
        b"\x93NUMPY\x03\x00" + struct.pack("<I", 2**31) + b"x",
        f"\x80\x04cos\nsystem\n(S'touch {MARK}'\ntR.".encode("latin1"),
        b"",
    ],
    ids=range(12),
)
def test_hostile_arrays_are_refused_and_nothing_is_called(tmp_path, monkeypatch, x):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError):
        data.npz(str(npz(tmp_path / "x.npz", x)))
    assert not Path(MARK).exists()


def test_arrays_that_unpack_to_more_than_there_is_memory_are_refused(tmp_path, monkeypatch):
    file = npz(tmp_path / "x.npz", npy(shaped("(9, 4, 4)"), b"\0" * 4 * 144))
    data.npz(str(file))
    monkeypatch.setattr(data.os, "sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else 500)
    with pytest.raises(StudyError, match="unpacks to"):
        data.npz(str(file))


GOOD = npz(io.BytesIO(), npy(shaped("(9, 4, 4)"), np.arange(144, dtype="<f4").tobytes())).getvalue()


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_arrays_are_read_or_refused(tmp_path_factory, changes):
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    file = tmp_path_factory.getbasetemp() / "damaged.npz"
    file.write_bytes(content)
    try:
        data._read_npz(file)
    except StudyError as error:
        assert "\n" not in str(error)


def test_an_archive_of_more_files_than_any_has_is_refused(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for place in range(200):
            archive.addfile(tarfile.TarInfo(f"train/a/{place}.png"))
    file = tmp_path / "many.tar.xz"
    file.write_bytes(lzma.compress(buffer.getvalue()))
    monkeypatch.setattr(images, "MOST_FILES", 100)
    with pytest.raises(StudyError, match="more than 100 files"):
        images.read(file, None)


EVIL = "a<script>alert(1)</script>|`x`[b](javascript:c)\\input{d}$e$&\x1b[2J\u202e\nf"


@pytest.fixture
def evil(made):
    """A store whose every text is hostile."""
    study = Study("evil", f"Is it {EVIL}?", {"optimizer.name": (EVIL, "good")}, (0, 1), {}, "val_accuracy")
    config = {
        "data": {"_target_": "made.up", "path": f"/{EVIL}", "content": "1", "name": EVIL},
        "model": {"_target_": "studies.models.mlp", "note": EVIL},
        "training": {"epochs": 3, "batch_size": 3},
        "engine": {"threads": 1},
    }
    levels = [(place, level, seed) for place, level in enumerate((EVIL, "good")) for seed in (0, 1)]
    trials = [
        Trial(f"{place}{seed}" * 8, "evil", "scientific", {"optimizer.name": level}, seed, config, (f"a={EVIL}",), "g")
        for place, level, seed in levels
    ]
    tags = {"machine": EVIL, "processor": EVIL, "mlflow.source.name": f"python -m studies.run {EVIL}"}
    execution = writer.Execution(made, study, trials, "study: {name: evil}\n", None, tags)
    for trial in trials:
        epochs, layers, result = records(trial, "crashed" if trial.key == "0" * 16 else "finished")
        layers = [dataclasses.replace(each, layer=EVIL, warning=EVIL) for each in layers]
        found = {"class_names": (EVIL, "two"), "confusions": {"val": [(0, 0, 3), (0, 1, 1), (1, 1, 2)]}, "classes": 2}
        error = f"{EVIL}\n{EVIL}" if result.status == "crashed" else ""
        execution.write(trial, epochs, layers, dataclasses.replace(result, error=error, **found), f"{EVIL} at epoch 3")
    execution.close("FINISHED", "| a |")
    return made


def test_texts_of_others_are_no_markup_and_steer_no_terminal(evil, tmp_path):
    for make in (compare.table, confusion.confusion, power.planned):
        made = {form: plain(make("evil", evil, format=form)) for form in ("terminal", "markdown", "latex", "html")}
        assert all("\x1b" not in text and "\u202e" not in text for text in made.values())
        assert "<script" not in made["markdown"] + made["html"] and "](javascript" not in made["markdown"]
        rows = [line for line in made["markdown"].splitlines() if line.startswith("|")]
        assert len({re.sub(r"\\\|", "", row).count("|") for row in rows}) <= len(made["markdown"].split("\n\n"))
        code = [line.partition("%")[0] for line in re.sub(r"\\[%\\]", "", made["latex"]).splitlines()]
        assert not any("\\input" in line or "$e$" in line for line in code)
    page = report.report(load.execution("evil", evil), load.trials("evil", evil), evil).html
    assert page.count("<script") == page.count("</script>") == 3 and "<script>alert" not in page
    export.write("evil", tmp_path / "out", evil)
    text = (tmp_path / "out" / "dictionary.md").read_text()
    assert "<script" not in text and "\x1b" not in text
    run = stored.found("0" * 16, evil)
    assert "\x1b" not in stored.labelled(run)
    record = {"name": "mine", "number": None, "chapter": "", "quote": EVIL, "kind": "", "verdict": "not run"}
    record |= {"stale": EVIL, "file": "", "command": EVIL}
    for form in ("markdown", "html"):
        assert "<script>alert" not in board.board([record], form)
    assert "<script" not in board.short_form([record])


@given(st.text(max_size=40))
def test_no_text_breaks_out_of_its_cell_or_line(text):
    assert "\n" not in escaped.line(text) and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", escaped.line(text))
    cell = escaped.piped(text)
    assert not re.search(r"(?<!\\)\|", cell) and not re.search(r"<[A-Za-z/!?]", cell)
    table = escaped.table([[text, "b"]], ["one", "two"], "html")
    assert table.count("<td") == 2 and table.count("<tr") == 2
    assert str(StudyError(text)) == plain(text) and shown(text) == plain(text)
    assert all(ord(sign) >= 32 or sign in "\n\t" for sign in plain(text))


def test_class_names_from_folders_steer_no_terminal(tmp_path):
    from PIL import Image

    for name in ("a\x1b[2J", "b"):
        (tmp_path / name).mkdir()
        for place in range(3):
            Image.new("L", (4, 4), place).save(tmp_path / name / f"{place}.png")
    assert images.read(tmp_path, None)["classes"].tolist() == ["a\\x1b[2J", "b"]


@pytest.mark.parametrize("place", ["/elsewhere/artifacts/evil/x/artifacts", "/a/artifacts/../../x", "/etc"])
def test_a_store_that_says_that_its_files_are_elsewhere_is_not_written_to(evil, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    execution = load.execution("evil", evil)
    shutil.copytree(execution.folder, outside / "evil")
    with sqlite3.connect(evil / "mlflow.db") as connection:
        named = place if place != "/etc" else str(outside / "evil")
        connection.execute("UPDATE runs SET artifact_uri = ?", (f"file://{named}",))
    before = sorted(outside.rglob("*"))
    assert report.main(["evil", "--root", str(evil)]) == 2
    assert sorted(outside.rglob("*")) == before


def test_a_footprint_heeds_what_it_allows_and_not_what_a_store_does(evil, monkeypatch):
    """A trial's config goes into the process that trains with the command's prefixes alone."""
    monkeypatch.setattr(
        load,
        "configs",
        lambda *_: {
            f"{place}{seed}" * 8: {"engine": {"threads": 1}, "targets": {"allow": ["os."], "source": {}}}
            for place in (0, 1)
            for seed in (0, 1)
        },
    )
    asked = []

    def answered(trials, to):
        asked.extend(trials)
        raise StudyError("seen")

    monkeypatch.setattr(footprint, "_answered", answered)
    for allow in ([], ["mine."]):
        asked.clear()
        with pytest.raises(StudyError, match="seen"):
            footprint.measured("evil", evil, allow=allow)
        assert [each["config"]["targets"] for each in asked] == [{"allow": allow}] * len(asked) != []
    with pytest.raises(StudyError, match="end in a dot"):
        footprint.measured("evil", evil, allow=["os"])


def test_a_run_is_named_by_no_path(evil):
    for named in ("../../etc/passwd", "/etc/passwd", "....", "%2e%2e", "' OR 1=1 --", "\x00\x00\x00\x00"):
        with pytest.raises(StudyError, match="no trial in"):
            stored.found(named, evil)


def test_the_security_page_is_there_and_says_what_is_not_promised():
    text = (ROOT / "SECURITY.md").read_text()
    for word in ("pickle", "targets.allow", "cluster", "MLflow", "CSV", "report"):
        assert word in text
    assert len(text.splitlines()) < 80
