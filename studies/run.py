"""The entry: compose a study, train what is not finished yet, record it, print the comparison.

python -m studies.run +study=init_comparison
"""

import math
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from studies import contract, terminal
from studies.command import compose, driver, explain, sweep
from studies.design import grid
from studies.design.study import read_study
from studies.factors import limits, targets
from studies.record import StudyError, content_key, listed
from studies.store import database

SIGNALLED = 128
"""Exit codes above it are a signal's: 130 Ctrl-C's."""

EXECUTORS: dict = {}
"""Those of this process's jobs, by their configs: jobs share workers."""


UNCLAIMED = ["claim=null", "study.looks=[]"]
"""What composes a trial of a claim's study alone, which decides nothing."""

NOT_OF_A_TRIAL = ("plan=", "executor", "tracking", "study.seeds=", "study.looks=", "seed=", "hydra.")


def main() -> int:
    """Run the command line; gives the exit code: 1 if a trial crashed, 2 for what the user can put right."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say what is wrong in one paragraph
    with terminal.interruptible():
        try:
            return _command(wants_traceback)
        except KeyboardInterrupt:
            terminal.say("interrupted: what had ended is kept; the same command goes on from there")
            return terminal.code()
        except BrokenPipeError:
            return _unheard()


def _unheard() -> int:
    """The exit code where the reader, such as head, has seen enough; what is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SIGNALLED + signal.SIGPIPE


def _command(wants_traceback: bool) -> int:
    """All jobs of the command line; gives the highest of their exit codes."""
    code = 1
    with sweep.begun(sys.argv[1:], wants_traceback) as jobs:
        try:
            with terminal.held():
                driver.foresee(sys.argv[1:])
            hydra.main(config_path=str(compose.CONF), config_name="config", version_base="1.3")(task)()
            sys.stdout.flush()
            code = 0
        except KeyboardInterrupt:
            code = terminal.code()
            raise
        except Exception as error:
            if terminal.received():  # which it was made of
                raise KeyboardInterrupt from None
            code = explain.refused(error, wants_traceback)
        finally:
            terminal.settle()
            for executor in EXECUTORS.values():
                executor.close()
            EXECUTORS.clear()
            driver.forget()
            outcomes = jobs.outcomes()
            code = max([code, *(outcome.code for outcome in outcomes)])
            _end_sweep(jobs, outcomes, code)
    return code


def task(composed: DictConfig) -> float:
    """What Hydra calls for each job, in this process or in another.

    Returns:
        what sweepers optimize: the mean over its trials of the study's metric on validation data; NaN if it has
        none, infinitely bad if nothing finished.
    """
    jobs, hydra_config = sweep.current(), HydraConfig.get()
    if any(outcome.code > SIGNALLED for outcome in jobs.outcomes()):
        return math.nan
    swept = hydra_config.mode == RunMode.MULTIRUN
    # As they were written: an interpolation in one is for the config that it composes.
    overrides = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    outcome = sweep.Outcome(overrides, swept)
    try:
        outcome = job(composed, outcome, jobs if swept else None)
    except BrokenPipeError:
        outcome = replace(outcome, code=_unheard())
    except Exception as error:  # here, since Hydra prints a line of its own about one that passes through it
        if terminal.received():  # which it was made of
            raise KeyboardInterrupt from None
        outcome = replace(outcome, code=explain.refused(error, jobs.wants_traceback))
    jobs.tell(hydra_config.job.num if swept else 0, outcome)
    return outcome.objective


def _end_sweep(jobs: sweep.Sweep, outcomes: list[sweep.Outcome], code: int) -> None:
    """Print how the jobs of a multirun compare, and end their runs in the stores."""
    if not any(outcome.swept and outcome.seeds for outcome in outcomes):
        return
    from analysis.show import tables
    from studies.store import writer

    rows = [
        dict(override.lstrip("+").partition("=")[::2] for override in outcome.overrides) | asdict(outcome)
        for outcome in outcomes
    ]
    if len(rows) > 1:
        print(f"\n{tables.sweep_table(rows)}\n")
    for same in _alike(outcomes):
        print(f"note: the jobs {same} have the same trials, which read nothing of what sets those jobs apart")
    status = "KILLED" if code > SIGNALLED else "FAILED" if code else "FINISHED"
    for root, study in dict.fromkeys((o.root, o.study) for o in outcomes if o.study):
        writer.end_sweep(root, study, jobs.id, status, tables.sweep_table(rows, format="markdown"))


def _alike(outcomes: list[sweep.Outcome]) -> list[str]:
    """The numbers of jobs that come to the same trials, a text for each such group."""
    groups: dict[str, list[int]] = {}
    for number, outcome in enumerate(outcomes):
        if outcome.trials:
            groups.setdefault(outcome.trials, []).append(number)
    return [listed(numbers) for numbers in groups.values() if len(numbers) > 1]


def job(composed: DictConfig, outcome: sweep.Outcome, jobs: sweep.Sweep | None) -> sweep.Outcome:
    """One composed config: a study, or a study of one trial.

    Args:
        outcome: what is known before it has run.
        jobs: those of the multirun that it belongs to; those in one process share their workers.
    """
    composed, set_by_profile = compose.profiled(composed, outcome.overrides)
    config = compose.resolved(composed)
    overrides = [o for o in (*outcome.overrides, *set_by_profile) if not o.startswith(NOT_OF_A_TRIAL)]
    overrides += UNCLAIMED if config.get("claim") else []
    overridden = {override.lstrip("+~").partition("=")[0] for override in outcome.overrides}
    remarks = compose.merged(outcome.overrides, config)
    choices = HydraConfig.get().runtime.choices
    if (named := choices.get("study")) and compose.body("study", named) == {}:
        raise StudyError(
            f"+study={named}: its file is empty: expected a study, such as {compose.CONF}/study/init_comparison.yaml"
        )
    config |= limits.settled({name: config[name] for name in ("seed", "plan") if name in config})
    study = read_study(config, overridden, remarks.append)
    composed_by = compose.composer(config, overrides, choices)
    exact = compose.refers_to_itself(composed)

    def expand(part, chosen=None, points=None):
        return grid.expand(part, config, choices, overrides, composed_by, compose.settle, exact, chosen, points)

    trials = expand(study)
    remarks += grid.remarks(study, trials, limits.drawn)
    if (workers := config["executor"].get("workers") or 0) > len(trials):
        remarks.append(f"executor.workers={workers}: {len(trials)} are started, one a trial")
    for remark in remarks:
        print(f"note: {remark}", flush=True)
    outcome = replace(outcome, trials=content_key([trial.key for trial in trials]))
    driver.check_sizes(trials)
    driver.say_notes(trials)
    wanted = content_key(config["executor"])
    if wanted not in EXECUTORS:
        EXECUTORS[wanted] = targets.build(config["executor"], "executor", config["targets"]["allow"])
    executor = EXECUTORS[wanted]

    root = _root(config["tracking"]["root"])
    if config["plan"]:
        driver.plan(study, trials, executor)
        return outcome
    database.check_writable(root)
    with terminal.held():
        executor.start(driver.TRIAL, 1, trials[0].config["engine"]["threads"])
    with database.claimed(root, study.name, jobs.id if jobs else ""):
        profile = study.claim.profile if study.claim else ""
        card = compose.card_tags(choices.get("study"), profile, outcome.overrides) if study.claim else {}
        drive = driver.Driver(study, executor, root, OmegaConf.to_yaml(composed), _Console(), jobs, card)
        code, summary = drive.drive(trials, expand)
    return replace(outcome, code=code, study=study.name, root=str(root), metric=study.metric, **summary)


def _root(named: str) -> Path:
    try:
        return contract.folder(named)
    except StudyError as error:
        raise StudyError(f"tracking.root={error}") from error


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process here."""
        raise BrokenPipeError


if __name__ == "__main__":
    from studies import run  # under its name, by which launchers send `task` to other processes

    sys.exit(run.main())
