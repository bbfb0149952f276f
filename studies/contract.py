"""What the writer and the readers of a store agree on: columns, tags, where it is, which experiments are ours."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

from studies.record import METRICS, Result, StudyError, shown

CONF = next(
    (folder for folder in (Path(__file__).parent / "conf", Path(__file__).parent.parent / "conf") if folder.is_dir()),
    Path(__file__).parent / "conf",
)
"""The configs that ship: in this package where installed, beside it in a checkout. Workers elsewhere need none."""

SCHEMAS = ("dc11669786a5",)
"""The versions of MLflow's database whose tables are known; others are gone through MLflow's client."""

EPOCH_COLUMNS = (
    "key",
    "epoch",
    "examples",
    "learning_rate",
    "running_loss",
    "running_accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "train_loss",
    "train_accuracy",
    "ema_val_loss",
    "ema_val_accuracy",
    "clipped",
    "sharpness",
    "noise_scale",
    "jacobian_max",
    "jacobian_median",
    "jacobian_min",
    "activation_slope",
    "gradient_slope",
    "sparsity",
    "parameters_kept",
    "update_ratio_max",
)

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

SPARSITY_THRESHOLDS = ("0", "1e-4", "1e-3", "1e-2")

WEIGHT_STATISTICS = (
    "mean",
    "sd",
    "min",
    "max",
    "l1",
    "l2",
    "max_norm",
    "skew",
    "kurtosis",
    *(f"q{round(100 * q):02d}" for q in QUANTILES),
    *(f"sparsity_{t}" for t in SPARSITY_THRESHOLDS),
    "distance",
    "cosine_distance",
)
"""Of a tensor's entries alone."""

STEP_STATISTICS = ("gradient_norm", "update_norm", "update_ratio")
"""Of an epoch's steps; the gradient's also of a layer's outputs on the probe batch."""

SPECTRAL_STATISTICS = ("spectral_norm", "stable_rank", "effective_rank", "condition_number", "spectrum_alpha")
"""Of kernels as matrices."""

OUTPUT_STATISTICS = ("saturated", "dead")
"""Of a layer's outputs on the probe batch, the rows with the tensor `output`."""

STATISTICS = (*WEIGHT_STATISTICS, *STEP_STATISTICS, *SPECTRAL_STATISTICS, *OUTPUT_STATISTICS)
"""The numbers of the layers frame after `key epoch layer tensor`; NaN where one was not observed."""

LAYER_COLUMNS = ("key", "epoch", "layer", "tensor", *STATISTICS, "warning")
"""All of its columns; a warning is a text, empty for none."""

DENSITY_CELLS = 64
DENSITY_COLUMNS = ("key", "epoch", "layer", "tensor", "low", "high", "counts")
"""Of the densities frame: how many entries of a tensor lie in each of so many equal cells from `low` to `high`."""

CONFUSION_COLUMNS = ("key", "set", "class", "predicted", "count", "class_name", "predicted_name")
"""Of the confusions frame: how many examples of a class, of the set `val` or `test`, are taken for which; the names are
those of an image folder's classes, else empty."""

MODEL = "model.keras"
"""A trial's trained model, among its files, where it is kept."""

CIRCUMSTANCES = ("version.tensorflow", "version.keras", "version.numpy", "version.pillow", "processor", "device")
"""Tags of a trial that name what may change its numbers and is no part of its key, or none that others can have."""

TRIAL_COLUMNS = tuple(
    dict.fromkeys(
        (
            *("key", "study", "role", "status", "seed"),
            *METRICS,
            *(f.name for f in fields(Result)),
            *CIRCUMSTANCES,
            *("error", "warning", "folder"),
        )
    )
)
"""What no quantity of a computed trial may be called: the trials frame's columns besides its factors."""


TAG_LENGTH = 8000
"""What MLflow keeps of a tag."""


PART = "/part "
"""What the names of a tag's further parts end in, with their numbers from 2 on."""


def parted(tags: dict[str, str]) -> dict[str, str]:
    """Tags of which none is longer than MLflow keeps it: a longer one is several, which `whole` puts together.

    >>> whole(parted({"a": "b" * 20000})) == {"a": "b" * 20000}
    True
    """
    found = {}
    for name, value in tags.items():
        pieces = [value[start : start + TAG_LENGTH] for start in range(0, len(value), TAG_LENGTH)] or [""]
        found |= {f"{name}{PART}{number}" if number > 1 else name: piece for number, piece in enumerate(pieces, 1)}
    return found


def whole(tags: dict[str, str]) -> dict[str, str]:
    """Tags as they were before they were `parted`."""
    parts = [name for name in tags if PART in name]
    if not parts:
        return tags
    found = {name: value for name, value in tags.items() if name not in parts}
    for name in sorted(parts, key=lambda name: int(name.rpartition(" ")[2])):
        if (of := name.rpartition(PART)[0]) in found:
            found[of] += tags[name]
    return found


class Tag:
    """The names of a run's tags: of a trial's, and of an execution's.

    `SET` is the words of a job's own, as JSON, of which a sweep's command has several; `OPTIONS` the option of each
    group in its config, which the config itself does not name; `JOINED` when a sweep last had an earlier execution for
    a job, and which sweep.
    """

    KEY = "trial.key"
    SEED = "trial.seed"
    ROLE = "trial.role"
    STATUS = "trial.status"
    ARM = "trial.arm"
    NUISANCE = "trial.nuisance"
    OVERRIDES = "trial.overrides"
    WARNING = "trial.warning"
    ERROR = "trial.error"
    CLAIM = "claim.id"
    VERSION = "claim.version"
    CARD = "claim.card"
    PROFILE = "claim.profile"
    VERDICT = "claim.verdict"
    FILE = "claim.file"
    SOURCE = "claim.source"
    SETTINGS = "claim.settings"
    RULES = "claim.rules"
    QUANTITIES = "trial.quantities"
    DESIGN = "study.design"
    ASKED = "execution.asked"
    JOINED = "execution.joined"
    HASH = "study.hash"
    FITS = "study.fits"
    SET = "study.set"
    OPTIONS = "study.options"
    RESULTS = "results.version"


def moment(said: str) -> int:
    """What the tags `ASKED` and `JOINED` begin with, milliseconds since 1970; 0 for something else.

    >>> moment("1764000000000 studies-5f"), moment("")
    (1764000000000, 0)
    """
    word = said.partition(" ")[0]
    return int(word) if word.isdecimal() else 0


NEUTRAL = (
    *("plan=", "force=", "executor", "tracking", "hydra", "profile=", "study=", "data.root=", "engine.threads="),
    *("targets", "checkpoints"),
)
"""Begins of words in a command that make a claim's card no other one."""


def settings(overrides: Iterable[str]) -> list[str]:
    """What a command sets besides a claim's own card, so that it is another.

    >>> settings(["+study=claims/he_for_relu", "profile=full", "training.epochs=3"])
    ['training.epochs=3']
    """
    return [words for words in overrides if not words.lstrip("+~").startswith(NEUTRAL)]


def card_source(content: dict, profile: str) -> str:
    """The hash of what a claim's file says, as YAML reads it, that can change what it decides or says it decides.

    Comments, the claim's place on a board, what other profiles set, and the question have no part in it.
    """
    card = {name: value for name, value in (content.get("claim") or {}).items() if name not in ("number", "chapter")}
    card["profiles"] = (card.get("profiles") or {}).get(profile)
    study = {name: value for name, value in (content.get("study") or {}).items() if name not in ("question", "figures")}
    text = json.dumps(content | {"claim": card, "study": study}, default=str)  # keys are texts then
    return hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()[:16]


def own_conf() -> Path | None:
    """The user's own options and studies, `conf` of the working folder; None where there are none, or they ship."""
    folder = Path("conf").resolve()
    return folder if folder.is_dir() and folder != CONF.resolve() else None


def option_file(group: str, option: str) -> Path | None:
    """The file of a group's option, one that ships or the user's own."""
    folders = (CONF, own_conf())
    files = (folder / group / f"{option}.yaml" for folder in folders if folder)
    return next((file for file in files if file.is_file()), None)


STUDY, ROOT = "studies.name", "studies.root"
"""An experiment's tags: the study that it holds, whatever it is called now; the folder that it was last written in."""

OURS = f"""
SELECT experiment_id, study, artifact_location, root, name = study AS named FROM (
    SELECT experiment_id, name, artifact_location,
        (SELECT value FROM experiment_tags AS of WHERE of.experiment_id = experiments.experiment_id AND key = '{ROOT}')
            AS root,
        COALESCE(
            (SELECT value FROM experiment_tags AS of
             WHERE of.experiment_id = experiments.experiment_id AND key = '{STUDY}'),
            (SELECT studies.value FROM runs JOIN tags AS studies USING (run_uuid) JOIN tags AS roles USING (run_uuid)
             WHERE runs.experiment_id = experiments.experiment_id AND studies.key = 'study'
             AND roles.key = 'trial.role' LIMIT 1)
        ) AS study
    FROM experiments
) AS known WHERE study IS NOT NULL
"""
"""Our experiments: those that are tagged, and those of before there were tags, by the tags of their runs."""

EXPERIMENT = (
    f"SELECT experiment_id, artifact_location FROM ({OURS}) AS ours WHERE study = ? ORDER BY root IS NULL, named DESC"
)
"""The experiment of a study first."""


def folder(root: str | Path) -> Path:
    """A store's folder, of a root that may be written as a URI: `file:///FOLDER`, `sqlite:///FOLDER/mlflow.db`.

    >>> folder("sqlite:////a/my%20store/mlflow.db")
    PosixPath('/a/my store')

    Raises:
        StudyError: a URI of another kind.
    """
    root = str(root)
    if not re.match(r"[A-Za-z][\w+.-]+:/", root):
        return Path(os.path.expanduser(root) if root.split("/")[0] == "~" else root)
    try:
        parts = urlsplit(root)
    except ValueError:
        parts = urlsplit("")
    path = Path(unquote(parts.path))
    plain = not (parts.query or parts.fragment)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and plain:
        return path
    if parts.scheme == "sqlite" and root.startswith("sqlite:///") and path.name == "mlflow.db" and plain:
        return Path(unquote(parts.path)[1:]).parent
    raise StudyError(
        f"{root} is no folder. A store is written in a folder on this machine, such as mlruns, file:///FOLDER or "
        f"sqlite:///FOLDER/mlflow.db. A server, or a PostgreSQL database, is named with "
        f"tracking.uri=http://HOST:PORT or tracking.uri=postgresql://USER@HOST/DATABASE"
    )


def uri(root: str | Path) -> str:
    """MLflow's name of the store in a folder.

    >>> uri("/100% mine")
    'sqlite:////100%25 mine/mlflow.db'
    """
    path = str(Path(root).resolve() / "mlflow.db")
    for sign in "%?#":  # SQLAlchemy takes them for a URI's own
        path = path.replace(sign, f"%{ord(sign):X}")
    return f"sqlite:///{path}"


def run_page(address: object, experiment: object, run: str, artifact: str = "") -> str:
    """The address of a run's page, or of one of its files, among MLflow's pages; not of those for language models."""
    path = f"/artifactPath/{artifact}" if artifact else ""
    return (
        f"{f'{address}/' if address else ''}#/experiments/{experiment}/runs/{run}{path}?workflowType=machine_learning"
    )


def cache_folder() -> Path:
    """Where files are that are made once and kept: `$STUDIES_CACHE`, or `~/.cache/weight-studies`.

    Raises:
        StudyError: there is no home folder.
    """
    named = os.environ.get("STUDIES_CACHE")
    try:
        return Path(named or "~/.cache/weight-studies").expanduser()
    except RuntimeError as error:
        raise StudyError(
            f"STUDIES_CACHE={shown(named)}: there is no such home folder to keep files in. Name a folder with "
            f"STUDIES_CACHE=FOLDER"
        ) from error


CHARTED_EPOCHS = 12


def charted(epochs: list[int]) -> set[int]:
    """About a dozen of the epochs, log-spaced: the first and the last among them.

    >>> sorted(charted(list(range(31))))
    [0, 1, 2, 3, 4, 5, 6, 8, 11, 15, 21, 30]
    """
    if len(epochs) <= CHARTED_EPOCHS:
        return set(epochs)
    last, count = len(epochs) - 1, CHARTED_EPOCHS - 1
    places = {0, last}
    for fewer in range(count):
        places |= {round(last ** (fewer / (count - 1)))}
    step = 1
    while len(places) < CHARTED_EPOCHS:  # rounding made neighbours meet: fill up from the first epochs
        places.add(step)
        step += 1
    return {epochs[place] for place in places}


UNSAID = (
    *("plan=", "force=", "executor", "tracking", "checkpoints", "hydra", "study=", "study.name=", "data.root="),
    "targets",
)
"""Begins of a command's words that change neither a design nor what is trained."""


def set_by_command(tags: dict[str, str]) -> tuple[str, ...]:
    """What the words of an execution's command set besides the study; of a job those of its own, where they are known.

    >>> set_by_command({"mlflow.source.name": "python -m studies.run +study=init_comparison model.depth=4 plan=false"})
    ('model.depth=4',)
    """
    try:
        words = json.loads(tags[Tag.SET])
    except (KeyError, ValueError):
        words = _words(tags.get("mlflow.source.name", ""))
    return tuple(word for word in words if not word.lstrip("+~").startswith(UNSAID))


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:  # MLflow has cut it
        words = command.split()
    return [word for word in words if "=" in word and not word.startswith("-")]
