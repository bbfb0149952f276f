"""Figures by what is in them: panels, lines, labels; never by pixels."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from analysis import estimates, plots

RATES = np.geomspace(0.001, 10, 9)
LOSSES = np.array([2.0, 1.9, 1.5, 0.5, 0.3, 0.4, 1.0, 1.6, np.nan])


def curve(*arms, by="optimizer"):
    return pd.concat(
        [
            pd.DataFrame({by: [arm] * 9, "seed": seed, "learning_rate": RATES, "loss": LOSSES})
            for arm in arms
            for seed in (0, 1)
        ],
        ignore_index=True,
    )


def drawn(points, by):
    return plots.loss_by_rate(points, estimates.rate_range(points, by), by)


@pytest.mark.parametrize("arms", [["adam"], ["a", "b", "c", "d"]])
def test_a_range_test_has_a_panel_an_arm_and_a_line_a_seed(arms):
    figure = drawn(curve(*arms), ["optimizer"])
    assert [axes.get_title() for axes in figure.axes] == arms
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        seeds, marks = axes.lines[:2], axes.lines[2:]
        np.testing.assert_array_equal(seeds[0].get_ydata(), LOSSES)
        assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([RATES[2], RATES[4], RATES[7]])
        assert "lowest 0.1" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert figure.get_supxlabel() == "learning rate"
    assert "loss" in figure.get_supylabel()


def test_a_range_test_without_factors_is_one_panel():
    figure = drawn(curve("x").drop(columns="optimizer"), [])
    assert [axes.get_title() for axes in figure.axes] == ["defaults"]


def test_names_are_drawn_as_they_are():
    text = plots.svg(drawn(curve("<script>", "$x_1$"), ["optimizer"]))
    words = [element.text for element in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>" in words and "$x_1$" in words


def test_the_same_figure_is_the_same_text():
    assert plots.svg(drawn(curve("adam"), ["optimizer"])) == plots.svg(drawn(curve("adam"), ["optimizer"]))
