"""What the networks of a study come to on a device: their parameters, operations, bytes, times and accuracy.

Trained weights are not stored. A trial's config is, and the same trial gives the same numbers to the bit, so that it is
trained once more here, and its network taken.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studies.edge.counts import Counts, counts
from studies.edge.export import CALIBRATION, KINDS, File, Runner, exported, interpreters
from studies.edge.latency import interleaved, percentiles
from studies.edge.narrow import OWN, narrowed
from studies.edge.shrink import shrunk
from studies.factors import limits
from studies.record import Result, StudyError, Trial, arm_label, content_key
from studies.train import trial as training
from studies.train.parts import Parts, build_model, dataset_of

SECONDS = 60.0
"""That all calls of all models may take together."""

DENSE = 0.95
"""A network with more of its parameters left is not compared with a narrow one."""


@dataclass(frozen=True)
class Network:
    """One network of a trial, exported.

    Attributes:
        key: of the trial that was asked for, if this is its network as it was trained; else empty.
        levels: those of the trial's factors that it has; a dense reference has no pruning.
        seed: the trial's.
        name: `dense`, `pruned`, `channels removed` or `narrow`.
        reference: of the dense network of the same model, data and training, which it is compared with.
        counts: its parameters and operations.
        result: of the training that its weights are from.
        files: by kind; a text in place of a file that cannot be made says why.
        accuracies: of the files, by kind, on the test set.
        image: one of it, as the model takes it.
        notes: what is to be said of it.
    """

    key: str
    levels: dict
    seed: int
    name: str
    reference: str
    counts: Counts
    result: Result
    files: dict[str, File | str]
    accuracies: dict[str, float]
    image: np.ndarray
    notes: tuple[str, ...] = ()


def footprints(asked: list[dict], folder: str | None, say: Callable[[str], None]) -> list[dict]:
    """A record for each network and kind of file of some trials; all times are taken in turns, at the end.

    Args:
        asked: of each trial its `key`, `seed`, `arm` (factor -> level) and whole `config`.
        folder: where the files are to be kept; None for nowhere.
        say: is told what is being done, a line each.

    Raises:
        StudyError: a part of a trial is refused, or there is no interpreter.
    """
    interpreters()  # before anything is trained
    networks = list(_networks(asked, say))
    made = [(net, kind, file) for net in networks for kind, file in net.files.items()]
    there = [(net, file) for net, _, file in made if isinstance(file, File)]
    say(f"timing {len(there)} files in turns")
    runners, inputs = [Runner(file) for _, file in there], [net.image for net, _ in there]
    pairs = percentiles(interleaved(runners, inputs, SECONDS)) if there else np.empty((0, 2))
    times = {id(file): pair for (_, file), pair in zip(there, pairs, strict=True)}
    if folder is not None:
        _keep(made, Path(folder))
    return [_record(net, kind, file, times.get(id(file))) for net, kind, file in made]


def _networks(asked: list[dict], say) -> Iterator[Network]:
    """Every trial's networks, the dense and the narrow ones that several share once."""
    known: set[str] = set()
    for place, each in enumerate(asked, start=1):
        say(f"training {place} of {len(asked)} again: {arm_label(each['arm'])} seed={each['seed']}")
        trial = _trial(each["config"], each["seed"], each["arm"])
        dense = _trial(_unpruned(each["config"]), each["seed"], _without_pruning(each["arm"]))
        parts, result = _trained(trial)
        name = "dense" if trial.key == dense.key else "pruned"
        own = list(_of_trial(each["key"], parts, result, trial, name, dense.key))
        if name == "dense":
            known.add(dense.key)
        elif dense.key not in known and not any(_key_of(other) == dense.key for other in asked):
            known.add(dense.key)
            say("training the dense network that it was pruned from")
            yield from _of_trial("", *_trained(dense), dense, "dense", dense.key)
        yield from own
        yield from _narrow(trial, dense, own[0].counts, known, say)


def _of_trial(key, parts, result, trial, name, reference) -> Iterator[Network]:
    """A trained network, and the one without its dead units."""
    model = parts.engine.model
    try:
        small, removed = shrunk(model)
        notes: tuple[str, ...] = ()
    except StudyError as error:
        small, removed = model, 0
        notes = (str(error),) if name == "pruned" else ()
    yield _network(key, parts, model, result, trial, name, reference, notes)
    if removed:
        notes = (f"{removed} units that do nothing are taken out",)
        yield _network("", parts, small, result, trial, "channels removed", reference, notes)


def _narrow(trial, dense, left: Counts, known: set[str], say) -> Iterator[Network]:
    """A dense network of about as many parameters as are left, trained as the dense one is."""
    if left.kept > DENSE * left.parameters:
        return
    config, allow = dense.config, dense.config["targets"]["allow"]
    dataset, _ = dataset_of(config["data"], allow)
    try:
        node = narrowed(config["model"], left.kept, lambda node: build_model(node, dataset, [*allow, OWN]), list(allow))
    except StudyError as error:
        say(f"no narrow network: {error}")
        return
    narrow = _trial(
        config | {"model": node, "targets": config["targets"] | {"allow": [*allow, OWN]}}, trial.seed, trial.arm
    )
    if narrow.key not in known:
        known.add(narrow.key)
        say(f"training a narrow network of about {left.kept:,} parameters")
        parts, result = _trained(narrow)
        yield _network("", parts, parts.engine.model, result, narrow, "narrow", dense.key)


def _network(key, parts, model, result, trial, name, reference, notes=()) -> Network:
    """A network with its files, which are made and scored at once: the next trial may take the same model's weights."""
    split = parts.examples.split
    files: dict[str, File | str] = {}
    accuracies, images, labels = {}, _images(parts, split.test), parts.data[1].numpy()[split.test]
    for kind in KINDS:
        calibration = (
            _images(parts, split.train[:: max(1, len(split.train) // CALIBRATION)]) if kind == "int8" else None
        )
        try:
            files[kind] = file = exported(model, calibration)
            accuracies[kind] = Runner(file).accuracy(images, labels)
        except StudyError as error:
            files[kind] = str(error)
    kept = files, accuracies, images[0]
    if result.status != "finished":
        notes = (*notes, f"its training has not finished: {result.status}")
    return Network(key, trial.arm, trial.seed, name, reference, counts(model), result, *kept, notes)


def _images(parts: Parts, places: np.ndarray) -> np.ndarray:
    """Images as the model takes them, `(images, …)` float32."""
    _, _, scale, shift = parts.data
    return parts.examples.dataset.x[places].astype(np.float32) * scale.numpy() + shift.numpy()


def _trained(trial: Trial) -> tuple[Parts, Result]:
    parts = Parts(trial)
    [result] = [record for record in training.run(trial, parts) if isinstance(record, Result)]
    return parts, result


def _trial(config: dict, seed: int, arm: dict) -> Trial:
    key = content_key({"config": limits.identity(config), "seed": seed})
    return Trial(key, "", "scientific", arm, seed, config, (), content_key(limits.graph(config)))


def _key_of(each: dict) -> str:
    return _trial(each["config"], each["seed"], each["arm"]).key


def _unpruned(config: dict) -> dict:
    return config | {"pruning": {}}


def _without_pruning(arm: dict) -> dict:
    return {factor: level for factor, level in arm.items() if factor.partition(".")[0] != "pruning"}


def _record(net: Network, kind: str, file: File | str, times: np.ndarray | None) -> dict[str, Any]:
    """What is found of one file, by name; times in seconds, None for what there is not."""
    counted, notes = net.counts, list(net.notes)
    found: dict[str, Any] = {
        "key": net.key,
        "levels": net.levels,
        "seed": net.seed,
        "network": net.name,
        "reference": net.reference,
        "file": kind,
        "parameters": counted.parameters,
        "kept": counted.kept,
        "flops": counted.flops,
        "effective_flops": counted.effective,
        "bytes": None,
        "compressed": None,
        "p50": None,
        "p95": None,
        "accuracy": net.accuracies.get(kind),
        "model_accuracy": net.result.test_accuracy,
        "status": net.result.status,
        "val_loss": net.result.val_loss,
        "val_accuracy": net.result.val_accuracy,
        "in_floats": [],
        "notes": notes,
    }
    if isinstance(file, str) or times is None:
        notes.append(str(file))
        return found
    p50, p95 = times.tolist()
    sizes = {"bytes": len(file.content), "compressed": file.compressed}
    return found | sizes | {"p50": p50, "p95": p95, "in_floats": list(file.fallen)}


def _keep(made, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for net, kind, file in made:
            if isinstance(file, File):
                words = [arm_label(net.levels, whole=True), f"seed={net.seed}", net.name, kind]
                name = "-".join(words).replace(" ", "-").replace(os.sep, "_")
                (folder / f"{name}.tflite").write_bytes(file.content)
    except (OSError, ValueError) as error:  # the latter of a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"--to {folder}: cannot be written ({reason}): name another folder") from error
