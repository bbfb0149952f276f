"""Figures by what is in them: panels, axes, labels, marks; never by pixels."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_hex

from analysis.estimate import comparison, dynamics, tuning
from analysis.show import plots, style
from studies.contract import DENSITY_CELLS

pytestmark = pytest.mark.filterwarnings("error")

BY = ["model.depth", "initializer"]


def trials(arms=("zeros", "he"), depths=(2, 8), seeds=3):
    rng = np.random.default_rng(0)
    rows = [(arm, depth, seed, rng.uniform(0.5, 1)) for arm in arms for depth in depths for seed in range(seeds)]
    frame = pd.DataFrame(rows, columns=["initializer", "model.depth", "seed", "val_accuracy"])
    key = [f"{n:016x}" for n in range(len(frame))]
    return frame.assign(key=key, status="finished", epochs=2, classes=10, val_loss=0.1)


def compared(some, by=None):
    return comparison.comparison(some, BY if by is None else by, "val_accuracy", {})


def arms_of(some):
    return plots.Arms(compared(some), ["initializer"], ["model.depth"])


def words(figure):
    """Every text of a figure, as its SVG has it."""
    return [e.text for e in ET.fromstring(style.svg(figure)).iter("{http://www.w3.org/2000/svg}text")]


def drawn(svg):
    """All that an SVG shows, in any order: texts, paths and marks with their places and colours."""
    root = ET.fromstring(svg)
    named, seen = {e.get("id"): e.attrib for e in root.iter()}, []
    hidden = {e for defs in root.iter("{http://www.w3.org/2000/svg}defs") for e in defs.iter()}
    for e in root.iter():
        if e not in hidden and e.tag.rpartition("}")[2] in ("text", "path", "use"):
            shape = named.get(e.get("{http://www.w3.org/1999/xlink}href", "")[1:], {})
            kept = {k: v for k, v in (shape | e.attrib).items() if k != "id" and "href" not in k and k != "clip-path"}
            seen.append((e.tag, e.text, shape.get("d"), *sorted(kept.items())))
    return sorted(map(str, seen))


def labelled(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


def test_a_comparison_shows_every_arms_mean_interval_and_seeds():
    some = trials()
    figure = plots.comparison(
        arms_of(some), compared(some), comparison.by_seed(some, BY, "val_accuracy"), "val_accuracy"
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["depth=2", "depth=8"]
    for axes, depth in zip(figure.axes, (2, 8), strict=True):
        rows = compared(some)[lambda c, depth=depth: c["model.depth"] == depth]
        assert [line.get_xdata()[0] for line in labelled(axes, "mean")] == list(rows["mean"])
        assert [tuple(line.get_xdata()) for line in labelled(axes, "interval")] == list(zip(rows["low"], rows["high"]))
        seen = np.concatenate([line.get_xdata() for line in labelled(axes, "seeds")])
        assert sorted(seen) == sorted(some.loc[some["model.depth"] == depth, "val_accuracy"])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["zeros", "he"]
    assert "95 % t interval over seeds" in figure.get_supxlabel() and "val accuracy" in figure.get_supxlabel()
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_an_arm_looks_the_same_in_every_figure_even_where_another_is_missing():
    some = trials(arms=[f"arm{n}" for n in range(20)], depths=(2,))
    arms = plots.Arms(compared(some), ["initializer"])
    looks = {tuple(vars(style).values()) for style in arms.styles.values()}
    assert len(looks) == 20
    epochs = pd.DataFrame({"key": some["key"], "epoch": 0, "val_accuracy": some["val_accuracy"]})
    for part in (some, some[some["initializer"] != "arm3"]):
        frame = dynamics.curves(part, epochs, ["initializer"], "val_accuracy")
        axes = plots.curves(arms, frame, "val_accuracy").axes
        [line] = labelled(axes[7], "arm7")
        assert to_hex(line.get_color()) == arms.styles["arm7",].colour.lower()
        assert bool(labelled(axes[3], "arm3")) == (part is some)


def test_eight_arms_are_told_apart_by_more_than_colour_and_twelve_have_panels_of_their_own():
    for count in (8, 12):
        some = trials(arms=[f"arm{n}" for n in range(count)], depths=(2,))
        arms = plots.Arms(compared(some), ["initializer"])
        epochs = pd.DataFrame(
            [(key, epoch, 0.1 * epoch) for key in some["key"] for epoch in range(3)],
            columns=["key", "epoch", "val_accuracy"],
        )
        figure = plots.curves(arms, dynamics.curves(some, epochs, ["initializer"], "val_accuracy"), "val_accuracy")
        if count == 8:
            [axes] = figure.axes
            assert len({line.get_marker() for line in axes.lines}) == 8
            assert len({(look.marker, look.dashes) for look in arms.styles.values()}) == 8
        else:
            assert [axes.get_title(loc="left") for axes in figure.axes] == [f"arm{n}" for n in range(12)]
            for n, axes in enumerate(figure.axes):
                assert [line.get_label() for line in axes.lines] == [f"arm{n}"]
                assert sum(len(lines.get_segments()) for lines in axes.collections[:1]) == 11


def test_failures_are_marked_and_chance_is_drawn():
    some = trials(seeds=4)
    some.loc[some["seed"] == 1, "status"] = "diverged"
    some.loc[some["seed"] == 1, "epochs"] = 1
    guess = comparison.guess(some, "val_accuracy")
    assert guess == pytest.approx(0.1)
    units = comparison.by_seed(some, BY, "val_accuracy")
    figure = plots.comparison(arms_of(some), compared(some), units, "val_accuracy", guess)
    for axes in figure.axes:
        assert [len(line.get_xdata()) for line in labelled(axes, "failed")] == [1, 1]
        assert labelled(axes, "chance")[0].get_xdata()[0] == pytest.approx(0.1)
    assert "× one that failed; dotted: chance" in figure.get_supxlabel()
    epochs = pd.DataFrame(
        [(key, epoch, 0.3) for key in some["key"] for epoch in range(3)], columns=["key", "epoch", "val_accuracy"]
    )
    frame, ends = dynamics.curves(some, epochs, BY, "val_accuracy"), dynamics.ends(some, BY)
    assert ends["trials"].tolist() == [1] * 4 and ends["epoch"].tolist() == [1] * 4
    figure = plots.curves(arms_of(some), frame, "val_accuracy", guess, ends)
    for axes in figure.axes:
        assert [line.get_xdata().tolist() for line in labelled(axes, "failed")] == [[1], [1]]
    far = plots.comparison(arms_of(trials()), compared(trials()), comparison.by_seed(trials(), BY, "val_accuracy"),
                           "val_accuracy", -5.0)  # fmt: skip
    assert not labelled(far.axes[0], "chance") and "chance is -5" in far.get_supxlabel()


def test_curves_have_a_line_and_a_band_an_arm_and_say_what_the_band_is():
    some = trials()
    epochs = pd.DataFrame(
        [(key, epoch, 0.3 * epoch + 0.1) for key in some["key"] for epoch in range(3)],
        columns=["key", "epoch", "val_accuracy"],
    )
    frame = dynamics.curves(some, epochs, BY, "val_accuracy")
    figure = plots.curves(arms_of(some), frame, "val_accuracy")
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == ["zeros", "he"] and len(axes.collections) == 2
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.1, 0.4, 0.7])
    assert "epoch" in figure.get_supxlabel() and "95 % t interval" in figure.get_supxlabel()
    assert figure.get_supylabel() == "val accuracy"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["zeros", "he"]


def test_losses_are_on_a_logarithmic_axis_in_plain_numbers():
    some = trials()
    epochs = pd.DataFrame(
        [(k, e, 10.0**-e) for k in some["key"] for e in range(4)], columns=["key", "epoch", "val_loss"]
    )
    figure = plots.curves(arms_of(some), dynamics.curves(some, epochs, BY, "val_loss"), "val_loss")
    assert figure.axes[0].get_yscale() == "log"
    assert "0.01" in words(figure) and not any("mathdefault" in (word or "") for word in words(figure))


def test_a_loss_of_zero_does_not_flatten_the_others():
    some = trials()
    epochs = pd.DataFrame(
        [(k, e, 10.0**-e) for k in some["key"] for e in range(4)], columns=["key", "epoch", "val_loss"]
    )
    epochs.loc[epochs["epoch"] == 3, "val_loss"] = 0.0
    figure = plots.curves(arms_of(some), dynamics.curves(some, epochs, BY, "val_loss"), "val_loss")
    assert figure.axes[0].get_yscale() == "log" and figure.axes[0].get_ylim() == pytest.approx((0.009, 1.1))


def test_a_comparison_of_losses_that_span_decades_is_on_a_logarithmic_axis():
    some = trials().assign(val_loss=lambda t: 10.0 ** (t["model.depth"] - 4))
    losses = comparison.comparison(some, BY, "val_loss", {})
    for frame, scale in ((losses, "log"), (losses[losses["model.depth"] == 2], "linear")):
        units = comparison.by_seed(some, BY, "val_loss")
        figure = plots.comparison(plots.Arms(frame, ["initializer"], ["model.depth"]), frame, units, "val_loss")
        assert figure.axes[0].get_xscale() == scale


def test_titles_are_as_wide_as_their_panels():
    some = trials(arms=("a_very_long_name", "and_another_one")).assign(
        optimizer="another_long_name", schedule="a_third_one"
    )
    whole = compared(some, ["optimizer", "schedule", "initializer", "model.depth"])
    units = comparison.by_seed(some, ["optimizer", "schedule", "initializer", "model.depth"], "val_accuracy")
    arms = plots.Arms(whole, ["model.depth"], ["optimizer", "schedule", "initializer"])
    figure = plots.comparison(arms, whole, units, "val_accuracy")
    for axes in figure.axes:
        assert max(map(len, axes.get_title(loc="left").split("\n"))) <= 33 and "\n" in axes.get_title(loc="left")
        top = axes.get_position().y1 * figure.get_figheight()
        assert figure.get_figheight() - top > 0.14 * axes.get_title(loc="left").count("\n")


def test_a_heat_map_has_a_cell_an_arm_with_its_mean():
    some = trials(arms=("zeros", "he", "orthogonal"))
    figure = plots.heat(compared(some), ["initializer"], ["model.depth"], "val_accuracy")
    axes = figure.axes[0]
    [image] = axes.images
    expected = some.groupby(["initializer", "model.depth"], sort=False)["val_accuracy"].mean().unstack(sort=False)
    np.testing.assert_allclose(image.get_array(), expected.to_numpy())
    assert len(axes.texts) == 6
    assert [t.get_text() for t in axes.get_yticklabels()] == ["zeros", "he", "orthogonal"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "8"]


def test_a_third_factor_makes_small_multiples_and_a_missing_arm_an_empty_cell():
    some = pd.concat([trials().assign(optimizer=o) for o in ("sgd", "adam")], ignore_index=True)
    some = some[~((some["optimizer"] == "adam") & (some["initializer"] == "he") & (some["model.depth"] == 8))]
    whole = compared(some, ["optimizer", *BY])
    figure = plots.heat(whole, ["initializer"], ["model.depth"], "val_accuracy", ["optimizer"])
    maps = [axes for axes in figure.axes if axes.images and axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in maps] == ["optimizer=sgd", "optimizer=adam"]
    assert [np.ma.count_masked(axes.images[0].get_array()) for axes in maps] == [0, 1]


LAYERS = ("dense_1", "dense_2", "logits")


def layers(some, epochs=(0, 1, 2)):
    counts = np.arange(DENSITY_CELLS)
    rows = [
        {
            "key": key, "epoch": epoch, "layer": layer, "tensor": "kernel", "l2": 2.0 + epoch, "update_ratio": 1e-3,
            "gradient_norm": np.nan if epoch == 0 else 0.0 if layer == "dense_1" else 1.0,
            "low": -1.0 - epoch, "high": 1.0, "counts": counts,
        }
        for key in some["key"] for layer in LAYERS for epoch in epochs
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_layer_maps_have_a_row_a_statistic_a_column_an_arm_and_a_colour_for_zero():
    some = trials(depths=(2,))
    arms = [{"initializer": "zeros"}, {"initializer": "he"}]
    frame = dynamics.medians(some, layers(some), ["initializer"], list(plots.LAYER_STATISTICS))
    figure = plots.layer_maps(arms, frame)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 6 and [axes.get_title(loc="left") for axes in maps[:2]] == ["zeros", "he"]
    np.testing.assert_allclose(maps[0].images[0].get_array(), [[2, 3, 4]] * 3)
    gradients = maps[4].images[0]
    assert gradients.get_array().mask[:, 0].all()  # nothing was recorded of the untrained network
    assert to_hex(gradients.cmap(gradients.norm(gradients.get_array()[0, 1]))) == "#d55e00"
    assert to_hex(gradients.cmap(gradients.norm(gradients.get_array()[1, 1]))) != "#d55e00"
    assert [t.get_text() for t in maps[0].get_yticklabels()] == list(LAYERS)
    assert {"norm", "update ratio", "gradient norm", "epoch"} <= set(words(figure))


def test_ridgelines_have_a_ridge_an_epoch_in_a_panel_a_layer_and_arm():
    some = trials(depths=(2,))
    arms = [{"initializer": "zeros"}, {"initializer": "he"}]
    figure = plots.ridgelines(arms, dynamics.densities(some, layers(some), ["initializer"]), layers=2)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["zeros\ndense_1", "he\ndense_1", "logits", "logits"]
    assert all(len(axes.collections) == 3 for axes in figure.axes)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_a_spike_is_cut_so_that_the_rest_can_be_seen():
    bell = np.repeat([0.0, 1.0, 2.0, 2.2, 1.0], 2)
    np.testing.assert_allclose(plots._heights(bell), bell / 2.2)
    pruned = np.repeat([0.0, 1.0, 2.0, 50.0, 1.0], 2)
    np.testing.assert_allclose(plots._heights(pruned)[::2], [0, 1 / 3, 2 / 3, 1, 1 / 3])
    np.testing.assert_allclose(plots._heights(np.repeat([0.0, 5.0, 0.0], 2))[::2], [0, 1, 0])


def test_weights_that_are_all_alike_have_an_empty_panel_that_says_so():
    some = trials(depths=(2,))
    alike = layers(some).assign(low=0.5, high=0.5)
    figure = plots.ridgelines([{"initializer": "zeros"}], dynamics.densities(some, alike, ["initializer"]))
    assert figure.axes[0].get_title(loc="left") == "zeros\nall weights alike"


def test_sensitivity_has_a_line_an_arm_over_rates_on_a_logarithmic_axis():
    some = pd.concat([trials(depths=(2,)).assign(**{"optimizer.learning_rate": r}) for r in (0.1, 0.001)])
    by = ["initializer", "optimizer.learning_rate"]
    whole = compared(some, by)
    figure = plots.sensitivity(plots.Arms(whole, ["initializer"]), whole, "optimizer.learning_rate", "val_accuracy")
    [axes] = figure.axes
    assert axes.get_xscale() == "log" and [line.get_label() for line in axes.lines] == ["zeros", "he"]
    assert list(axes.lines[0].get_xdata()) == [0.001, 0.1] and len(axes.collections) == 2
    assert whole["low"].min() < axes.get_ylim()[0] < whole["mean"].min()  # bands of few seeds do not set the limits
    assert "learning rate" in figure.get_supxlabel()


def test_a_metric_over_sparsities_has_a_plain_axis():
    some = pd.concat([trials(depths=(2,)).assign(**{"pruning.sparsity": share}) for share in (0.5, 0.9)])
    whole = compared(some, ["initializer", "pruning.sparsity"])
    figure = plots.sensitivity(plots.Arms(whole, ["initializer"]), whole, "pruning.sparsity", "val_accuracy")
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["50 %", "90 %"]
    halved = axes.transData.transform([(share, 0) for share in (0, 0.5, 0.75, 0.875)])[:, 0]
    np.testing.assert_allclose(np.diff(halved), np.diff(halved)[0])
    assert figure.get_supxlabel().startswith("sparsity")


def log_figures():
    """A logarithmic axis across, one up, and scales of colours."""
    some = pd.concat([trials(depths=(2,)).assign(**{"optimizer.learning_rate": r}) for r in (0.1, 0.001)])
    whole = compared(some, ["initializer", "optimizer.learning_rate"])
    yield plots.sensitivity(plots.Arms(whole, ["initializer"]), whole, "optimizer.learning_rate", "val_accuracy")
    some = trials()
    epochs = pd.DataFrame(
        [(k, e, 10.0**-e) for k in some["key"] for e in range(4)], columns=["key", "epoch", "val_loss"]
    )
    yield plots.curves(arms_of(some), dynamics.curves(some, epochs, BY, "val_loss"), "val_loss")
    arms = [{"initializer": "zeros"}, {"initializer": "he"}]
    rows = [(arm["initializer"], "dense", e, 10.0**e, 0.1, 0.2) for arm in arms for e in range(5)]
    yield plots.layer_maps(
        arms, pd.DataFrame(rows, columns=["initializer", "kernel", "epoch", *plots.LAYER_STATISTICS])
    )


def test_what_is_drawn_the_fast_way_is_what_matplotlib_draws(monkeypatch):
    fast = [style.svg(figure) for figure in log_figures()]
    monkeypatch.setattr(style, "_settle", lambda axes: None)
    for some, whole in zip(fast, map(style.svg, log_figures()), strict=True):
        assert drawn(some) == drawn(whole) and len(drawn(some)) > 20


def test_a_figure_can_be_drawn_again():
    for figure in log_figures():
        assert style.svg(figure) == style.svg(figure)


RATES = np.geomspace(0.001, 10, 9)
LOSSES = np.array([2.0, 1.9, 1.5, 0.5, 0.3, 0.4, 1.0, 1.6, np.nan])


def range_test(*arms, by=("optimizer",)):
    curve = pd.concat(
        [
            pd.DataFrame({"optimizer": [arm] * 9, "seed": seed, "learning_rate": RATES, "loss": LOSSES})
            for arm in arms
            for seed in (0, 1)
        ],
        ignore_index=True,
    )
    ranges = tuning.rate_range(curve, list(by))
    return plots.loss_by_rate(plots.Arms(ranges, by), curve, ranges)


@pytest.mark.parametrize("arms", [["adam"], ["a", "b", "c", "d"]])
def test_a_range_test_has_a_panel_an_arm_and_a_line_a_seed(arms):
    figure = range_test(*arms)
    assert [axes.get_title(loc="left") for axes in figure.axes] == arms
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        seeds, marks = axes.lines[:2], axes.lines[2:]
        np.testing.assert_array_equal(seeds[0].get_ydata(), LOSSES)
        assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([RATES[2], RATES[4], RATES[7]])
        assert "lowest 0.1" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert figure.get_supxlabel() == "learning rate"
    assert "loss" in figure.get_supylabel()


def test_a_range_test_that_is_lost_from_the_start_is_still_drawn():
    curve = pd.DataFrame({"optimizer": "sgd", "seed": 0, "learning_rate": RATES, "loss": np.nan})
    ranges = tuning.rate_range(curve, ["optimizer"])
    figure = plots.loss_by_rate(plots.Arms(ranges, ["optimizer"]), curve, ranges)
    assert figure.axes[0].get_ylim() == (0, 1)


def test_a_range_test_without_factors_is_one_panel():
    assert [axes.get_title(loc="left") for axes in range_test("x", by=()).axes] == ["defaults"]


def test_names_are_drawn_as_they_are():
    some = trials(arms=("<script>", "$x_1$", "$\\frac"))
    units = comparison.by_seed(some, BY, "val_accuracy")
    epochs = pd.DataFrame({"key": some["key"], "epoch": 0, "val_accuracy": 0.5})
    arms = [{"initializer": "$x_1$", "model.depth": 2}]
    for figure in (
        range_test("<script>", "$x_1$", "$\\frac"),
        plots.comparison(arms_of(some), compared(some), units, "val_accuracy"),
        plots.curves(arms_of(some), dynamics.curves(some, epochs, BY, "val_accuracy"), "val_accuracy"),
        plots.heat(compared(some), ["initializer"], ["model.depth"], "val_accuracy"),
        plots.heat(compared(some), ["model.depth"], ["initializer"], "val_accuracy"),
    ):
        assert {"<script>", "$x_1$", "$\\frac"} <= set(words(figure))
    figure = plots.ridgelines(arms, dynamics.densities(some, layers(some), ["initializer", "model.depth"]))
    assert any("$x_1$" in (word or "") for word in words(figure))


def test_the_same_figure_is_the_same_text():
    assert style.svg(range_test("adam")) == style.svg(range_test("adam"))


def test_a_figure_shows_itself_in_a_notebook_as_svg_and_png():
    figure = plots.heat(compared(trials()), ["initializer"], ["model.depth"], "val_accuracy")
    shown, _ = DisplayFormatter().format(figure)
    assert shown["image/svg+xml"] == style.svg(figure) and shown["image/png"] == style.png(figure)


def test_a_figure_in_a_page_takes_the_pages_colour_and_says_what_it_shows():
    alone = style.svg(range_test("adam"))
    inside = style.inline(alone, 'what "it" shows')
    root = ET.fromstring(inside)
    assert root.get("role") == "img" and root.get("aria-label") == 'what "it" shows'
    assert "background:#fff" in alone and "background" not in inside
    assert style.INK in alone and style.INK not in inside and "currentColor" in inside
    assert "<?xml" not in inside and "<!DOCTYPE" not in inside


def test_the_colours_can_be_told_apart_by_the_colour_blind():
    """By Viénot, Brettel & Mollon's 1999 projections for deuteranopes and protanopes, in linear RGB."""
    project = {
        "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
        "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    }
    rgb = np.array([[int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)] for colour in style.COLOURS]) ** 2.2
    for matrix in project.values():
        seen = (rgb @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(8, 1)]
        assert gaps.min() > 0.1
