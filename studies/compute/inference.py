"""How long a network takes for one image, dense and pruned: exported, and run by LiteRT on this machine."""

from typing import Annotated

import keras
import numpy as np

from studies.edge.counts import counts
from studies.edge.export import Runner, exported, interpreters
from studies.edge.latency import interleaved, percentiles
from studies.edge.narrow import OWN, narrowed
from studies.edge.shrink import shrunk
from studies.factors import targets
from studies.factors.limits import number, one_of

SECONDS = 1.0
"""Of calls in a trial, but for the least number of them."""

CONVOLUTIONS = {
    "_target_": "studies.models.vgg_small",
    "dense": 32,
    "activation": "relu",
    "normalization": "none",
    "spatial_dropout": 0.0,
    "dropout": 0.0,
}
NETWORKS = {
    "lenet_300_100": ((28, 28, 1), {"_target_": "studies.models.lenet_300_100", "activation": "relu"}),
    "lenet5": ((28, 28, 1), {"_target_": "studies.models.lenet5", "activation": "relu"}),
    "vgg_small": ((32, 32, 3), CONVOLUTIONS | {"filters": [32, 64, 128]}),
    "vgg_128": ((128, 128, 3), CONVOLUTIONS | {"filters": [64, 128, 256]}),
}
"""By name the shape of an image, and the model's node."""

CLASSES = 10


def batch_one(
    rng: np.random.Generator,
    network: Annotated[str, one_of(*NETWORKS)] = "lenet5",
    sparsity: Annotated[float, number(0, below=1)] = 0.9,
    deadline_ms: Annotated[float, number(above=0)] = 33.0,
    deadline_of_dense: Annotated[float, number(0)] = 0.0,
) -> dict[str, float]:
    """Time a network, untrained, and what is left of it when it is pruned, in turns, one image at a time.

    What is measured is of this machine, at that time: it is not the same twice.

    Args:
        sparsity: the share of the parameters that goes: of the masked network's weights the smallest become zeros; of
            the other one whole units do, about the same share of each layer, and are taken out.
        deadline_ms: real time; 33 is 30 images a second.
        deadline_of_dense: in place of it so many times the dense network's own median; 0: not.

    Returns:
        p50_… and p95_…, in ms, kb_… after gzip, mflop_…, of dense, masked, removed (units) and narrow, a dense network
        with as many parameters as removed; speedup_…: the dense median over the others'; kept: the share of parameters
        that removed has; deadline; enabling: the lesser of p95_dense / deadline and deadline / p95 of the better
        pruned one: above 1 only if the dense network is too slow, and a pruned one is not.
    """
    interpreters()
    models = _models(rng, *NETWORKS[network], sparsity)
    files = [exported(model) for model in models.values()]
    image = rng.normal(size=NETWORKS[network][0]).astype(np.float32)
    runners = [Runner(file) for file in files]
    times = interleaved(runners, [image] * len(runners), SECONDS, seed=int(rng.integers(2**31)))
    found: dict[str, float] = {}
    for (name, model), file, pair in zip(models.items(), files, percentiles(1e3 * times).tolist(), strict=True):
        found |= dict(zip((f"p50_{name}", f"p95_{name}"), pair, strict=True))
        found |= {f"kb_{name}": file.compressed / 1e3, f"mflop_{name}": counts(model).flops / 1e6}
    found |= {f"speedup_{name}": found["p50_dense"] / found[f"p50_{name}"] for name in models if name != "dense"}
    found["kept"] = counts(models["removed"]).parameters / counts(models["dense"]).parameters
    deadline = deadline_of_dense * found["p50_dense"] or deadline_ms
    pruned = min(found["p95_masked"], found["p95_removed"])
    return found | {"deadline": deadline, "enabling": min(found["p95_dense"] / deadline, deadline / pruned)}


def _models(rng, shape, node, sparsity) -> dict[str, keras.Model]:
    """The four networks by name."""

    def build(node):
        return targets.build(node, "model", [OWN], input_shape=shape, classes=CLASSES)

    dense, masked, cut = build(node), build(node), build(node)
    left = round((1 - sparsity) * dense.count_params())
    narrow = build(narrowed(node, left, build, [])) if sparsity else build(node)
    _mask(masked, sparsity)
    _cut(cut, narrow, rng)
    return {"dense": dense, "masked": masked, "removed": shrunk(cut)[0], "narrow": narrow}


def _mask(model, sparsity) -> None:
    """Zero the smallest of all weights."""
    weights = model.get_weights()
    bound = np.quantile(np.abs(np.concatenate([each.ravel() for each in weights if each.ndim > 1])), sparsity)
    model.set_weights([np.where(np.abs(each) < bound, 0, each) if each.ndim > 1 else each for each in weights])


def _cut(model, narrow, rng) -> None:
    """Zero whole units: as many stay, drawn by chance, as a narrow network has."""
    pairs = [pair for pair in zip(model.layers, narrow.layers, strict=True) if pair[0].get_weights()]
    for layer, of_narrow in pairs[:-1]:
        kernel, bias = layer.get_weights()
        gone = rng.permutation(len(bias))[of_narrow.output.shape[-1] :]
        kernel[..., gone], bias[gone] = 0, 0
        layer.set_weights([kernel, bias])
