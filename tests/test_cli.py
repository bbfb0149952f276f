"""The commands as a user meets them: whatever is wrong is one paragraph, exit code 2, and leaves nothing behind.

Most run in this process, which saves two seconds each; those in a process of their own are told to be.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra._internal.hydra import Hydra
from PIL import Image
from rich.console import Console

from analysis import compare
from analysis.show import tables
from studies import run
from studies.command import compose, driver, job, sweep
from studies.record import Study

ROOT = Path(__file__).parent.parent
STUDY = "+study=init_comparison"


def process(module, *arguments, cwd, **environment):
    """The same of a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"HYDRA_FULL_ERROR": "0", "PYTHONPATH": str(ROOT)} | environment
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    return ended.returncode, ended.stdout, ended.stderr


def assert_one_paragraph(answer, *words):
    code, _, error = answer
    assert code == 2
    assert re.fullmatch(r"error: \S[^\n]*\S\n", error), error
    assert "Traceback" not in error
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("arguments", "received", "allowed"),
    [
        (["+study=nosuch"], "study=nosuch", "init_comparison"),
        (["study=init_comparison"], "+study=NAME", "init_comparison"),
        (["optimizer=nosuch"], "optimizer=nosuch", "momentum, muon, nadam"),
        (["regularizer=null"], "regularizer=null", "max_norm, mixup, none"),
        (["+model=mlp"], "+model", "model=NAME"),
        (["model.nosuch=1"], "model.nosuch", "mlp: depth, width"),
        (["training.nosuch=1"], "training.nosuch", "epochs, batch_size"),
        (["+training.nosuch=1"], "training.nosuch=1", "epochs, batch_size"),
        (["nosuch=1"], "nosuch", "initializer, model, optimizer"),
        (["+nosuch=1"], "nosuch", "model, initializer, optimizer"),
        (["~model"], "model is missing", "data, model"),
        (["+study.factors={nosuch: [1]}"], "nosuch", "data, model, initializer"),
        (["+study.factors={model.nosuch: [1]}"], "model.nosuch", "depth, width"),
        (["+study.factors={initializer: [zeros, nosuch]}"], "initializer=nosuch", "he_normal"),
        (["+study.factors={model.depth: [2, 2]}"], "the level 2 twice", "leave one out"),
        (["+study.factors={model.depth: []}"], "study.factors.model.depth=[]", "[2, 8, 16]"),
        (["+study.factors={model.depth: [2, -1]}"], "model.depth=-1", "1 or more"),
        (["study.factors={model.depth: [2]}"], "study.factors", "'+study.factors={model.depth: [2]}'"),
        (["+study.factors.model.depth=[2]"], "{'depth': [2]}", "{model.depth: [2, 8]}"),
        (["study.nuisance={model.depth: [2]}"], "study.nuisance", "'+study.nuisance={model.depth: [2]}'"),
        (["study.metric=ema_val_loss"], "study.metric=ema_val_loss", "optimizer.ema=0.99, or compare by val_loss"),
        (["schedule.low_momentum=0.8"], "schedule.low_momentum", "one_cycle: peak, start"),
        (["optimizer.nosuch=1"], "optimizer.nosuch", "all of them: sam, lookahead, slow_step, "),
        (["study.metric=nosuch"], "study.metric=nosuch", "val_accuracy, best_val_loss"),
        (["study.seeds=1000000000"], "study.seeds=1000000000", "100,000 at most"),
        (
            ["study.seeds=5000", "+study.factors={model.depth: [1, 2, 3], model.width: [1, 2, 3, 4, 5, 6, 7]}"],
            "105,000",
            "Leave out",
        ),
        (["++study.skip={}"], "study.skip={}", "the default, study.skip=[]"),
        (["study.name='a\nb'"], "study.name=", "letters"),
        ([" ="], "=: cannot be read", "NAME=VALUE"),
        (["+="], "+=: cannot be read", "NAME=VALUE"),
        (["study.seeds=0"], "study.seeds=0", "1 or more"),
        (["seed=-1"], "seed=-1", "0 or more"),
        (["seed=range(5)"], "seed=range(5)", "start with -m"),
        (["model.depth=-1"], "model.depth=-1", "1 or more"),
        (["model.depth=2,8"], "model.depth=2,8", "+study.factors={model.depth: [2,8]}"),
        (["model.depth=["], "model.depth=[", "NAME=VALUE"),
        (["model"], "model", "NAME=VALUE"),
        (["model.depth=${nosuch}"], "model.depth", "nosuch"),
        (["model.depth=???"], "model.depth", "mandatory"),
        (["optimizer.learning_rate=abc"], "optimizer.learning_rate=abc", "a number above 0"),
        (["+regularizer.l2=1"], "regularizer is none", "regularizer=NAME"),
        (["plan=maybe"], "plan=maybe", "false, true, json"),
        (["force=maybe"], "force=maybe", "true or false"),
        (["tracking.root=null"], "tracking.root=null", "a text"),
        (["model._target_=os.system"], "model._target_='os.system'", "targets.allow=[mypackage.]"),
        (["model._target_=os.system", "targets.allow=os."], "targets.allow=os.", "a list"),
        (
            ["executor._target_=studies.pool.Poll"],
            "'studies.pool.Poll'",
            "(studies.execute.serial.Serial, studies.execute.pool.Pool",
        ),
        (["data=npz"], "data=npz", "data.path=FILE.npz"),
        (["data=npz", "data.path=nosuch.npz"], "data.path=nosuch.npz", ".npz file"),
        (["data.test_fraction=null"], "data.test_fraction=null", "0.2"),
        (["data=image_folder"], "data=image_folder", "train/CLASS/FILE"),
        (["data=image_folder", "data.path=nosuch.tar"], "data.path=nosuch.tar", ".tar.xz, .zip"),
        (["data=image_folder", "data.path=x", "data.image_size=0"], "data.image_size=0", "1 or more"),
        (["data=mnist", "data.name=imagenet"], "data.name=imagenet", "cifar10, cifar100"),
        (["data.train_size=9"], "data.train_size=9", "expected 10, one of each class, to 1151"),
        (["data.train_size=1152"], "data.train_size=1152", "expected 10, one of each class, to 1151"),
        (["data.train_size=0.5"], "data.train_size=0.5", "1 or more"),
        (["+study.factors={data.train_size: [100, 5000]}"], "data.train_size=5000", "null takes all"),
        (["data.label_noise=1.5"], "data.label_noise=1.5", "from 0 to 1"),
        (["data.imbalance=0.1"], "data.imbalance=0.1", "from 1"),
        (["data.standardize=1"], "data.standardize=1", "true or false"),
        (["~data.standardize"], "data.standardize is missing", "data.standardize=VALUE"),
        ([STUDY, "study.factors={}"], "study.factors={}: changes nothing", "study.factors=null"),
        ([STUDY, "study.baseline={}"], "study.baseline={}: changes nothing", "(initializer)"),
        (["training={}"], "training={}: changes nothing", "leave it out"),
        (["seed=3", "study.seeds=5"], "seed=3 and study.seeds=5", "one of them"),
        (["study.seeds=5", "seeds={split: 0, init: 0, order: 0}"], "the 5 seeds are one run", "seeds.init=null"),
        (
            ["+study.factors={optimizer: [adam, adamax]}", "+study.nuisance={optimizer.nosuch: [1, 2]}"],
            "study.nuisance names optimizer.nosuch",
            "leave it out",
        ),
        (["study.figures=[loss_by_rate, loss_by_rate]"], "a figure twice", "leave one out"),
        ([STUDY, "study.baseline={initializer: ones}"], "study.baseline.initializer=ones", "glorot_uniform"),
        (
            ["+study=claims/gpt3_month"],
            "did you mean claims/gpt3_months? study has",
            "claims/gpt3_scale",
        ),
        (["+study=gpt3_month"], "did you mean claims/gpt3_months? study has", "claims/gpt3_scale"),
        (["optimiser=adam"], "did you mean optimizer? there are", "clipping, data"),
        (["depth=4"], "did you mean model.depth? there are", "clipping, data"),
        (["model.dpth=4"], "did you mean depth? options", "mlp: depth, width"),
        (["training.epoch=4"], "did you mean epochs? training has", "batch_size"),
        (["+training.epoch=4"], "did you mean epochs? training has", "batch_size"),
        (["+study.seed=4"], "did you mean seeds? there are", "tuning_seeds"),
        (["model.activation=rleu"], "did you mean relu? expected one of", "swish, mish"),
        (["study.metric=val_acuracy"], "did you mean val_accuracy? expected one of", "best_val_loss"),
        (["+study.factors={model.dept: [1]}"], "did you mean depth? it has", "depth, width"),
        (["--format", "json"], "--format json: expected it with plan=true", "analysis.compare STUDY --format json"),
        (["--plan", "--format=xml"], "--format xml", "terminal or json"),
        (["plan=json", "-m"], "plan=json: expected one job", "plan=true"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_answered_in_one_paragraph(cli, tmp_path, arguments, received, allowed):
    assert_one_paragraph(cli(*arguments), received, allowed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        ([], []),
        (["+study.factors={model.depth: [1, 2]}", "study.baseline=null", "training={epochs: 3}", "seed=3"], []),
        ([STUDY, "study.factors=null", "study.baseline=null", "+study.factors={model.width: [8, 9]}"], []),
        (
            [STUDY, "+study.factors={model.width: [8, 16]}"],
            ["study.factors keeps initializer, model.depth of the study besides; study.factors=null before"],
        ),
        ([STUDY, "study.factors={model.depth: [2, 3]}"], ["study.factors keeps initializer of the study besides"]),
        ([STUDY, "initializer=zeros"], ["initializer is not compared: it is fixed in the command"]),
        ([STUDY, "model=lenet_300_100"], ["model.depth is not compared: the chosen model has no such setting"]),
        (
            ["+study=optimizer_comparison", "optimizer=adam"],
            ["optimizer is not compared: it is fixed", "study.settings 0, 1, 2, 3, 4, 5 (from 0): void"],
        ),
        (
            [
                "+study.factors={model.depth: [1, 2], model.width: [8, 9]}",
                "study.skip=[{model.depth: 1, model.width: 8}]",
                "model.width=7",
            ],
            ["model.width is not compared", "study.skip 0 (from 0): void"],
        ),
        (
            ["+study.nuisance={model.width: [8, 9]}", "study.tuning_seeds=[7]", "model.width=9"],
            ["model.width is not tuned: it is fixed in the command", "study.tuning_seeds is void: nothing is tuned"],
        ),
        (["model.depth=1", "model.depth=2"], ["model.depth is given twice: 2 counts, not 1"]),
        (["training={epochs: 1}", "training.epochs=2"], ["training.epochs is given twice: 2 counts, not 1"]),
        (["executor.workers=64"], ["executor.workers=64: 1 are started, one a trial"]),
        (
            ["+study.factors={seeds.order: [null, 0]}", "seeds.init=0", "seeds.split=0", "study.seeds=3"],
            ["the 3 seeds of order=0 are one run, 3 times: all that is drawn is pinned"],
        ),
        (
            [
                "+study.factors={optimizer: [momentum, adam]}",
                "+study.nuisance={optimizer.learning_rate: [.01, .1], optimizer.momentum: [.5, .9]}",
            ],
            ["optimizer.momentum is tuned where there is such a setting, so not for adam"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_typed_is_what_is_trained_or_a_line_says_otherwise(planned, arguments, notes):
    code, output, error = planned(*arguments)
    assert (code, error) == (0, "")
    said = re.findall(r"^note: (.*)$", output, re.M)
    assert len(said) == len(notes) and all(line.startswith(note) for line, note in zip(said, notes, strict=True)), said


def test_the_plan_says_how_many_combinations_an_arm_is_tuned_at(planned):
    tuned = "+study.nuisance={optimizer.learning_rate: [.01, .1, 1], optimizer.momentum: [.5, .9]}"
    _, output, _ = planned("+study.factors={optimizer: [momentum, adam]}", tuned)
    assert "27 tuning trials, 2 arms at 3 to 6 combinations and 3 seeds" in output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf# @package _global_\nstudy: {name: mine}\n", ["begins with a byte-order mark", "without one"]),
        ("# @package _global_\nstudy: {name: mine, question: naïve?}\n".encode("latin-1"), ["not text in UTF-8"]),
        (b"# @package _global_\nstudy: {name: mine\nx", ["mine.yaml, line 3: is not YAML", "in line 2"]),
        (b"study:\n\tname: mine\n", ["mine.yaml, line 2: is not YAML", "indent with spaces"]),
        (b"seeds: 2\nseeds: 3\n", ["mine.yaml, line 2", "duplicate key seeds"]),
        (b"", ["+study=mine: its file", "is empty"]),
        (b"- seeds\n", ["mine.yaml has a list", "NAME: VALUE"]),
        (b"training: {epochs: 2}\n", ["mine.yaml has training", "`# @package _global_` as its first line"]),
        (b"# mine\n# @package _global_\ntraining: {epochs: 2}\n", ["mine.yaml has training", "as its first line"]),
        (b"defaults:\n  - override /model: cnn\n", ["mine.yaml has defaults", "`# @package _global_`"]),
        (
            b"# @package _global_\ndefaults:\n  - model: cnn\n",
            ["names model: cnn", "`- override /model: cnn`"],
        ),
    ],
    ids=["marked", "latin", "broken", "tab", "twice", "empty", "list", "unheaded", "late", "defaults", "relative"],
)
def test_a_study_file_that_cannot_be_read_is_named(cli, own, content, words):
    (own / "mine.yaml").write_bytes(content)
    assert_one_paragraph(cli("+study=mine", "plan=true"), "mine", *words)


@pytest.fixture
def own(tmp_path):
    """The folder of the user's own studies, in the working folder."""
    folder = tmp_path / "conf" / "study"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "content",
    ["# @package _global_\nstudy: {factors: {model.depth: [1, 2]}}\n", "factors: {model.depth: [1, 2]}\n"],
    ids=["of all parts", "of the study alone"],
)
def test_a_study_in_the_working_folder_is_found_and_has_its_files_name(planned, own, content):
    (own / "mine.yaml").write_text(content)
    code, output, _ = planned("+study=mine")
    assert code == 0 and output.startswith("mine: How does val accuracy depend on model.depth?\n")
    assert re.search("^  2 trials, 2 arms, 2 graphs$", output, re.M)
    assert planned("+study=mine", "study.name=yours")[1].startswith("yours: ")


def test_a_command_is_composed_once_and_twice_where_a_file_may_choose_hydras_mode(planned, own, monkeypatch):
    composed, compose_config = [], Hydra.compose_config
    monkeypatch.setattr(
        Hydra, "compose_config", lambda *args, **named: composed.append(1) or compose_config(*args, **named)
    )
    (own / "mine.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {model.depth: '1,2'}}}\n"
    )
    code, output, _ = planned("+study=mine")
    assert code == 0 and re.findall("^  [0-9a-f]{16} .*depth=([0-9])", output, re.M) == ["1", "2"]
    assert "1 trial" in planned("+study=mine", "hydra.mode=RUN")[1]
    shutil.rmtree(own.parent)
    composed.clear()
    assert planned()[0] == 0 and len(composed) == 1


def test_options_in_the_working_folder_are_found_and_hide_none_that_ship(planned, own, tmp_path):
    (own.parent / "model").mkdir()
    shipped = (compose.CONF / "model" / "mlp.yaml").read_text()
    (own.parent / "model" / "tiny.yaml").write_text(shipped.replace("width: 64", "width: 3"))
    code, output, _ = planned("+study.factors={model: [mlp, tiny]}")
    assert code == 0 and len(set(re.findall("^  ([0-9a-f]{16})", output, re.M))) == 2
    assert_one_paragraph(planned("model=tiyn"), "did you mean tiny?", "mlp, pixel_rnn")
    (own.parent / "model" / "mlp.yaml").write_text(shipped)
    assert planned("model=mlp")[0] == 0  # a copy
    (own.parent / "model" / "mlp.yaml").write_text(shipped + "# mine\n")
    assert_one_paragraph(planned("model=mlp"), "model=mlp: there are two", "my_mlp.yaml")
    (own.parent / "model" / "old.yml").write_text(shipped)
    assert_one_paragraph(planned("model=old"), "rename it old.yaml")
    other = tmp_path / "elsewhere"
    (tmp_path / "conf").rename(other)
    assert planned("--config-dir", str(other), "model=tiny")[0] == 0
    assert_one_paragraph(planned("model=tiny"), "model=tiny")


def arrays(**changed):
    return {"x": np.zeros((30, 4, 4)), "y": np.arange(30) % 3} | changed


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nan", arrays(x=np.full((30, 4, 4), np.nan)), "NaN or infinite"),
        ("pickled", arrays(x=np.array([{}] * 30)), "pickled objects, which are refused"),
        ("names", {"a": np.zeros(3)}, "['a']: expected the arrays x_train"),
        ("lengths", arrays(y=np.arange(10) % 3), "(30, 4, 4) and labels (10,)"),
        ("labels", arrays(y=np.arange(30) % 3 + 1), "from 1 to 3"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_file_that_cannot_be_used_is_named(cli, tmp_path, name, content, words):
    file = tmp_path / f"{name}.npz"
    np.savez(file, **content)
    assert_one_paragraph(cli("data=npz", f"data.path={file}"), str(file), words)
    assert list(tmp_path.iterdir()) == [file]


def image(shape=(4, 4), dtype=np.uint8):
    file = io.BytesIO()
    Image.fromarray(np.zeros(shape, dtype)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("../../up.png", image(), "leads out of the archive"),
        ("/root.png", image(), "leads out of the archive"),
        ("train/b/text\n.png", b"text", r"'train/b/text\n.png'"),
        ("train/b/wide.png", image((4, 5)), "data.image_size=PIXELS"),
        ("train/b/deep.png", image(dtype=np.uint16), "8 bits a channel"),
        ("train/c/0.png", image(), "a class has 1 examples"),
        ("test/c/0.png", image(), "'a' in train or in test alone"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_an_archive_that_cannot_be_used_is_named(cli, tmp_path, name, content, words):
    file = tmp_path / "images.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for place in range(8):
            archive.writestr(f"train/{'ab'[place % 2]}/{place}.png", image())
        archive.writestr(name, content)
    assert_one_paragraph(cli("data=image_folder", f"data.path={file}"), str(file), words)
    assert list(tmp_path.iterdir()) == [file]


def test_a_set_that_cannot_be_downloaded_says_where_to_put_it(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    answer = cli("data=cifar100", f"data.root={tmp_path}")
    assert_one_paragraph(answer, f"no cifar100.npz in data.root={tmp_path}", "STUDIES_DATA=FOLDER")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(cli, tmp_path):
    file = tmp_path / "damaged.npz"
    np.savez_compressed(file, **arrays(x=np.random.default_rng(0).random((30, 4, 4))))
    whole = file.read_bytes()
    for content in (b"", b"x,y\n1,2\n", whole[: len(whole) // 2], whole[:200] + bytes(100) + whole[300:]):
        file.write_bytes(content)
        assert_one_paragraph(cli("data=npz", f"data.path={file}"), str(file), "np.savez")


def test_a_store_that_cannot_be_written_is_refused_before_anything_trains(cli, tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file" / "x", "/proc/x"):
        assert_one_paragraph(cli(f"tracking.root={root}"), f"tracking.root={root}", "tracking.root=FOLDER")
    (tmp_path / "mlflow.db").write_text("not a database")
    assert_one_paragraph(cli(f"tracking.root={tmp_path}"), "not an SQLite database", "tracking.root=FOLDER")


def test_what_a_worker_refuses_is_answered_before_anything_trains(here, tmp_path):
    answer = here("+optimizer.foo=1", "tracking.root=store")
    assert_one_paragraph(answer, "foo=1", "(learning_rate=0.01, momentum=0.0")
    assert not (tmp_path / "store" / "mlflow.db").exists()


def test_what_cannot_be_imported_is_answered_before_anything_trains(tf, cli, tmp_path):
    answer = cli("optimizer._target_=keras.optimizers.SDG", "executor=serial", "tracking.root=store")
    assert_one_paragraph(answer, "'keras.optimizers.SDG'", "RMSprop, SGD")
    assert not (tmp_path / "store" / "mlflow.db").exists()


def test_the_command_itself_answers_like_its_function(tmp_path):
    assert_one_paragraph(process("studies.run", "model.depth=-1", cwd=tmp_path), "model.depth=-1", "1 or more")
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_is_there_for_who_asks(tmp_path):
    word = "hydra.job.chdir=postgresql://me:hush@there/db"
    code, _, error = process("studies.run", "model.depth=-1", word, cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert code == 1
    assert "Traceback" in error and "postgresql://me@there/db" in error and "hush" not in error


def test_an_error_of_ours_is_not_taken_for_the_users(cli, monkeypatch):
    def broken(config, *_):
        raise ValueError("a bug")

    monkeypatch.setattr(job, "read_study", broken)
    with pytest.raises(ValueError, match="a bug"):
        cli()


def test_modules_of_ones_own_are_looked_for_where_the_command_is_started(cli, tmp_path, monkeypatch):
    searched = []
    monkeypatch.setattr(run, "_command", lambda wants_traceback: searched.extend(sys.path) or 0)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(tmp_path))])
    assert cli()[0] == 0 and searched.count(str(tmp_path)) == 1


def test_help_names_the_groups_and_ends_well(cli):
    code, output, error = cli("--help")
    assert (code, error) == (0, "")
    for group in compose.groups():
        assert re.search(rf"^{group}: ", output, re.MULTILINE)
    assert "init_comparison" in output


def test_a_plan_prints_every_trial_and_creates_nothing(planned, tmp_path):
    code, output, error = planned(STUDY, "study.seeds=2", "initializer=zeros")
    assert (code, error) == (0, "")
    trials = re.findall(r"^  ([0-9a-f]{16})  graph ([0-9a-f]{8})  (.*)$", output, re.MULTILINE)
    assert [label for *_, label in trials] == [f"depth={depth} seed={seed}" for depth in (2, 8, 16) for seed in (0, 1)]
    assert len({key for key, *_ in trials}) == 6
    assert len({graph for _, graph, _ in trials}) == 3
    summary = output[: output.index(trials[0][0])]
    assert "  6 trials, 3 arms, 3 graphs\n  0 finished in mlruns, 6 to run\n" in summary
    assert re.search(r"estimated time: about [1-9]\d* s on \d+ worker", summary)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_json_for_a_program(planned, monkeypatch):
    code, output, _ = planned(STUDY, "study.seeds=2", "initializer=zeros", "--format", "json")
    whole = json.loads(output)
    assert code == 0 and (whole["study"], whole["finished"], whole["to_run"]) == ("init_comparison", 0, 6)
    assert whole["trials"][0]["arm"] == {"model.depth": 2} and whole["seconds"] > 0
    assert len({trial["key"] for trial in whole["trials"]}) == 6


def test_the_plan_of_a_study_that_tunes_shows_the_tuning_trials_and_counts_the_others(planned):
    code, output, error = planned("+study=init_comparison", "+study.nuisance={model.width: [8, 16]}")
    assert (code, error) == (0, "")
    assert len(re.findall(r"^  [0-9a-f]{16} .* width=\d+ seed=10[012]$", output, re.MULTILINE)) == 24 * 2 * 3
    assert "144 tuning trials, 24 arms at 2 combinations and 3 seeds" in output
    assert "then 120 final trials" in output


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Studies whose network has been trained already: what each job gave to Hydra. Depth 3 is interrupted."""
    gave, task = [], run.task

    def drive(driver, trials, *_):
        depth = trials[0].config["model"]["depth"]
        if depth == 3:
            return 130, {}
        return int(depth == 4), {"seeds": 2, "failures": 0, "mean": depth / 10, "sd": 0.01, "objective": depth / 10}

    monkeypatch.setattr(run.driver.Driver, "drive", drive)
    monkeypatch.setattr("studies.execute.pool.Pool.start", lambda *_: None)
    monkeypatch.setattr(run, "task", lambda composed: gave.append(task(composed)) or gave[-1])
    monkeypatch.setattr("studies.store.writer.end_sweep", lambda *_: None)
    return gave


def test_a_job_gives_hydra_the_mean_to_optimize_and_a_sweep_ends_in_one_table(cli, trained):
    code, output, error = cli("-m", "optimizer=sgd,adam", "model.depth=1,2", "model.width=8")
    assert (code, error, trained) == (0, "", [0.1, 0.2, 0.1, 0.2])
    assert re.findall(r"^(optimizer|sgd|adam) +(\S+) +(\S+) +(\S+)  (.*)$", output, re.M) == [
        ("optimizer", "depth", "seeds", "failed", "val accuracy: mean ± sd over seeds"),
        *((name, depth, "2", "0", f"0.{depth}00 ± 0.010") for name in ("sgd", "adam") for depth in "12"),
    ]
    assert cli("model.depth=2") == (0, "", "") and trained[-1] == 0.2


def test_jobs_go_on_after_one_with_an_error_and_not_after_an_interruption(cli, trained):
    answer = cli("-m", "model.depth=-1,2,4")
    assert_one_paragraph(answer, "model.depth=-1", "1 or more")
    assert np.isnan(trained[0]) and trained[1:] == [0.2, 0.4]
    assert re.findall(r"^(-?\d) .* ([\w.]+)$", answer[1].replace(" ± 0.010", ""), re.M) == [
        ("-1", "error"),
        ("2", "0.200"),
        ("4", "0.400"),
    ]
    assert cli("-m", "model.depth=1,4")[0] == 1
    assert cli("-m", "model.depth=1,3,2")[0] == 130
    assert trained[-3] == 0.1 and np.isnan(trained[-2:]).all()


@pytest.mark.parametrize(
    "metric", ["test_accuracy", "val_accuracy", "train_accuracy", "running_accuracy", "best_val_accuracy"]
)
def test_a_sweeper_chooses_by_validation_data_alone(capsys, metric):
    study = Study("s", "?", {}, (0, 1), {}, metric)
    values = {"val_accuracy": [0.2, 0.4], "test_accuracy": [0.8, 0.9], "train_accuracy": [0.4, 0.6]}
    values |= {"running_accuracy": [0.5, 0.6], "best_val_accuracy": [0.4, 0.5]}
    frame = pd.DataFrame({"seed": [0, 1], "status": "finished", "classes": 10, "key": ["a", "b"]} | values)
    drive = driver.Driver(study, None, "", "", Console(), jobs=object())
    summary = drive._summary(frame)
    assert summary["objective"] == pytest.approx(0.3) and summary["mean"] == pytest.approx(np.mean(values[metric]))
    said = "a sweeper is given the mean of val_accuracy, not of" in capsys.readouterr().out
    assert said == (metric != "val_accuracy")


@pytest.mark.parametrize(
    ("metric", "value", "worst"),
    [("val_loss", 5.59, np.inf), ("test_accuracy", 0.05, -np.inf), ("val_loss", 1e39, np.inf)],
)
def test_a_job_of_which_nothing_finished_is_ahead_of_no_other(metric, value, worst):
    study = Study("s", "?", {}, (0, 1), {}, metric)
    frame = pd.DataFrame({"seed": [0, 1], "classes": 10, "key": ["a", "b"], "status": "finished"})
    finished = frame.assign(**{metric: value, study.tuning_metric: value})
    failed = (
        finished
        if value > 1e38
        else finished.assign(status=["diverged", "timeout"], **{metric: np.nan, study.tuning_metric: np.nan})
    )
    some = finished.assign(status=["finished", "diverged"])
    summary = driver.Driver(study, None, "", "", Console())._summary
    assert summary(failed)["objective"] == summary(failed.assign(status="crashed"))["objective"] == worst
    assert summary(failed)["failures"] == (0 if value > 1e38 else 2)
    if value < 1e38:
        assert summary(finished)["objective"] == summary(some)["objective"] == pytest.approx(value)
    jobs = [
        asdict(sweep.Outcome([], True, metric=metric, **summary(each))) | {"optimizer.learning_rate": rate}
        for rate, each in (("0.1", finished.assign(**{metric: min(value, 9)})), ("1e7", failed))
    ]
    assert re.search(r"^1e7 .* failed$", tables.sweep_table(jobs), re.M)
    assert not re.search(r"^0.1 .* failed$", tables.sweep_table(jobs), re.M)


def test_a_job_without_the_metric_has_no_objective():
    frame = pd.DataFrame({"seed": [0, 1], "classes": 10, "status": "finished", "ema_val_loss": np.nan})
    summary = driver.Driver(Study("s", "?", {}, (0, 1), {}, "ema_val_loss"), None, "", "", Console())._summary(frame)
    assert np.isnan(summary["objective"]) and summary["seeds"] == 0


def test_jobs_that_differ_in_nothing_that_is_trained_are_named(cli, trained):
    _, output, _ = cli("-m", "study.question=a,b", "model.depth=1,2")
    assert re.findall(r"^note: the jobs (.*) have the same trials", output, re.M) == ["0, 2", "1, 3"]
    assert "note" not in cli("-m", "optimizer=sgd,adam", "model.depth=1,2")[1]


def test_seeds_can_be_swept(planned, tmp_path):
    code, output, error = planned("-m", "optimizer=sgd,adam", "seed=range(2)")
    assert (code, error) == (0, "")
    assert re.findall(r"(sgd|adam) seed=(\d)$", output, re.M) == [(o, s) for o in ("sgd", "adam") for s in "01"]
    assert len(set(re.findall(r"^  ([0-9a-f]{16}) ", output, re.MULTILINE))) == 4
    assert list(tmp_path.iterdir()) == [] and "STUDIES_SWEEP" not in os.environ


def test_comparing_an_unknown_study_is_answered_in_one_paragraph(tmp_path, capsys):
    answer = process("analysis.compare", "nosuch", "--root", str(tmp_path), cwd=tmp_path)
    assert_one_paragraph(answer, "'nosuch'", "none yet", "--root FOLDER")
    assert list(tmp_path.iterdir()) == []
    assert compare.main(["nosuch", "--root", str(tmp_path / "nosuch")]) == 2
