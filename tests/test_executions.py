"""Which of a study's executions is meant, several as one, and what is said of it: on a store of four that differ."""

import io
import json
import shlex
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from test_writer import CONFIG, records

from analysis import changes, compare, confusion, export, figures, footprint, foretell, load, power, report
from analysis.read import executions as reading
from analysis.read import selection
from analysis.show import executions as words
from analysis.show import width
from studies.contract import Tag, set_by_command
from studies.record import LATER, Study, StudyError, Trial, arm_label, content_key
from studies.store import writer

NAME = "asked"
INITIALIZERS = ("he", "zeros")
SGD, ADAM = CONFIG["optimizer"], {"_target_": "keras.optimizers.Adam", "learning_rate": 0.1}


def executed(root, sets=(), depths=(2, 8), seeds=(0, 1, 2), optimizer=SGD, option="sgd", known=True, **more):
    """Run a made-up study as a command with these words would: what is finished is not run again.

    Args:
        known: whether the execution keeps its words and options, as those of before did not.
        more: `width` of the model, which no word names; `jobs` of a sweep; the `source` of the user's own code; what
            `data` and `training` have besides, which is no part of a trial's key while it is neutral.
    """
    model = {**CONFIG["model"], "depth": depths[0] if len(depths) == 1 else 1, "width": more.get("width", 64)}
    config = CONFIG | {"optimizer": optimizer, "model": model}
    trained = {**config, "training": {**CONFIG["training"], **more.get("training", {})}}
    trained |= {"targets": {"source": more["source"]}} if "source" in more else {}
    trained["data"] = {**CONFIG["data"], **more.get("data", {})}
    factors = {"initializer": INITIALIZERS} | ({"model.depth": depths} if len(depths) > 1 else {})
    study = Study(NAME, "Which is best?", factors, seeds, {"initializer": "he"}, "val_accuracy")
    trials = []
    for initializer in INITIALIZERS:
        for depth in depths:
            arm = {"initializer": initializer, "model.depth": depth}
            own = trained | {"model": model | {"depth": depth}}
            same = {name: CONFIG[name] for name in ("data", "training")}
            key = [content_key([own | same, initializer, seed]) for seed in seeds]
            arm = {factor: arm[factor] for factor in factors}
            trials += [Trial(k, NAME, "scientific", arm, s, own, (), "graph") for k, s in zip(key, seeds, strict=True)]
    line = ["python", "-m", "studies.run", f"+study={NAME}", *more.get("line", sets), f"tracking.root={root}"]
    tags = {"mlflow.source.name": shlex.join(line)}
    if known:
        tags |= {Tag.SET: json.dumps([f"+study={NAME}", *sets, f"tracking.root={root}"])}
        tags |= {Tag.OPTIONS: json.dumps({"optimizer": option, "model": "mlp"})}
    text = yaml.safe_dump({"study": {"name": NAME, "seeds": list(seeds)}, "seed": seeds[0], **config})
    execution = writer.Execution(root, study, trials, text, more.get("jobs"), tags)
    finished = load.finished_keys(NAME, root)
    for place, trial in enumerate(trials):
        if trial.key not in finished:
            execution.write(trial, *records(replace(trial, seed=1000 * len(finished) + 10 * place + trial.seed)))
    execution.close("FINISHED", "| a table |")


def fill(root, fresh):
    shutil.copy(fresh / "mlflow.db", root)
    jobs, line = SimpleNamespace(id="sweep-1", name="two optimizers"), ["-m", "optimizer=sgd,adam", "depth=..."]
    executed(root)
    executed(root, ["model.depth=4"], (4,))
    executed(root, ["optimizer=sgd", "model.depth=2"], (2,), jobs=jobs, line=line)
    executed(root, ["optimizer=adam", "model.depth=2"], (2,), optimizer=ADAM, option="adam", jobs=jobs, line=line)


@pytest.fixture(scope="module")
def root(fresh, once):
    """Four executions: the study's own, one at another depth, two jobs of a sweep, the first of which ran nothing."""
    return once("asked", lambda folder: fill(folder, fresh))


@pytest.fixture
def command(root, capsys):
    """A function from arguments to what `python -m analysis.compare asked` answers: exit code, stdout, stderr."""

    def call(*arguments):
        return compare.main([NAME, *arguments, "--root", str(root)]), *capsys.readouterr()

    return call


def test_what_an_execution_sets_is_what_its_words_say_besides_the_study():
    line = "python -m studies.run +study=init_comparison model.depth=4 '+study.factors={a: [1]}' tracking.root=/x"
    assert set_by_command({"mlflow.source.name": line}) == ("model.depth=4", "+study.factors={a: [1]}")
    kept = {"mlflow.source.name": line, Tag.SET: json.dumps(["+study=a", "optimizer=sgd", "executor=serial"])}
    assert set_by_command(kept) == ("optimizer=sgd",)
    assert set_by_command({}) == () and set_by_command({"mlflow.source.name": "python 'cut"}) == ()
    for own, more in (
        (True, ["study.seeds=9", "study.name=b", "plan=false", "profile=quick"]),
        (False, ["profile=full"]),
    ):
        assert reading.is_own({Tag.SET: json.dumps(["+study=a", *more])}) == own


def test_an_execution_is_named_by_a_word_a_number_or_the_beginning_of_an_id(root):
    found = load.executions(NAME, root)
    assert [each.number for each in found] == [1, 2, 3, 4]
    for which, number in (("latest", 4), ("own", 1), (2, 2), ("3", 3), (found[1].run_id[:12], 2), ("1,1", 1)):
        assert load.execution(NAME, root, execution=which) == found[number - 1]
    assert load.execution(NAME, root) == found[-1] and load.pinned(NAME, root) == found[0]
    sweep = found[2].tags["mlflow.parentRunId"]
    for which, numbers in (("all", [1, 2, 3, 4]), ("sweep", [3, 4]), ("1,4", [1, 4]), (sweep[:12], [3, 4])):
        assert [part.number for part in load.execution(NAME, root, execution=which).parts] == numbers
    for which in ("0", "5", "", "last", "abc", found[1].run_id + "x"):
        with pytest.raises(StudyError, match=r"expected a number from 1 to 4, latest, own, all, sweep, or"):
            load.execution(NAME, root, execution=which)


def test_what_begins_several_ids_names_none_and_a_word_may_stand_for_nothing():
    tags = {Tag.SET: '["training.epochs=3"]'}
    parents = [SimpleNamespace(run_id=f"abcd{n}", start_time=n, tags=tags) for n in range(2)]
    for which, said in (
        ("abcd", "2 runs of s have ids that begin so"),
        ("own", "none of the 2 executions of s is of its own design"),
        ("sweep", "no execution of s is the job of a sweep"),
    ):
        with pytest.raises(StudyError, match=said):
            reading.places(parents, which, "s")


def test_several_executions_as_one_merge_no_arms_of_unlike_settings(root):
    whole = load.execution(NAME, root, execution="all")
    assert whole.study.factors == {
        "initializer": INITIALIZERS, "model.depth": (2, 4, 8), "optimizer": ("sgd", "adam"),
    }  # fmt: skip
    trials = load.trials(NAME, root, execution="all")
    assert len(trials) == 24 and not trials.duplicated([*whole.study.factors, "seed"]).any()
    for number, depth, optimizer in ((1, None, "sgd"), (2, 4, "sgd"), (3, 2, "sgd"), (4, 2, "adam")):
        part = load.trials(NAME, root, execution=number)
        mine = trials.set_index("key").loc[part["key"]]
        assert mine["val_accuracy"].tolist() == part["val_accuracy"].tolist()
        assert set(mine["optimizer"]) == {optimizer} and (depth is None or set(mine["model.depth"]) == {depth})
    for frame in (load.epochs, load.layers, load.settings):
        assert set(frame(NAME, root, execution="all")["key"]) == set(trials["key"])
    sweep = load.execution(NAME, root, execution="sweep").study
    assert sweep.factors == {"initializer": INITIALIZERS, "optimizer": ("sgd", "adam")}  # the depth is the same


def test_a_sweep_has_the_executions_of_before_that_its_jobs_came_to(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path)
    executed(tmp_path, ["optimizer=adam"], optimizer=ADAM, option="adam", jobs=SimpleNamespace(id="one", name="one"))
    executed(tmp_path, ["training.epochs=9"], seeds=(9,), jobs=SimpleNamespace(id="two", name="two"))
    assert load.execution(NAME, tmp_path, execution="sweep").number == 3
    for number in (1, 2):  # `-m optimizer=sgd,adam` finds both finished
        writer.join(tmp_path, NAME, load.execution(NAME, tmp_path, execution=number).run_id, "three")
    joined = load.execution(NAME, tmp_path, execution="sweep")
    assert [part.number for part in joined.parts] == [1, 2] and joined.study.factors["optimizer"] == ("sgd", "adam")


def test_a_sweep_over_seeds_is_one_table_of_all_its_seeds(fresh, tmp_path, capsys):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    jobs = SimpleNamespace(id="sweep-2", name="two seeds")
    for seed in (0, 1):
        executed(tmp_path, [f"seed={seed}"], (2,), (seed,), jobs=jobs, line=["-m", "seed=0,1"])
    found = load.execution(NAME, tmp_path, execution="sweep")
    assert list(found.study.factors) == ["initializer"] and found.study.seeds == (0, 1)
    assert compare.main([NAME, "--root", str(tmp_path), "--execution", "sweep", "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table["seeds"]) == [2, 2]


def test_what_no_word_tells_apart_is_told_apart_by_the_execution(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, known=False)
    executed(tmp_path, width=32, seeds=(3, 4), known=False)  # as after a change of a file in conf/
    whole = load.execution(NAME, tmp_path, execution="all")
    trials = load.trials(NAME, tmp_path, execution="all")
    assert whole.study.factors["execution"] == (1, 2) and whole.study.seeds == (0, 1, 2, 3, 4)
    assert arm_label({"initializer": "he", "execution": 2}) == "he execution=2"
    assert {(row["execution"], row["seed"] > 2) for row in trials.to_dict("records")} == {(1, False), (2, True)}
    executed(tmp_path, seeds=(0, 1, 2, 3))  # the first again, with a seed more
    trials = load.trials(NAME, tmp_path, execution="1,3")
    assert "execution" not in trials and len(trials) == 16


def test_settings_within_settings_and_own_code_tell_arms_apart(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, optimizer=SGD | {"inner": {"beta": 0.1}})
    executed(tmp_path, optimizer=SGD | {"inner": {"beta": 0.1}}, seeds=(3,))
    executed(tmp_path, optimizer=SGD | {"inner": {"beta": 0.9}}, seeds=(4,))
    executed(tmp_path, optimizer=SGD | {"inner": {"beta": 0.1}}, seeds=(5,), source={"mine": "a hash"})
    factors = {which: load.execution(NAME, tmp_path, execution=which).study.factors for which in ("1,2", "all")}
    assert "execution" not in factors["1,2"] and factors["all"]["execution"] == (1, 3, 4)


@pytest.mark.parametrize(("content", "apart"), [("a hash", False), (None, True)])
def test_data_are_known_by_their_content_else_by_their_place(fresh, tmp_path, content, apart):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, depths=(2,), data={"path": "here", "content": content, "unreadable": "refuse"})
    executed(tmp_path, depths=(2,), data={"path": "there", "content": content, "unreadable": "skip"}, seeds=(3,))
    assert ("execution" in load.execution(NAME, tmp_path, execution="all").study.factors) == apart


def test_images_an_epoch_are_said_where_all_trials_have_as_many(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, depths=(2,))
    executed(tmp_path, depths=(2,), data={"train_size": 9}, seeds=(3,))  # as of an arm that study.settings gives fewer
    study = load.execution(NAME, tmp_path, execution=1).study
    for which, said in ((1, True), (2, True), ("1,2", False)):
        [data, _] = compare.trained(study, load.trials(NAME, tmp_path, execution=which), tmp_path)
        assert ("images an epoch" in data) == said


def test_trials_of_before_a_setting_came_are_one_arm_with_those_that_have_it_neutral(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, known=False)
    neutral = LATER["training"] | {"one_that_is_null": None}
    executed(tmp_path, seeds=(0, 1, 2, 3), training=neutral)
    trials = load.trials(NAME, tmp_path, execution="all")
    assert "execution" not in trials and len(trials) == 16
    executed(tmp_path, seeds=(4,), training=neutral | {"class_weight": "balanced"})
    assert load.execution(NAME, tmp_path, execution="all").study.factors["execution"] == (1, 3)


def test_options_that_were_not_kept_are_known_by_their_content_or_by_what_they_build(fresh, tmp_path):
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, ["optimizer=adam"], optimizer=ADAM, known=False)
    executed(tmp_path, known=False)
    assert load.execution(NAME, tmp_path, execution="all").study.factors["optimizer"] == ("Adam", "SGD")
    executed(tmp_path, ["optimizer=adam"], optimizer=ADAM, option="adam", seeds=(7,))
    assert load.execution(NAME, tmp_path, execution="all").study.factors["optimizer"] == ("adam", "SGD")


def test_a_table_says_which_execution_it_is_of_and_what_else_there_is(root, command):
    _, out, _ = command()
    of = "Execution 4 of 4, "
    assert of in out and "the job optimizer=adam model.depth=2 of python -m studies.run +study=asked -m" in out
    assert (
        "6 trials with optimizer=sgd model.depth=2 (--execution 3), 6 trials with model.depth=4 (--execution 2)" in out
    )
    assert "--execution sweep has the jobs of this sweep in one table, --execution all has everything." in out
    _, out, _ = command("--execution", "all")
    assert "Executions 1 to 4 of 4 as one" in out and "1 nothing else; 2 model.depth=4; 3 optimizer=sgd" in out
    assert "in the store" not in out
    found = json.loads(command("--execution", "2", "--format", "json")[1])["of"]
    assert [each["sets"] for each in found["executions"]] == [["model.depth=4"]]
    assert sum(each["trials"] for each in found["elsewhere"]) == 18
    for format in ("markdown", "html", "latex"):
        assert "Execution 2 of 4" in command("--execution", "2", "--format", format)[1]
    assert "Execution" not in command("--format", "csv")[1]


def test_a_condition_that_finds_nothing_here_says_where_it_would(command):
    code, out, error = command("--where", "depth >= 8")
    assert code == 2 and not out and "of execution 4, which sets optimizer=adam model.depth=2" in error
    assert error.rstrip().endswith("But 6 of execution 1 are (--execution 1)")
    assert command("--where", "depth >= 8", "--execution", "1")[0] == 0
    error = command("--where", "depth < 8 and optimizer == 'SGD'")[2]
    assert "6 of execution 2 are (--execution 2), 6 of execution 3" in error and "with --execution all" in error
    assert "But" not in command("--where", "depth > 100")[2]


def test_names_are_short_where_tables_have_them_so():
    frame = pd.DataFrame({"model.depth": [2, 8], "val_accuracy": [0.9, 0.1], "a.rate": 1, "b.rate": 2, "epochs": 3})
    for condition in ("depth == 8", "val accuracy < .5 and depth in [8]", "`val accuracy` < .5", "not depth == 2"):
        assert selection.Condition(condition).holds(frame).tolist() == [False, True]
    assert selection.Condition("epochs == 3 and 'val accuracy' != 'x'").holds(frame).all()
    for condition, said in (
        ("rate == 1", "rate is short for a.rate, b.rate: name one of them"),
        ("dept == 1", "no column dept. Did you mean model.depth?"),
        ("val acuracy > 0", "no column val_acuracy. Did you mean val_accuracy?"),
    ):
        with pytest.raises(StudyError, match=said.replace("?", r"\?")):
            selection.Condition(condition).holds(frame)


def test_levels_of_factors_are_no_settings_that_changed(root):
    text = changes.changes(NAME, root, which="1,2")
    levels, settings, means = text.split("\n\n")[-3:]
    assert levels.splitlines()[-1].split() == ["model.depth", "2,", "8", "4"]
    assert settings == "the settings are the same" and "no arm in common" in means
    found = json.loads(changes.changes(NAME, root, which="1,4", format="json"))["changes"]
    assert {row["arm"] for row in found["means"]} == {"he depth=2", "zeros depth=2"}
    assert {row["config key"] for row in found["settings"]} == {"optimizer._target_"}
    assert found["trials"] == {"added": 6, "removed": 12, "kept": 0}
    old, new = (load.trials(NAME, root, execution=number) for number in (1, 4))
    for row in found["means"]:
        arm = row["arm"].split()[0]
        here = old[(old["initializer"] == arm) & (old["model.depth"] == 2)]["val_accuracy"].mean()
        there = new[new["initializer"] == arm]["val_accuracy"].mean()
        assert (row["before"], row["after"]) == (pytest.approx(here), pytest.approx(there))
    for which in ("1", "1,1", "1,2,3", "all,1"):
        with pytest.raises(StudyError, match="expected two of 1, 2, 3, 4"):
            changes.changes(NAME, root, which=which)


COMMANDS = {
    compare: [], report: ["--to", "{folder}/page.html"], power: [], foretell: [], footprint: [],
    confusion: [], export: ["--to", "{folder}/out"], figures: ["--to", "{folder}"],
}  # fmt: skip


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_command_that_reads_a_study_takes_an_execution_and_lists_them(root, capsys, tmp_path, module):
    assert module.main([NAME, "--root", str(root), "--execution", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"] and "model.depth=4" in rows[1]
    more = [word.format(folder=tmp_path) for word in COMMANDS[module]]
    assert module.main([NAME, "--root", str(root), "--execution", "nosuch", *more]) == 2
    assert "--execution nosuch: asked has no such execution" in capsys.readouterr().err
    if module in (power, foretell):
        assert module.main([NAME, "--root", str(root), "--execution", "all", "--format", "json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["of"]["executions"]) == 4
    if module is export:
        assert module.main([NAME, "--root", str(root), "--execution", "all", "--format", "json", *more]) == 0
        assert [row["rows"] for row in json.loads(capsys.readouterr().out)[:1]] == [24]
        assert set(pd.read_parquet(tmp_path / "out" / "trials.parquet")["optimizer"]) == {"sgd", "adam"}


def test_a_report_names_its_execution_and_one_of_several_needs_a_place(root, capsys, tmp_path):
    store = ["--root", str(root)]
    assert report.main([NAME, *store, "--execution", "all"]) == 2
    assert "several executions have no folder of their own: add --to FILE" in capsys.readouterr().err
    assert report.main([NAME, *store, "--execution", "1,2", "--to", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "Executions 1 and 2 of 4 as one" in text and "6 trials with optimizer=adam" in text


def test_a_page_that_is_of_a_design_says_so_when_it_reads_another(root, fresh, tmp_path):
    assert words.pinned(load.pinned(NAME, root)).endswith("of the study's own design.")
    shutil.copy(fresh / "mlflow.db", tmp_path)
    executed(tmp_path, ["model.depth=4"], (4,))
    said = words.pinned(load.pinned(NAME, tmp_path))
    assert "not of the study's own design: it sets model.depth=4" in said


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_tables_fit_the_terminal_and_say_what_they_leave_out(command, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for words_ in ([], ["--execution", "all"], ["--execution", "list"], ["--executions"]):
        table, note = command(*words_)[1].split("\n\n")[:2]
        assert max(map(len, table.splitlines())) <= columns
        assert note.startswith(f"Left out to fit {columns} columns: ") and "--wide" in note
        wide = command(*words_, "--wide")[1].split("\n\n")[0]
        assert max(map(len, wide.splitlines())) > columns
    monkeypatch.delenv("COLUMNS")
    assert "Left out" not in command()[1]  # it is no terminal


def test_a_table_is_fitted_by_its_headers_first_then_columns_then_texts():
    rows = [["a", "1", "one two three four five six seven eight nine ten", "7.5"]]
    headers = ["arm", "seeds", "said of it", "a header of many words"]
    whole = width.fitted(rows, headers, "simple", width=None)
    assert width.fitted(rows, headers, "simple", width=200) == whole
    fitted = width.fitted(rows, headers, "simple", width=50, spare=("seeds",))
    assert max(map(len, fitted.partition("\n\n")[0].splitlines())) <= 50
    assert "Left out to fit 50 columns: seeds." in fitted and "7.5" in fitted
    assert fitted.split("7.5")[1].count("\n") > 1 and "ten" in fitted
    assert width.fitted([], headers, "simple", width=20)
    assert "header of many" in width.fitted(rows, headers, "pipe", width=20)
