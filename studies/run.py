"""The entry: compose a study, train what is not finished yet, record it, print the comparison.

python -m studies.run +study=init_comparison
"""

import os
import re
import sys
from collections import Counter
from pathlib import Path

import hydra
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from studies import cost, data, design, limits, targets
from studies.record import EpochRecord, LayerRecord, Result, Started, Study, StudyError, Trial, listed

CONF = Path(__file__).parent.parent / "conf"
TRIAL = "studies.trial:run"
CHECK = "studies.trial:check"
NOT_OF_A_TRIAL = ("plan=", "executor", "tracking", "study.seeds=", "hydra.")


def main() -> int:
    """Run the command line; gives the exit code: 1 if a trial crashed, 2 for what the user can put right."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say what is wrong in one paragraph
    codes = []
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(lambda c: codes.append(job(c)))()
    except (StudyError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        print(f"error: {explained(error)}", file=sys.stderr)
        return 2
    return max(codes, default=0)


def job(composed) -> int:
    """One composed config: a study, or a study of one trial."""
    config = _resolved(composed)
    hydra_config = HydraConfig.get()
    overrides = [o for o in hydra_config.overrides.task if not o.startswith(NOT_OF_A_TRIAL)]
    choices = hydra_config.runtime.choices
    console = Console()
    study = design.read_study(config)
    trials = design.expand(study, config, choices, overrides, _compose, _settle, exact=_refers_to_itself(composed))
    seconds = _expected_seconds(trials)
    executor = targets.build(config["executor"], "executor", config["targets"]["allow"])

    from studies import tracking

    root = config["tracking"]["root"]
    if config["plan"]:
        _print_plan(study, trials, seconds, executor.workers, console)
        return 0
    tracking.check_writable(root)
    try:
        with FileLock(Path(root) / f".{study.name}.lock", timeout=0):
            return _execute(study, trials, seconds, executor, root, OmegaConf.to_yaml(composed), console)
    except Timeout:
        raise StudyError(
            f"another process runs {study.name} in {root}: wait for it, or name another store with tracking.root=FOLDER"
        ) from None


def _execute(study, trials, seconds, executor, root, config, console) -> int:
    from analysis import load

    known = load.finished_keys(study.name, root)
    pending = [trial for trial in trials if trial.key not in known]
    counts = f"{len(trials)} trials, {len(trials) - len(pending)} finished before, {len(pending)} to run"
    console.print(f"{study.name}: {study.question}\n{counts}", markup=False, highlight=False, soft_wrap=True)
    statuses: Counter = Counter()
    if pending:
        try:
            statuses = _train(study, trials, pending, seconds, executor, root, config, console)
        except KeyboardInterrupt:
            done = len(load.finished_keys(study.name, root) & {trial.key for trial in trials})
            console.print(
                f"\ninterrupted: {done} of {len(trials)} trials are kept; the same command goes on from there"
            )
            return 130
        finally:
            executor.close()
    _print_results(study, trials, root, console)
    return 1 if statuses["crashed"] else 0


def _train(study, trials, pending, seconds, executor, root, config, console) -> Counter:
    """Check every part of the pending trials in the workers, then train them and write what comes back."""
    from studies import progress, tracking
    from studies.executors import Task

    tasks = {
        t.key: Task(
            t.key, t.graph_key, t.config["engine"]["threads"], t, seconds[t.key] + cost.COMPILE / len(study.seeds)
        )
        for t in pending
    }
    executor.start(len(tasks), max(task.threads for task in tasks.values()))
    _check_parts(pending, executor)
    execution = tracking.Execution(root, study, trials, config)
    statuses: Counter = Counter()
    status = "KILLED"
    try:
        with progress.Display(study, pending, len(trials) - len(pending), console) as display:
            epochs, layers = {}, {}
            for task, record in executor.run(TRIAL, list(tasks.values())):
                trial = task.payload
                match record:
                    case Started():
                        epochs[trial.key], layers[trial.key] = [], []
                    case EpochRecord():
                        epochs[trial.key].append(record)
                        display.epoch(trial, record.epoch)
                    case LayerRecord():
                        layers[trial.key].append(record)
                    case Result():
                        execution.write(trial, epochs.pop(trial.key), layers.pop(trial.key), record)
                        statuses[record.status] += 1
                        display.ended(trial, record)
        status = "FAILED" if statuses["crashed"] else "FINISHED"
    finally:
        from analysis import compare

        table = compare.table(study.name, root, format="markdown") if status != "KILLED" else ""
        execution.close(status, table)
    return statuses


def _check_parts(pending: list[Trial], executor) -> None:
    """Have the workers build each different optimizer, initializer, model … once: what one refuses stops the study."""
    from studies.executors import Task

    tasks = {}
    for trial in pending:
        for group in ("initializer", "optimizer", "schedule", "regularizer", "clipping", "model"):
            names = (group, "data") if group == "model" else (group,)
            parts = {name: trial.config[name] for name in (*names, "targets")}
            key = design.content_key(parts)
            tasks[key] = Task(key, trial.graph_key, trial.config["engine"]["threads"], parts)
    refused = [record for _, record in executor.run(CHECK, list(tasks.values())) if isinstance(record, str | Result)]
    for record in refused:
        executor.close()
        raise StudyError(record if isinstance(record, str) else f"a part cannot be built: {record.error}")


def _print_plan(study: Study, trials, seconds, workers, console) -> None:
    graphs = list(dict.fromkeys(trial.graph_key for trial in trials))
    print(f"{study.name}: {study.question}")
    for trial in trials:
        print(f"  {trial.key}  graph {trial.graph_key[:8]}  {trial.label()} seed={trial.seed}")
    total = cost.total_seconds(list(seconds.values()), len(graphs), workers)
    print(f"{len(trials)} trials, {len(trials) // len(study.seeds)} arms, {len(graphs)} graphs: {listed(graphs)}")
    print(f"estimated time: about {total:.0f} s on {workers} worker{'s' * (workers > 1)}, if none is finished before")


def _print_results(study, trials, root, console) -> None:
    from analysis import estimates, load, tables
    from studies.tracking import store_uri

    frame = load.trials(study.name, root, [trial.key for trial in trials])
    by = list(study.factors)
    compared = estimates.comparison(frame, by, study.metric, study.baseline)
    print(f"\n{tables.comparison_table(compared, by, study.metric, study.baseline)}\n")
    where = "" if Path(root) == Path("mlruns") else f" --root {root}"
    print(f"results   {Path(root).resolve()}")
    print(f"tables    python -m analysis.compare {study.name}{where}")
    print(f"browse    mlflow ui --backend-store-uri {store_uri(root)}")


def _expected_seconds(trials: list[Trial]) -> dict[str, float]:
    sizes = {}
    expected = {}
    for trial in trials:
        node = trial.config["data"]
        size = sizes.setdefault(id(trial.config), None) or data.size(node)
        sizes[id(trial.config)] = size
        expected[trial.key] = cost.trial_seconds(trial.config, *size)
    return expected


def _settle(config: dict) -> dict:
    """A trial's config checked, its values in their types, its data identified by content."""
    targets.refuse_unlisted(config, config["targets"]["allow"])
    config = limits.settled(config)
    return config | {"data": config["data"] | {"content": data.content(config["data"])}}


def _compose(overrides: list[str]) -> dict:
    return _resolved(hydra.compose(config_name="config", overrides=overrides))


def _resolved(composed) -> dict:
    return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)


def _refers_to_itself(composed) -> bool:
    """Whether a value is taken from another by interpolation, so that a level may change more than its own key."""
    return bool(re.search(r"\$\{(?!oc\.env:)", OmegaConf.to_yaml(composed, resolve=False)))


def explained(error: Exception) -> str:
    """An error of Hydra or ours as one paragraph."""
    if isinstance(error, StudyError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = str(error)
    if match := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, option = match.groups()
        return f"{group}={option}: there is no such option; {group} has {listed(options(group))}"
    if match := re.search(r"full_key: (\S+)", text):
        return f"{_unknown_key(match.group(1))}"
    if "study" in text and "Could not override 'study'" in text:
        return f"a study is named with a plus: +study=NAME, where NAME is one of {listed(options('study'))}"
    return " ".join(line for line in lines if not line.startswith(("Config search path", "provider=")))


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _unknown_key(path: str) -> str:
    group = path.partition(".")[0]
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
    node = OmegaConf.load(CONF / "config.yaml")
    keys = [k for k in node if k not in ("defaults", "hydra")]
    if "." not in path:
        return (
            f"{path}: there is no such setting; there are the groups {listed(groups)} and the settings {listed(keys)}"
        )
    if group in groups and group != "study":
        takes = {
            name: [k for k in OmegaConf.load(CONF / group / f"{name}.yaml") if k != "_target_"]
            for name in options(group)
        }
        known = "; ".join(f"{name}: {listed(keys) or 'nothing'}" for name, keys in takes.items())
        return f"{path}: the chosen {group} has no such setting. Options and what they take: {known}"
    if group in keys:
        return f"{path}: there is no such setting; {group} has {listed(node[group])}"
    return f"{path}: there is no such setting; there are the groups {listed(groups)} and the settings {listed(keys)}"


if __name__ == "__main__":
    sys.exit(main())
