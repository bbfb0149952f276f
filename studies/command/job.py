"""A job of a command: the study that its words compose, its trials, and what makes more of them."""

import json
from dataclasses import dataclass, field

from studies import address
from studies.command import compose, trust
from studies.contract import Tag
from studies.design import grid
from studies.design.controls import Expand
from studies.design.study import read_study
from studies.factors import limits
from studies.masking import masked
from studies.record import RESULTS_VERSION, Study, Trial, content_key

UNCLAIMED = ["claim=null", "study.looks=[]"]
"""What composes a trial of a claim's study alone, which decides nothing."""

NOT_OF_A_TRIAL = (
    *("plan=", "force=", "executor", "tracking", "checkpoints"),
    *("study.seeds=", "study.looks=", "seed=", "hydra."),
)

OF_A_COMMAND = ("seed", "plan", "force", "checkpoints")
"""Parts that are in no trial's config."""


@dataclass(frozen=True)
class Job:
    """A study, ready to be driven.

    Attributes:
        text: its composed config.
        config: the same, plain and settled.
        trials: all of them, or those that tune.
        expand: what gives others, see `driver.Driver`.
        remarks: what is to be said before anything trains, a line each.
        card: tags of the claim's card, see `compose.card_tags`; empty without a claim.
        tags: of its execution: what its words set, and which options its config is made of.
    """

    text: str
    config: dict = field(repr=False)
    study: Study
    trials: list[Trial] = field(repr=False)
    expand: Expand = field(repr=False)
    remarks: list[str]
    card: dict[str, str]
    tags: dict[str, str]

    @property
    def identity(self) -> str:
        """What identifies its trials, all of them."""
        return content_key([trial.key for trial in self.trials])


def read(composed: compose.Composed, set_by_profile: list[str], choices: dict[str, str], words: list[str]) -> Job:
    """The job that a composed config declares.

    Args:
        composed: with what a claim's profile sets, and the overrides that set it.
        choices: the option that each group has in it.
        words: the job's own overrides.

    Raises:
        StudyError: the config, the study or one of its trials cannot be right.
    """
    overridden = {override.lstrip("+~").partition("=")[0] for override in words}
    compose.refuse_hidden(choices)
    composed = compose.named(composed, choices.get("study"), overridden)
    config = compose.resolved(composed)
    config["tracking"] = address.without_password(config["tracking"])
    overrides = [o for o in (*words, *set_by_profile) if not o.startswith(NOT_OF_A_TRIAL)]
    overrides += UNCLAIMED if config.get("claim") else []
    remarks = compose.merged(words, config)
    config |= limits.settled({name: config[name] for name in OF_A_COMMAND if name in config})
    study = read_study(config, overridden, remarks.append)
    composed_by = compose.composer(config, overrides, choices)
    exact = compose.refers_to_itself(composed)

    def expand(part, chosen=None, points=None):
        return grid.expand(part, config, choices, overrides, composed_by, compose.settle, exact, chosen, points)

    trials = expand(study)
    trust.reach_only_commanded(config)
    trust.allow_only_own(limits.settled({"targets": config["targets"]})["targets"]["allow"])  # the executor's
    remarks += grid.remarks(study, trials, limits.drawn)
    if (workers := config["executor"].get("workers") or 0) > len(trials):
        remarks.append(f"executor.workers={workers}: {len(trials)} are started, one a trial")
    card = compose.card_tags(choices.get("study"), study.claim.profile, words) if study.claim else {}
    options = {group: option for group, option in choices.items() if group in config and option}
    tags = {
        Tag.SET: json.dumps([*map(masked, words)]),
        Tag.OPTIONS: json.dumps(options),
        Tag.RESULTS: str(RESULTS_VERSION),
    }
    return Job(masked(compose.text(composed)), config, study, trials, expand, remarks, card, tags)
