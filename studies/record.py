"""The words that every module shares: studies, trials and the records of what a trial did."""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from studies.masking import masked

RESULTS_VERSION = 5
"""Goes up when a change to the code changes numbers: old and new results then never mix."""

RULES_VERSION = 2
"""Goes up when a change to the code changes what is concluded from the same numbers: verdicts are then made anew."""

STEERING = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Control signs but for tabs and new lines, and those of Unicode that turn the direction: how they are shown."""

IDENTITY = (
    "data",
    "model",
    "initializer",
    "optimizer",
    "schedule",
    "regularizer",
    "clipping",
    "pruning",
    "diagnostics",
    "training",
    "engine",
    "seeds",
)
"""The parts of a config that can change the numbers of a trial that trains."""

COMPUTED = ("compute", "engine")
"""And of one that computes: nothing is trained, so that what it would be trained by plays no part."""

LATER: dict[str, dict[str, Any]] = {
    "data": {"resize": "stretch", "unreadable": "refuse", "folds": None, "fold": 0},
    "training": {"class_weight": None, "class_weight_beta": 0.999},
    "optimizer": {"weight_decay_on": "all"},
    "regularizer": {"applies_to": "kernels"},
}
"""Settings that came when there were results and cards already, and what they are where all is as it was before: then
they are no part of what identifies a trial, nor of a card."""

EPOCHS = re.compile(r"(\d+(?:\.\d+)?) epochs?")
"""A length of a schedule in epochs, such as `5 epochs`; as a number it is a share of the run."""

METRICS = (
    "running_loss",
    "running_accuracy",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "last_val_loss",
    "last_val_accuracy",
    "best_val_loss",
    "best_val_accuracy",
    "test_loss",
    "test_accuracy",
    "ema_val_loss",
    "ema_val_accuracy",
    "ema_test_loss",
    "ema_test_accuracy",
    "val_macro_f1",
    "val_balanced_accuracy",
    "test_macro_f1",
    "test_balanced_accuracy",
)
"""What a study can compare its arms by."""

FIGURES = ("loss_by_rate", "variance_by_layer")
"""What a study can draw at its end."""

EXECUTION = "execution"
"""The factor of several executions as one that tells apart what no setting does."""

BLOCKS = ("data.fold",)
"""Factors whose levels are not set against each other: a seed's value is the mean over them."""

PLACE = ("number", "chapter")
"""Of a claim: where a board shows it, which decides nothing."""

NO_RULE = ("question", "figures", "sampled")
"""Of a study: what its claim is not decided by; of what is sampled the levels count."""

SERIES = "__"
"""Between a quantity's name and a place, where a computed trial has one for each of several: `forward__12`."""

STATUSES = ("finished", "diverged", "crashed", "timeout")
SEED_STREAMS = ("split", "init", "order", "augment", "dropout", "noise")


def is_computed(config: dict) -> bool:
    """Whether a trial of this config runs a function, `compute`, instead of training a network."""
    return config.get("compute") is not None


def identity_parts(config: dict) -> tuple[str, ...]:
    """The parts of a config that can change its trials' numbers."""
    return COMPUTED if is_computed(config) else IDENTITY


def plain(text: str) -> str:
    """A text whose signs that steer a terminal, or turn the direction of writing, are shown as their escapes.

    >>> plain("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return text.translate(STEERING)


class StudyError(Exception):
    """Something a user can put right: says what was received, what is allowed, what to do; and no password."""

    def __init__(self, *said: object):
        super().__init__(*(plain(masked(each)) if isinstance(each, str) else each for each in said))


def is_neutral(setting: str, value: object) -> bool:
    """Whether a setting asks for nothing, so that it is as if it were not there: null, or what `LATER` has of it.

    >>> is_neutral("data.folds", None), is_neutral("data.fold", 0), is_neutral("data.label_noise", 0)
    (True, True, False)
    """
    group, _, name = setting.partition(".")
    later = LATER.get(group, {})
    return value is None or (name in later and later[name] == value)


def listed(names: Iterable[object]) -> str:
    """Names as `a, b, c`, for an error's list of what is allowed."""
    return ", ".join(shown(name) for name in names)


def near(name: object, known: Iterable[object]) -> str:
    """The one of some names that is most like a name, or like the last part of one; empty if none is.

    >>> near("model.deth", ["model.depth", "seed"]), near("depht", ["model.depth"]), near("x", [])
    ('model.depth', 'model.depth', '')
    """
    texts = [str(each) for each in known]
    ends = {each.rpartition(".")[2]: each for each in texts} | {each: each for each in texts}
    found = difflib.get_close_matches(str(name), ends, 1)
    return ends[found[0]] if found else ""


def meant(name: object, known: Iterable[object]) -> str:
    """What an error says before its list of what is allowed: `did you mean adam? `; empty if nothing is near."""
    found = near(name, known)
    return f"did you mean {found}? " if found else ""


def numbered(count: int, noun: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The same at a sentence's end: `. Did you mean adam?`."""
    found = near(name, known)
    return f". Did you mean {found}?" if found else ""


def shown(value: object) -> str:
    """A value as YAML has it: `null`, `true` and `[8, 16]`, not `None`, `True` and `(8, 16)`, NumPy's too."""
    value = list(value) if isinstance(value, tuple) else getattr(value, "item", lambda: value)()
    return json.dumps(value) if value is None or isinstance(value, bool) else plain(str(value))


def content_key(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON.

    Raises:
        ValueError: `value` holds NaN or an infinity, which JSON has no word for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Space:
    """A range that a setting is drawn from, its bounds included.

    Attributes:
        scale: on which it is drawn evenly, `linear` or `log`.
        whole: whether only whole numbers are.
    """

    low: float
    high: float
    scale: str = "linear"
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.low:.15g} to {self.high:.15g}{', log' * (self.scale == 'log')}{', whole' * self.whole}"


@dataclass(frozen=True)
class Claim:
    """What is said of training, and the rule that decides it, written down before anything is measured.

    Attributes:
        version: goes up with every change to the card.
        kind: definitional, arithmetic, existential, universal or quantitative.
        estimand: what is estimated, one of `studies.design.claim.ESTIMANDS`.
        measure: of a trial: a column of the trials frame, `time_to_target`, `success`, …; or of a layer's tensor,
            LAYER.TENSOR.STATISTIC[@EPOCH].
        of, against: rules for the arms that are set against each other, factor -> levels.
        beside: of an interaction, the levels of `across` where the ratio is that the other contexts' are set against.
        along: the factor that a slope, a spread or a range of stable rates is taken along.
        guard: how far the arms `of` may fall behind `against` by `metric` for the claim to hold; None for no such rule.
        best: of several arms that match `of`, or `against`, take the one that tuned best.
        target: what a time to target is the time to; by the level of the first of `across`, or one for all.
        metric: of the time to target, and what controls are compared by.
        direction: the claimed side of the margin: above, below; or within the claimed band.
        margin: in the estimand's own unit, such as .95 for a ratio.
        claimed_band: what the claim says of how large it is; None if it does not.
        across: the claim must hold at every combination of these factors' levels.
        alpha_look: one-sided, at each look.
        positive: what breaks an arm so that it must be found worse, config key -> value; empty for none.
        negative: how far the seeds are from the study's at which the arms `against` are run again, 0 for none; of the
            estimand `value` what makes a case that must hold, config key -> value, `study.seeds` among them.
        prediction: what the literature says, `value` and `source`: shown, never used.
        profile: quick or full.
        number, chapter: its place in the article, from 1 on, and what the place is about: they order a board and are no
            part of the card; None and empty for a claim that is none of the article's.
    """

    id: str
    version: int
    quote: str
    kind: str
    estimand: str
    measure: str
    of: dict
    against: dict
    along: str
    best: bool
    target: Any
    metric: str
    direction: str
    margin: float
    why_margin: str
    claimed_band: tuple[float, float] | None
    across: tuple[str, ...]
    alpha_look: float
    positive: dict
    negative: int | dict
    prediction: dict
    guard: float | None = None
    profile: str = ""
    number: int | None = None
    chapter: str = ""
    beside: dict = field(default_factory=dict)

    @property
    def existential(self) -> bool:
        """Whether it says that there is something: one context is enough for it; any other must hold in all."""
        return self.kind == "existential"


@dataclass(frozen=True)
class Study:
    """A question and a factorial design.

    Attributes:
        factors: config key -> its levels, in the order they are shown.
        baseline: the level of each factor that other arms are compared with; factors may be missing.
        metric: the column of the trials frame that answers the question.
        zip: groups of factors that move together: the first levels of all, the second of all, …
        skip: rules, factor -> levels; an arm that one of them matches is left out.
        only: rules; if there are any, an arm that none of them matches is left out.
        settings: pairs of a rule, `when`, and what arms that it matches `set`: config key -> value; `tune` is False
            where these arms are not tuned.
        nuisance: factors that are tuned for each arm: config key -> the levels tried, in every combination; if there
            are `draws`, each of them in turn, the first of all factors, the second of all, …
        tuning_seeds: the seeds they are tuned at; empty if there are none.
        figures: drawn at its end, some of `FIGURES`.
        space: what the nuisance levels are drawn from: a range or a list; empty if they are not drawn.
        draws: how many points of that space every arm is tuned at, 0 for a grid.
        extend: whether a range is extended, once, if an arm does best at the end of it.
        looks: the numbers of seeds at which the claim's rule decides, or has the study go on; none: once, at the end.
        claim: what the study decides, if it does.
        sampled: the ranges of the factors that are drawn from ranges, all together, so that an arm is a point of them;
            what was drawn is their levels.
        fixed: with a claim, what trials have besides the factors, hashed.
    """

    name: str
    question: str
    factors: dict[str, tuple]
    seeds: tuple[int, ...]
    baseline: dict
    metric: str
    zip: tuple[tuple[str, ...], ...] = ()
    skip: tuple[dict[str, list], ...] = ()
    only: tuple[dict[str, list], ...] = ()
    settings: tuple[dict, ...] = ()
    nuisance: dict[str, tuple] = field(default_factory=dict)
    tuning_seeds: tuple[int, ...] = ()
    figures: tuple[str, ...] = ()
    space: dict[str, Space | tuple] = field(default_factory=dict)
    draws: int = 0
    extend: bool = True
    looks: tuple[int, ...] = ()
    claim: Claim | None = None
    fixed: str = ""
    sampled: dict[str, Space] = field(default_factory=dict)

    @property
    def compared(self) -> list[str]:
        """The factors whose levels are compared, which are all but `BLOCKS`."""
        return [factor for factor in self.factors if factor not in BLOCKS]

    @property
    def card(self) -> str:
        """What the claim is decided by, hashed: claim, design and what is fixed; empty without a claim."""
        if self.claim is None:
            return ""
        card = {name: value for name, value in asdict(self).items() if name not in NO_RULE}
        without = PLACE if card["claim"]["beside"] else (*PLACE, "beside")  # cards of before had none
        card["claim"] = {name: value for name, value in card["claim"].items() if name not in without}
        return content_key(card)

    @property
    def tuning_metric(self) -> str:
        """What choices are made by: the metric on validation data, of final weights, whatever the study's own is."""
        if self.metric not in METRICS:
            return self.metric
        return re.sub("running|train|test|last_val|best_val", "val", self.metric)

    def labelled(self, trial: "Trial") -> str:
        """A trial's levels as a reader sees them; of those sampled the number of their point: `mnist point 17`."""
        rows = zip(*(self.factors[factor] for factor in self.sampled), strict=True)
        others = [{f for f, level in zip(self.sampled, row, strict=True) if trial.arm.get(f) != level} for row in rows]
        number, other = min(enumerate(others, 1), key=lambda each: len(each[1]), default=(0, set()))
        if len(self.sampled) < 2 or len(other) > 1:  # a control has one of them that is not its point's
            return trial.label()
        rest = {f: level for f, level in trial.levels.items() if f not in self.sampled or f in other}
        return f"{arm_label(rest)} " * bool(rest) + f"point {number}"


@dataclass(frozen=True)
class Trial:
    """One arm at one seed: everything that a worker needs to train it.

    Attributes:
        key: identity by content, see `studies.design.grid.expand`.
        role: `scientific`; `nuisance` for one that only tunes; `control` for a claim's controls.
        arm: factor -> level.
        config: the resolved config, plain dictionaries and lists.
        overrides: the Hydra overrides that compose this trial alone.
        graph_key: trials with the same graph key can share one compiled graph.
        nuisance: nuisance factor -> the level tried, or chosen.
        model: the file that its trained model is to be saved in; empty: it is not kept.
        checkpoint_every: so many epochs, or minutes, whichever comes first; None: not by these.
        checkpoint: the newest, which it is to go on from; empty: it begins at its beginning.
    """

    key: str
    study: str
    role: str
    arm: dict
    seed: int
    config: dict = field(repr=False)
    overrides: tuple[str, ...]
    graph_key: str
    nuisance: dict = field(default_factory=dict)
    model: str = ""
    checkpoint_every: tuple[int | None, float | None] = (None, None)
    checkpoint: bytes = field(default=b"", repr=False)

    @property
    def levels(self) -> dict:
        """Of the factors, and of the nuisance ones."""
        return self.arm | self.nuisance

    @property
    def computed(self) -> bool:
        """Whether it runs a function instead of training a network."""
        return is_computed(self.config)

    def label(self) -> str:
        """The levels as a reader sees them, `he_normal depth=8`; of a trial without any what it is run with."""
        pairs = (override.lstrip("+").partition("=")[::2] for override in self.overrides)
        return arm_label(
            self.levels or {name: value for name, value in pairs if name.partition(".")[0] not in ("study", "seed")}
        )


def arm_label(arm: dict, whole: bool = False) -> str:
    """`{'initializer': 'he_normal', 'model.depth': 8}` as `he_normal depth=8`: options by themselves, numbers named.

    Args:
        whole: name every factor: `initializer=he_normal depth=8`.
    """
    words = (
        f"{short(factor, arm)}={shown(level)}" if whole or "." in factor or factor == EXECUTION else shown(level)
        for factor, level in arm.items()
    )
    return " ".join(words) or "defaults"


def short(factor: str, factors: Iterable[str]) -> str:
    """A factor without its group, if that tells it from the other factors: `depth` for `model.depth`."""
    last = factor.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in factors) == 1 else factor


@dataclass(frozen=True)
class Work:
    """What one example costs a model.

    Attributes:
        layers: those with kernels, a recurrent one at each of its steps.
        dense, convolution: multiply-adds in dense layers, in convolutions.
    """

    layers: int
    dense: int
    convolution: int


@dataclass(frozen=True)
class Started:
    """A trial begins (again): what came for it before is void.

    Attributes:
        circumstances: what may change its numbers on the machine that it is on, as tags; nothing: that is this one.
    """

    key: str
    attempt: int
    circumstances: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """All that a trial needs to go on after an epoch as if nothing had happened, the records of before among it.

    Attributes:
        epoch: the one that it was taken after.
        content: what `studies.train.checkpoints` makes: data, no code.
    """

    key: str
    epoch: int
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Note:
    """Something of a trial that who waits for it should know; no part of its results."""

    key: str
    text: str


@dataclass(frozen=True)
class EpochRecord:
    """One row of the epochs frame; epoch 0 is the untrained network.

    Attributes:
        learning_rate: of its last step.
        running_loss, running_accuracy: means over its steps, while the network changes, in training mode (with dropout)
            and against the targets of the step (mixed or smoothed), the loss with the weights of their classes.
        train_loss, train_accuracy: of the network after it, in inference mode, on a fixed part of the training
            examples, as many as are held out to validate, with the labels trained by; NaN but at about a dozen
            log-spaced epochs and the last (`studies.contract.charted`).
        ema_val_loss, ema_val_accuracy: of the weights' average over the steps, if the optimizer keeps one.
        clipped: the share of the gradient's elements, tensors or units that clipping changed, the mean of its steps.
        sharpness, …: of the network after it; NaN where they were not observed.
        sparsity: the share of the weights that may be pruned that is gone after it; NaN without pruning.
        parameters_kept: the share of all the model's parameters that is not pruned.
        update_ratio_max: the greatest ‖Δw‖ / ‖w‖ of a step, of all kernels; NaN without `diagnostics.extremes`.
    """

    key: str
    epoch: int
    examples: int
    learning_rate: float
    running_loss: float
    running_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    train_loss: float = math.nan
    train_accuracy: float = math.nan
    ema_val_loss: float = math.nan
    ema_val_accuracy: float = math.nan
    clipped: float = math.nan
    sharpness: float = math.nan
    noise_scale: float = math.nan
    jacobian_max: float = math.nan
    jacobian_median: float = math.nan
    jacobian_min: float = math.nan
    activation_slope: float = math.nan
    gradient_slope: float = math.nan
    sparsity: float = math.nan
    parameters_kept: float = math.nan
    update_ratio_max: float = math.nan


@dataclass(frozen=True)
class LayerRecord:
    """One row of the layers frame.

    Attributes:
        statistics: in the order of `STATISTICS`, NaN where missing.
        warning: what goes wrong there; empty for nothing.
        density: how many entries lie in each of some equal cells from the least to the greatest; empty if not counted.
    """

    key: str
    epoch: int
    layer: str
    tensor: str
    statistics: tuple[float, ...]
    warning: str = ""
    density: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a trial ended. Metrics are NaN where the trial did not get that far.

    Attributes:
        status: one of `STATUSES`.
        epochs: whole epochs trained.
        running_loss, running_accuracy: of the last epoch, see `EpochRecord`.
        train_loss, …, val_loss, …, test_loss, …, ema_…: of the weights that the trial ends with, in inference mode;
            with early stopping, those that had the lowest validation loss.
        val_macro_f1, val_balanced_accuracy, …: the means of the classes' F1 scores and of their recalls, of the weights
            that the trial ends with; NaN where it diverged.
        last_val_loss, last_val_accuracy: of the last epoch's weights.
        best_val_loss, best_val_accuracy: over the epochs, the untrained network left out, and those of a network that
            was yet to be pruned.
        sparsity, parameters_kept: see `EpochRecord`.
        update_ratio_q999: the .999 quantile of ‖Δw‖ / ‖w‖ over all steps; NaN without `diagnostics.extremes`.
        parameters: all of the model's weights, trained or not.
        classes: number of classes.
        chance_train, chance_val, chance_test: the accuracy of always guessing the commonest class of these examples; of
            those trained on by the labels trained by.
        quantities: what a computed trial measured, by name.
        confusions: of `val` and `test`, how many examples of a class are taken for which: class, predicted, count.
        class_names: of the classes, where the data has some.
        error: of a crash, its reason in the first line and its traceback; else empty.
    """

    key: str
    status: str
    epochs: int = 0
    running_loss: float = math.nan
    running_accuracy: float = math.nan
    train_loss: float = math.nan
    train_accuracy: float = math.nan
    val_loss: float = math.nan
    val_accuracy: float = math.nan
    last_val_loss: float = math.nan
    last_val_accuracy: float = math.nan
    best_val_loss: float = math.nan
    best_val_accuracy: float = math.nan
    test_loss: float = math.nan
    test_accuracy: float = math.nan
    ema_val_loss: float = math.nan
    ema_val_accuracy: float = math.nan
    ema_test_loss: float = math.nan
    ema_test_accuracy: float = math.nan
    val_macro_f1: float = math.nan
    val_balanced_accuracy: float = math.nan
    test_macro_f1: float = math.nan
    test_balanced_accuracy: float = math.nan
    parameters: int = 0
    sparsity: float = math.nan
    parameters_kept: float = math.nan
    update_ratio_q999: float = math.nan
    classes: int = 0
    chance_train: float = math.nan
    chance_val: float = math.nan
    chance_test: float = math.nan
    seconds_build: float = math.nan
    seconds_train: float = math.nan
    seconds_total: float = math.nan
    memory_mb: float = math.nan
    quantities: dict[str, float] = field(default_factory=dict)
    confusions: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    error: str = ""

    def value(self, metric: str) -> float:
        """A metric, or a quantity; NaN if it has no such one."""
        return self.quantities.get(metric, getattr(self, metric) if metric in METRICS else math.nan)
