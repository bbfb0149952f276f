"""What a study would train, and how long that would take: `plan=true`."""

import json
import sys
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from studies import address
from studies.command import checks, cost
from studies.design import arms, search
from studies.design.controls import Expand, controls
from studies.execute.task import Executor
from studies.record import Study, Trial, listed, numbered, plain, short

COUNTED = 12
"""Of models that are not known, so many are built for a plan: the others are taken for the mean."""


def extent(study: Study, trials: list[Trial], expand: Expand, workers: int) -> cost.Extent:
    """What a study comes to at most, the trials of its claim's controls among it."""
    return cost.extent(study, trials, sum(map(len, controls(study, expand, None).values())), workers)


def count(trials: list[Trial], executor: Executor) -> None:
    """Have workers build some of the models that none has built yet, to count what they cost; computed trials are
    checked.
    """
    checks.checked([t for t in trials if t.computed] or cost.uncounted(trials)[:COUNTED], executor)


@dataclass(frozen=True)
class Plan:
    """What a study would train, and what of it is in the store.

    Attributes:
        trials: all of them, or those that tune.
        finished: the keys of those that need not run.
        seconds: about how long each trial takes, by key.
        workers: processes that there would be.
        finals: trials that follow those that tune.
        extended: trials that tune at most besides, if ranges are extended.
        force: whether what is finished is run again.
    """

    study: Study
    root: str
    trials: list[Trial]
    finished: Set[str]
    seconds: dict[str, float]
    workers: int
    finals: int = 0
    extended: int = 0
    force: bool = False

    @property
    def left(self) -> list[Trial]:
        """The trials that would run now."""
        return [trial for trial in self.trials if self.force or trial.key not in self.finished]

    @property
    def graphs(self) -> list[str]:
        """The graphs of those that would run, by their keys, which are compiled once each."""
        return list(dict.fromkeys(trial.graph_key for trial in self.left if not trial.computed))

    @property
    def total(self) -> float:
        """Seconds of all that is left, those that follow tuning among it."""
        seconds = [self.seconds[trial.key] for trial in self.left]
        seconds += [fmean(self.seconds.values())] * self.finals
        return cost.total_seconds(seconds, len(self.graphs), self.workers)

    def summary(self) -> list[str]:
        """How much it is, what of it is finished, and how long the rest takes, in lines."""
        study, count, several = self.study, len(self.trials), len(arms.of(self.study))
        graphs = list(dict.fromkeys(trial.graph_key for trial in self.trials if not trial.computed))
        compiled = f", {numbered(len(graphs), 'graph')}" * bool(graphs)
        if study.nuisance:
            each = Counter(json.dumps(trial.arm) for trial in self.trials).values()
            fewest, most = (number // len(study.tuning_seeds) for number in (min(each), max(each)))
            tried = "draw" if study.draws else "combination"
            lines = [
                f"{count} tuning trials, {several} arms at {f'{fewest} to ' * (fewest < most)}{most} {tried}s and "
                f"{len(study.tuning_seeds)} seeds{compiled}",
                *[f"at most {self.extended} more, if ranges are extended; the time below is without them"]
                * (self.extended > 0),
                f"then {self.finals} final trials, each arm at its best {tried} and {len(study.seeds)} seeds",
            ]
        else:
            lines = [f"{numbered(count, 'trial')}, {numbered(several, 'arm')}{compiled}"]
        if study.claim:
            looks = f", looked at after {listed(study.looks)} seeds" * bool(study.looks)
            lines.append(f"a claim{looks}, with the trials of its controls besides; profile {study.claim.profile}")
        again = " again" * (self.force and bool(self.finished))
        lines.append(f"{len(self.finished)} finished in {self.root}, {len(self.left)} to run{again}")
        if self.left or self.finals:
            lines.append(f"estimated time: about {self.total:.0f} s on {numbered(self.workers, 'worker')}")
        return lines

    def as_json(self) -> str:
        """The same for a program."""
        rows = [
            {
                "key": trial.key,
                "graph": trial.graph_key,
                "arm": trial.arm,
                "nuisance": trial.nuisance,
                "seed": trial.seed,
                "role": trial.role,
                "finished": trial.key in self.finished,
                "seconds": round(self.seconds[trial.key], 3),
            }
            for trial in self.trials
        ]
        whole = {
            "study": self.study.name,
            "question": self.study.question,
            "root": self.root,
            "arms": len(arms.of(self.study)),
            "seeds": self.study.seeds,
            "finished": len(self.finished),
            "to_run": len(self.left),
            "final_trials": self.finals,
            "extended_at_most": self.extended,
            "seconds": round(self.total, 1) if self.left or self.finals else 0.0,
            "workers": self.workers,
            "trials": rows,
        }
        return json.dumps(whole, indent=2, ensure_ascii=False)


def show(study: Study, trials: list[Trial], executor: Executor, root: str | Path, config: dict) -> None:
    """Print what would be trained: how much that is, what of it is finished, how long the rest takes, each trial.

    Args:
        trials: all of them, or those that tune.
        config: with the user's name of the store, whether what is finished is run again, and `plan`: true, or json.
    """
    from analysis import load

    named, form = str(root) if address.is_address(root) else config["tracking"]["root"], config["plan"]
    if form != "json":
        print(plain(f"{study.name}: {study.question}"), flush=True)
    if new := cost.uncounted([trial for trial in trials if not trial.computed])[:COUNTED]:
        say = f"{numbered(len(new), 'model')} never built before: built now, to count the cost"
        print(say, file=sys.stderr if form == "json" else sys.stdout, flush=True)
    count(trials, executor)
    finals = more = 0
    if study.nuisance:
        finals = len(arms.of(study)) * len(study.seeds)
        tuned = {json.dumps(trial.arm) for trial in trials if trial.nuisance}
        more = search.most(study) * len(tuned) * len(study.tuning_seeds)
    finished = load.finished_keys(study.name, root) & {trial.key for trial in trials}
    workers = min(executor.workers, len(trials))
    made = Plan(study, named, trials, finished, cost.expected_seconds(trials), workers, finals, more, config["force"])
    if form == "json":
        print(made.as_json())
        return
    for line in (*made.summary(), *_points(study)):
        print(plain(f"  {line}"))
    print()
    for trial in trials:
        done = "  finished" * (trial.key in finished)
        print(f"  {trial.key}  graph {trial.graph_key[:8]}  {study.labelled(trial)} seed={trial.seed}{done}")


def _points(study: Study) -> list[str]:
    """Lines of what factors are drawn from, and of the points that were drawn, by their numbers."""
    from tabulate import tabulate

    if not study.sampled:
        return []
    columns = {short(factor, study.factors): study.factors[factor] for factor in study.sampled}
    rows = [(number, *map(str, row)) for number, row in enumerate(zip(*columns.values(), strict=True), 1)]
    table = tabulate(rows, ["point", *columns], disable_numparse=True)
    return [*(f"{factor}: {space}" for factor, space in study.sampled.items()), *table.splitlines()]
