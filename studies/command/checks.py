"""What is refused, or said, of a study's trials before any of them trains."""

import math
import sys
from collections.abc import Sequence

from studies.command import cost
from studies.execute.task import Executor, Reading, Task
from studies.factors import data, limits
from studies.record import Result, StudyError, Trial, Work, content_key, plain, shown

CHECK = "studies.train.parts:check"
COMPUTED_CHECK = "studies.compute.trial:check"


def say_notes(trials: list[Trial]) -> None:
    """Print what is to be said of the trials' data, each line once.

    Raises:
        StudyError: its data cannot be used.
    """
    nodes = {content_key(node): node for trial in trials if (node := trial.config.get("data"))}
    for note in dict.fromkeys(note for node in nodes.values() for note in data.notes(node)):
        print("note:", plain(note), file=sys.stderr)


def check_sizes(trials: list[Trial]) -> None:
    """See that the data are there, have as many examples as a batch, and as many batches as an update takes.

    Raises:
        StudyError: they cannot be used, or there are too few of them.
    """
    sizes = {}
    for trial in (trial for trial in trials if not trial.computed):
        node, batch = trial.config["data"], trial.config["training"]["batch_size"]
        if (key := content_key(node)) not in sizes:
            sizes[key] = data.size(node)[0] if data.is_known(node) else math.inf
        if batch > sizes[key]:
            raise StudyError(
                f"training.batch_size={batch}: expected at most {sizes[key]}, the number of training examples"
            )
        weights, classes = trial.config["training"].get("class_weight"), data.classes(node)
        if isinstance(weights, list) and classes not in (None, len(weights)):
            raise StudyError(
                f"training.class_weight={shown(weights)}: expected {classes} numbers, one for each class of the data"
            )
        accumulated = trial.config["optimizer"].get("gradient_accumulation_steps") or 1
        batches = sizes[key] // batch * trial.config["training"]["epochs"]
        if accumulated > batches:
            raise StudyError(
                f"optimizer.gradient_accumulation_steps={accumulated}: expected at most {batches:.0f}, the batches of "
                f"all epochs; no update would be made"
            )


def reading(node: dict | None) -> Reading | None:
    """What workers elsewhere are sent of a data node: its dataset, if that is in files."""
    if node is None or not data.is_of_files(node):
        return None
    return Reading(content_key(data.source(node)), "studies.factors.data:given", "studies.factors.data:take", node)


def checked(trials: list[Trial], executor: Executor, ended: Sequence[Trial] = ()) -> None:
    """Have workers build each different part of the trials, or pair of parts, once, and keep what models cost.

    Args:
        ended: trials of the same study whose parts were built before: a study that goes on does so at once.

    Raises:
        StudyError: a part is refused.
    """
    tasks, function = {}, COMPUTED_CHECK if trials and trials[0].computed else CHECK
    for trial in trials:
        for parts in limits.checks(trial.config):
            key = content_key(parts)
            # One worker draws all initializers for a model, which it builds once.
            group = content_key([parts[name] for name in ("model", "data") if name in parts])
            threads, reads = trial.config["engine"]["threads"], reading(parts.get("data"))
            tasks[key] = Task(key, group, threads, parts, reads=reads)
    for trial in ended:
        if not tasks:
            return
        for parts in limits.checks(trial.config):
            tasks.pop(content_key(parts), None)
    for task, record in list(executor.run(function, list(tasks.values()))):
        match record:
            case Work():
                cost.keep(task.payload, record)
            case str():
                raise StudyError(record)
            case Result():
                reason = record.error.partition("\n")[0]
                raise StudyError(
                    f"a part cannot be built: {reason}. HYDRA_FULL_ERROR=1 before the command shows the whole traceback"
                ) from Exception(record.error)
