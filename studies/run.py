"""The entry: compose a study, train what is not finished yet, record it, print the comparison.

python -m studies.run +study=init_comparison
"""

import functools
import math
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from studies import address, terminal, waiting
from studies.command import ahead, checks, compose, driver, explain, job, plan, provenance, pulse, sweep
from studies.contract import Tag
from studies.factors import targets
from studies.masking import masked
from studies.record import StudyError, Trial, content_key, listed, plain
from studies.store import database

SIGNALLED = 128
"""Exit codes above it are a signal's: 130 Ctrl-C's."""

EXECUTORS: dict = {}
"""Those of this process's jobs, by their configs: jobs share workers."""

CLAIMS: dict[str, ahead.Ahead | None] = {}
"""The claims of a multirun whose jobs this process runs, by its id; None if they are something else."""


def main() -> int:
    """Run the command line; gives the exit code: 1 if a trial crashed, 2 for what the user can put right."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say what is wrong in one paragraph
    if not sys.flags.safe_path and {"", os.getcwd()}.isdisjoint(sys.path):
        sys.path.append(os.getcwd())  # where a user's own package is, whichever way the command was started
    with terminal.interruptible():
        try:
            sys.argv[1:] = compose.as_settings(sys.argv[1:])
            address.remember(sys.argv[1:])
            return _command(wants_traceback)
        except StudyError as error:
            return explain.refused(error, wants_traceback)
        except KeyboardInterrupt:
            terminal.say("interrupted: what had ended is kept; the same command goes on from there")
            return terminal.code()
        except BrokenPipeError:
            return terminal.unread()


def _command(wants_traceback: bool) -> int:
    """All jobs of the command line; gives the highest of their exit codes."""
    code = 1
    with sweep.begun(sys.argv[1:], wants_traceback) as jobs:
        try:
            with terminal.held():
                driver.foresee(sys.argv[1:])
            reading = pulse.beating(functools.partial(print, flush=True), "reading the command")
            with reading, compose.once(sys.argv[1:]):
                hydra.main(config_path=str(compose.CONF), config_name="config", version_base="1.3")(task)()
            sys.stdout.flush()
            code = 0
        except KeyboardInterrupt:
            code = terminal.code()
            raise
        except BrokenPipeError:  # of Hydra's help, say
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
            _end_sweep(jobs, outcomes, code, CLAIMS.pop(jobs.id, None))
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
    outcome, number = sweep.Outcome(overrides, swept), hydra_config.job.num if swept else 0
    try:
        outcome = _ended(composed, outcome, jobs, number)
    except BrokenPipeError:
        outcome = replace(outcome, code=terminal.unread())
    jobs.tell(number, outcome)
    return outcome.objective


def _ended(composed: DictConfig, outcome: sweep.Outcome, jobs: sweep.Sweep, number: int) -> sweep.Outcome:
    """How a job ended, which a board of claims has been told."""
    claims = _claims(jobs, number, outcome.overrides) if outcome.swept else None
    try:
        outcome = _job(composed, outcome, jobs if outcome.swept else None, claims, number)
    except BrokenPipeError:
        raise
    except Exception as error:  # here, since Hydra prints a line of its own about one that passes through it
        if terminal.received():  # which it was made of
            raise KeyboardInterrupt from None
        outcome = _refused(error, outcome, jobs, claims)
    if claims and not composed.plan and outcome.code <= SIGNALLED:
        claims.board.ended(outcome)
    return outcome


def _claims(jobs: sweep.Sweep, number: int, overrides: list[str]) -> ahead.Ahead | None:
    """The claims of a multirun, if it has others than them in none of its jobs, and this process runs them in turn."""
    if jobs.id not in CLAIMS:
        words = compose.jobs(jobs.command)
        known = number < len(words) and words[number] == overrides
        CLAIMS[jobs.id] = ahead.read(words, _Console()) if known else None
    return CLAIMS[jobs.id]


def _refused(error: Exception, outcome: sweep.Outcome, jobs: sweep.Sweep, claims) -> sweep.Outcome:
    """How a job ended that an error has ended; among claims whatever it is, since the others are to go on."""
    if not claims:
        return replace(outcome, code=explain.refused(error, jobs.wants_traceback))
    said = explain.paragraph(error)
    if jobs.wants_traceback or not said:
        sys.stderr.write(masked("".join(traceback.format_exception(error))))
    return replace(outcome, code=2 if said else 1, error=said or f"{type(error).__name__}: {error}".splitlines()[0])


def _end_sweep(jobs: sweep.Sweep, outcomes: list[sweep.Outcome], code: int, claims: ahead.Ahead | None) -> None:
    """Print how the jobs of a multirun compare, or what became of its claims, and end their runs in the stores."""
    if claims:
        claims.board.close()
        print(plain(f"\n{claims.summary(outcomes, code > SIGNALLED)}\n"))
    elif not any(outcome.swept and outcome.study for outcome in outcomes):
        return
    from analysis.show import tables
    from analysis.show.width import width_here
    from studies.store import writer

    rows = [
        dict(override.lstrip("+").partition("=")[::2] for override in outcome.overrides) | asdict(outcome)
        for outcome in outcomes
    ]
    if len(rows) > 1 and not claims:
        print(f"\n{tables.sweep_table(rows, width=width_here())}\n")
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


def _job(
    composed: DictConfig,
    outcome: sweep.Outcome,
    jobs: sweep.Sweep | None,
    claims: ahead.Ahead | None,
    number: int,
) -> sweep.Outcome:
    """One composed config: a study, or a study of one trial.

    Args:
        outcome: what is known before it has run.
        jobs: those of the multirun that it belongs to; those in one process share their workers.
        claims: these jobs, if they are claims, of which this is the one with that number.
    """
    pulse.doing("reading the study")
    if claims:
        pulse.doing(claims.board.line)
        claims.board.begin(number)
    if composed.plan == "json":
        pulse.silence()
    ready = claims and claims.ready[number]
    if not ready:
        found = compose.profiled(composed, outcome.overrides)
        ready = job.read(*found, HydraConfig.get().runtime.choices, outcome.overrides)
    study, trials, config, claim = ready.study, ready.trials, ready.config, ready.study.claim
    outcome = replace(outcome, trials=ready.identity, quote=claim.quote if claim else "")
    if claims and (before := claims.judged[number]):
        return replace(outcome, verdict=before.tags[Tag.VERDICT], trained=False)
    for remark in ready.remarks:
        heard = sys.stderr if config["plan"] == "json" else sys.stdout
        print(f"note: {f'{study.name}: ' * bool(claims)}{plain(remark)}", file=heard, flush=True)
    checks.check_sizes(trials)
    checks.say_notes(trials)
    executor = _executor(config, trials)
    root = address.tracked(config["tracking"])
    if config["plan"]:
        if config["plan"] == "json" and jobs:
            raise StudyError("plan=json: expected one job: leave out -m, or take plan=true")
        if claims:
            claims.plan(number, executor)
        else:
            plan.show(study, trials, executor, root, config)
        return outcome
    _check(root)
    with terminal.held():
        executor.start(driver.TRIAL, 1, trials[0].config["engine"]["threads"])
    if claims:
        claims.expect(executor)
    board, console = claims.board if claims else None, _Console()
    with _store(root, study.name, jobs.id if jobs else "", config["tracking"]["patience"], console):
        drive = driver.Driver(
            *(study, executor, root, ready.text, console, jobs, ready.card, board, config["force"], ready.tags),
            models=config["tracking"].get("models", "none"),
            checkpoints=config["checkpoints"],
        )
        code, summary = drive.drive(trials, ready.expand)
    verdict = drive.verdict[0].verdict if drive.verdict else ""
    summary |= {"study": study.name, "root": str(root), "metric": study.metric, "verdict": verdict}
    return replace(outcome, code=code, **summary)


def _executor(config: dict, trials: list[Trial]) -> Any:
    """What runs a job's trials: one for all jobs of this process that ask for the same."""
    wanted = content_key(config["executor"])
    if wanted not in EXECUTORS:
        EXECUTORS[wanted] = targets.build(config["executor"], "executor", config["targets"]["allow"])
    if bring := getattr(EXECUTORS[wanted], "bring", None):  # what has workers elsewhere
        bring(provenance.places({name for trial in trials for name in trial.config["targets"]["source"]}))
    return EXECUTORS[wanted]


@contextmanager
def _store(root: Path | address.Address, study: str, sweep: str, patience: float, console: Console) -> Iterator[None]:
    """Have a study in its store for this process alone; in here a store that is away is waited for.

    Raises:
        StudyError: another process has it.
    """
    from analysis.read import server

    tell = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with database.claimed(root, study, sweep, tell), waiting.patient(patience, tell), server.kept():
        yield


def _check(root: str | Path) -> None:
    """Refuse a store that cannot be written, before anything trains.

    Raises:
        StudyError: it cannot be.
    """
    database.check_writable(root)
    if address.is_server(root):
        from analysis import load

        load.studies(root)
    elif not address.is_address(root) and os.environ.get("MLFLOW_TRACKING_URI"):
        print("note: MLFLOW_TRACKING_URI is set, and is not used here: tracking.uri=ADDRESS names a server", flush=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process here; Ctrl-C ends a reader such as tee too, while what runs is finished."""
        if not terminal.asked():
            raise BrokenPipeError
        terminal.unread()


if __name__ == "__main__":
    from studies import run  # under its name, by which launchers send `task` to other processes

    sys.exit(run.main())
