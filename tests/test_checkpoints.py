"""A trial that goes on from a checkpoint ends with the numbers of one that was never disturbed, to the bit."""

import dataclasses

import numpy as np
import pytest

from studies.record import Checkpoint, EpochRecord, Note, Result

SMALL = ("model.width=12", "data.train_size=192", "engine.xla=false", "training.epochs=6", "diagnostics=none")
TIMES = ("seconds", "seconds_build", "seconds_train", "seconds_total", "memory_mb")


def numbers(records):
    """All that records say but how long it took, as text, in which NaN equals NaN."""
    flat = [each for record in records for each in (record if isinstance(record, list) else [record])]
    found = [dataclasses.asdict(each) for each in flat if not isinstance(each, Checkpoint | Note)]
    return sorted(repr({name: value for name, value in each.items() if name not in TIMES}) for each in found)


@pytest.fixture(scope="module")
def disturbed(tf, trial_of):
    """A function from overrides to what an undisturbed trial says, and what one says that goes on from its checkpoint
    after each of some epochs.
    """
    from studies.train import trial

    def ran(*overrides, after, seed=0):
        whole = dataclasses.replace(trial_of((*SMALL, *overrides), seed), checkpoint_every=(1, None))
        records = list(trial.run(whole))
        kept = {record.epoch: record.content for record in records if isinstance(record, Checkpoint)}
        other = dataclasses.replace(trial_of((*SMALL, *overrides), seed + 1))
        for epoch in after:
            list(trial.run(other))  # leaves the engine they share elsewhere
            yield records, list(trial.run(dataclasses.replace(whole, checkpoint=kept[epoch])))

    return ran


CASES = {
    "plain": ((), (1, 5)),
    "drawn": (
        (
            "model.dropout=0.2 model.normalization=batch data.flip=true data.crop=1 data.cutout=2 optimizer=adamw "
            "optimizer.ema=0.9 optimizer.lookahead=3 optimizer.sam=0.05 regularizer=cutmix training.early_stopping=2 "
            "optimizer.learning_rate=0.1 data.label_noise=0.2"
        ).split(),
        (1, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trial_that_goes_on_ends_as_one_that_was_not_disturbed(disturbed, case):
    overrides, after = CASES[case]
    for whole, resumed in disturbed(*overrides, after=after):
        assert numbers(resumed) == numbers(whole)
        assert sum(isinstance(record, Note) for record in resumed) == 1
