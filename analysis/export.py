"""Export a study's frames as Parquet, with a data dictionary: `python -m analysis.export STUDY --to FOLDER`."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from analysis import chosen, command, load
from analysis.estimate import history
from analysis.show import escaped, tables
from studies.contract import QUANTILES, SPARSITY_THRESHOLDS
from studies.record import Space, StudyError, listed, shown

EPOCH = {
    "key": "the trial, as in the trials frame",
    "epoch": "whole epochs trained so far; 0 is the untrained network",
    "examples": "training examples seen so far",
    "learning_rate": "of the epoch's last step; at epoch 0 of the first",
    "running_loss": "mean cross-entropy over the epoch's steps, of the changing network, in training mode and against "
    "the targets of the step, with the weights of their classes, without penalties, in nats; null at epoch 0",
    "running_accuracy": "mean over the same steps, a share; null at epoch 0",
    "val_loss": "cross-entropy on the validation images after the epoch, in nats",
    "val_accuracy": "share of the validation images classified correctly after the epoch",
    "seconds": "wall time of the epoch with its validation, in seconds",
    "train_loss": "cross-entropy on a fixed part of the training images, as many as validate, in inference mode; "
    "at a dozen log-spaced epochs and the last, null at the others",
    "train_accuracy": "share of the same images classified correctly, by the labels trained by",
    "ema_val_loss": "val_loss of the weights' exponential moving average over the steps; null without optimizer.ema",
    "ema_val_accuracy": "val_accuracy of that average; null without optimizer.ema",
    "clipped": "share of the gradient's elements, tensors or units that clipping changed, mean of the epoch's steps; "
    "null without clipping",
    "sharpness": "greatest eigenvalue of the loss's Hessian, in inference mode; as all below null where not observed, "
    "and not comparable between networks that differ in normalization",
    "noise_scale": "the simple gradient noise scale, tr(Σ) / ‖G‖², in examples (McCandlish et al. 2018, eq. 2.9)",
    "jacobian_max": "greatest singular value of the Jacobian from inputs to logits, which go into a softmax at the "
    "network's end, mean over some inputs",
    "jacobian_median": "median singular value of the same",
    "jacobian_min": "least singular value of the same",
    "activation_slope": "rise of the natural logarithm of the activations' sd, a layer towards the output",
    "gradient_slope": "rise of the natural logarithm of ‖∂loss/∂activation‖, a layer towards the output",
    "sparsity": "share of the weights that may be pruned that is gone after the epoch; null without pruning",
    "parameters_kept": "share of all the model's parameters, biases and statistics too, that is not pruned",
    "update_ratio_max": "greatest ‖Δw‖ / ‖w‖ of the epoch's steps, of all kernels together; null without "
    "diagnostics.extremes",
}

TRIAL = {
    "key": "identity: the first 16 hex digits of the SHA-256 of everything that can change the trial's numbers",
    "study": "the study's name",
    "role": "scientific: one that arms are compared by; nuisance: one that only tunes",
    "status": "finished; diverged: a loss was not finite; timeout: stopped by training.timeout; crashed: see error",
    "seed": "trials of one seed share the split, the layers' initial draws and the batch order: compare arms within it",
    "running_loss": "mean cross-entropy over the last epoch's steps, while the network changes, in training mode and "
    "against the targets of the step, without penalties, in nats",
    "running_accuracy": "mean over the same steps, a share",
    "train_loss": "cross-entropy on a fixed part of the training images, in inference mode, in nats; like all that "
    "follow, of the weights that the trial ends with: with early stopping those of the lowest validation loss",
    "train_accuracy": "share of the same images classified correctly, by the labels trained by",
    "val_loss": "cross-entropy on the validation images, in nats",
    "val_accuracy": "share of the validation images classified correctly",
    "last_val_loss": "val_loss of the last epoch's weights",
    "last_val_accuracy": "val_accuracy of the last epoch's weights",
    "best_val_loss": "least val_loss over the epochs, the untrained network and those before the last pruning left out",
    "best_val_accuracy": "greatest val_accuracy over the same epochs",
    "test_loss": "cross-entropy on the test images, read once, at the end, in nats",
    "test_accuracy": "share of the test images classified correctly",
    "ema_val_loss": "val_loss of the weights' exponential moving average over the steps; null without optimizer.ema",
    "ema_val_accuracy": "val_accuracy of that average",
    "ema_test_loss": "test_loss of that average",
    "ema_test_accuracy": "test_accuracy of that average",
    "val_macro_f1": "mean of the classes' F1 scores, 2 right / (labelled + taken for it), on the validation images",
    "val_balanced_accuracy": "mean of the classes' recalls, on the validation images",
    "test_macro_f1": "mean of the classes' F1 scores on the test images",
    "test_balanced_accuracy": "mean of the classes' recalls on the test images",
    "epochs": "whole epochs trained",
    "parameters": "number of the model's weights, trained or not",
    "sparsity": "share of the weights that may be pruned that is gone at the end; null without pruning",
    "parameters_kept": "share of all the model's parameters, biases and statistics too, that is not pruned",
    "update_ratio_q999": ".999 quantile of the same over all steps; null without diagnostics.extremes",
    "classes": "number of classes; the uniform guess has a loss of log(classes)",
    "chance_train": "accuracy of guessing the commonest class of the training images, by the labels trained by",
    "chance_val": "accuracy of guessing the commonest class of the validation images",
    "chance_test": "accuracy of guessing the commonest class of the test images",
    "seconds_build": "wall time until the first step: data, model, compilation, in seconds",
    "seconds_train": "wall time of the training loop with its validation and diagnostics, in seconds",
    "seconds_total": "wall time of the whole trial, in seconds",
    "memory_mb": "peak memory of the worker's process up to the trial's end, in MB of 2^20 bytes",
    "version.tensorflow": "of TensorFlow, by which it was trained",
    "version.keras": "of Keras, by which it was trained",
    "version.numpy": "of NumPy, by which it was drawn",
    "version.pillow": "of Pillow, by which images were decoded",
    "processor": "that it was trained on, with the instruction sets that matter",
    "device": "that it was trained on, cpu or gpu",
    "error": "of a crashed trial its reason and traceback; else empty",
    "warning": "early warnings, each with the first epoch at which it was seen; else empty",
}

LAYER = {
    "key": "the trial, as in the trials frame",
    "epoch": "whole epochs trained so far; 0 is the untrained network",
    "layer": "the layer's name",
    "tensor": "the weight's name in the layer: kernel, bias, gamma, …, of a gate alone kernel.forget, …; w are its n "
    "elements, w0 those at epoch 0; or output: w are then the layer's outputs for some training images",
    "mean": "Σ w / n",
    "sd": "standard deviation of w, of the population: divided by n",
    "min": "least w",
    "max": "greatest w",
    "l1": "Σ abs(w)",
    "l2": "√Σ w²",
    "max_norm": "greatest abs(w)",
    "skew": "m3 / m2^1.5, with mk the k-th central moment of w; null if all w are equal",
    "kurtosis": "m4 / m2² − 3, in excess of the normal distribution's; null if all w are equal",
    **{
        f"q{round(100 * q):02d}": f"{q} quantile of w, interpolated linearly (Hyndman & Fan 1996, type 7)"
        for q in QUANTILES
    },
    **{
        f"sparsity_{fraction}": f"share of w with abs(w) ≤ {fraction} × max_norm"
        + (": exact zeros" if fraction == "0" else "")
        for fraction in SPARSITY_THRESHOLDS
    },
    "distance": "‖w − w0‖ / ‖w0‖; null if w0 is zero",
    "cosine_distance": "1 − cos(w, w0), the layer rotation (Carbonnelle & De Vleeschouwer 2019); null if one is zero",
    "gradient_norm": "root of the mean over the epoch's steps of ‖gradient‖², before clipping; null at epoch 0, and "
    "for tensors of one dimension; of an output ‖∂loss/∂w‖",
    "update_norm": "the same of what a step changed w by",
    "update_ratio": "update_norm / l2",
    "spectral_norm": "greatest singular value s1 of w as a matrix, by power iteration; as all below null where not "
    "observed",
    "stable_rank": "l2² / spectral_norm²",
    "effective_rank": "exp(H(s / Σ s)), with s the singular values and H the entropy (Roy & Vetterli 2007)",
    "condition_number": "greatest by least singular value",
    "spectrum_alpha": "exponent of the power law of the tail of the eigenvalues s² (Clauset et al. 2009); null for "
    "fewer than 50",
    "saturated": "share of a bounded activation's outputs within a hundredth of its range of a bound; null without "
    "bounds",
    "dead": "share of units whose output is zero for every image",
    "warning": "what goes wrong there, as far as it is seen; else empty",
}

COLUMNS = {"trials": TRIAL, "epochs": EPOCH, "layers": LAYER}
"""Frame -> column -> its meaning, unit and formula; factors are described by the study."""

QUANTITY = "a quantity that the trial computed, see the function that is its `compute`"

ROWS = {"trials": "a trial", "epochs": "a trial and epoch", "layers": "a trial, epoch, layer and tensor"}


def main(arguments: list[str] | None = None) -> int:
    """Write the files and say which; gives the exit code, 2 for what the user can put right."""
    parser = command.parser("export", "Export a study's frames as Parquet, with a data dictionary.")
    parser.add_argument("study", help="its name, such as init_comparison")
    command.add_execution(parser)
    parser.add_argument("--to", metavar="FOLDER", help="where to; made if it is not there")
    parser.add_argument("--format", default="terminal", choices=("terminal", "csv", "json"), help="of what is printed")
    options = parser.parse_args(arguments)

    def run():
        if not options.to:
            raise StudyError("--to is missing: expected --to FOLDER, where the files are to be written")
        written = write(options.study, options.to, options.root, options.execution or load.LATEST)
        if options.format in tables.PLAIN:
            rows = pd.Series([*written.values()], dtype=object)
            command.say(tables.PLAIN[options.format](pd.DataFrame({"file": [*map(str, written)], "rows": rows})))
            return
        for path, rows in written.items():
            command.say(f"{path}  {rows:,} rows" if rows is not None else path)

    return command.told(options, run)


def write(
    study: str, folder: str | Path, root: str | Path = "mlruns", execution: str | int = load.LATEST
) -> dict[Path, int | None]:
    """Write the frames of one of a study's executions, and their dictionary, over what an earlier export wrote.

    The column `folder` of the trials frame is left out: it is a place on one machine.

    Args:
        execution: which, as `load.execution` has it.

    Returns:
        the files, and the rows of those that have rows.

    Raises:
        StudyError: there is no such study, or the folder cannot be written.
    """
    folder, of = Path(folder), load.execution(study, root, execution=execution)
    _, trials = chosen.selected(study, root, execution=of)
    factors = {**of.study.factors, **of.study.nuisance}
    factors |= {name: each for name, each in of.study.space.items() if not isinstance(each, Space)}
    stored = {name: trials[name].map(json.dumps) for name, levels in factors.items() if _mixed(levels)}
    frames = {
        "trials": trials.assign(**stored).drop(columns="folder"),
        "epochs": load.epochs(study, root, of.keys),
        "layers": load.layers(study, root, of.keys),
    }
    lines = [*chosen.about(of, root).lines, *history.mixed(trials, of.study.compared)]
    written = {folder / f"{name}.parquet": len(frame) for name, frame in frames.items()}
    try:
        known = folder / "dictionary.md"
        if known.exists() and known.read_text(encoding="utf-8").partition("\n")[0] != f"# {study}":
            raise StudyError(f"--to {folder}: another study was exported there: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in frames.items():
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        (folder / "dictionary.md").write_text(dictionary(of, frames, lines), encoding="utf-8")
    except OSError as error:
        raise StudyError(f"--to {folder}: cannot be written ({error.strerror}); name a folder of your own") from error
    return written | {folder / "dictionary.md": None}


def dictionary(execution: load.Execution, frames: dict[str, pd.DataFrame], of: Sequence[str] = ()) -> str:
    """What the columns of exported frames are, in Markdown.

    Args:
        of: what is to be said of the execution, a line each.
    """
    study = execution.study
    when = datetime.fromtimestamp(execution.start_time / 1000, UTC)
    lines = [
        f"# {study.name}",
        "",
        escaped.markdown(study.question),
        "",
        f"- Metric: `{study.metric}`; seeds: {listed(study.seeds)}.",
        f"- Execution: `{execution.run_id}`, {when:%Y-%m-%d %H:%M} UTC; study hash `{execution.hash}`.",
        *(f"- {escaped.markdown(line)}" for line in of),
        f"- Versions: {listed(_versions(execution.tags))}.",
        "- Join the frames by `key`. A number that does not exist is null.",
    ]
    for name, frame in frames.items():
        lines += ["", f"## {name}.parquet", "", f"A row is {ROWS[name]}: {len(frame):,} rows.", ""]
        lines += ["| column | type | meaning |", "| --- | --- | --- |"]
        for column in frame:
            meaning = _factor(study, column) or COLUMNS[name].get(column, QUANTITY)
            lines.append(f"| `{escaped.piped(column)}` | {_type(frame[column])} | {escaped.piped(meaning)} |")
    return "\n".join(lines) + "\n"


def _factor(study, column) -> str:
    """What a column is that holds a factor's levels; empty for another."""
    if column in study.sampled:
        return f"factor, drawn from {study.sampled[column]}, all such factors together"
    if column in study.factors:
        role, levels = "factor", study.factors[column]
    elif column in study.nuisance:
        role, levels = "nuisance factor, tuned for each arm", study.space.get(column, study.nuisance[column])
        if isinstance(levels, Space):
            return f"{role}, drawn from {levels}{', or beyond, where it was extended' * study.extend}"
    else:
        return ""
    mixed = _mixed(levels)
    listing = ", ".join(f"`{json.dumps(level) if mixed else shown(level)}`" for level in levels)
    return f"{role}{', each level as JSON text' if mixed else ''}: {listing}"


def _mixed(levels) -> bool:
    """Whether a factor's levels have no one type that a column of Parquet could have."""
    kinds = {float if type(level) is int else type(level) for level in levels}
    return kinds not in ({float}, {str}, {bool})


def _type(values: pd.Series) -> str:
    kinds = {"i": "integer", "f": "number", "b": "boolean"}
    return kinds.get(getattr(values.dtype, "kind", ""), "text")


def _versions(tags) -> list[str]:
    return [f"{name.removeprefix('version.')} {tags[name]}" for name in sorted(tags) if name.startswith("version.")]


if __name__ == "__main__":
    sys.exit(main())
