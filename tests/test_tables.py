"""Comparison tables in every format, to the letter."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from analysis.estimate import comparison
from analysis.show import quantities, tables
from studies.record import arm_label

BY = ["initializer", "model.depth"]
pytestmark = pytest.mark.filterwarnings("error")

COMPARISON = pd.DataFrame(
    [
        ("he_normal", 2, 5, 0, 0.975, 0.0051, 0.96866, 0.98133, 0.025, 0.01251, 0.03749, 5, 0.004, "best", 5),
        ("glorot_uniform", 2, 5, 1, 0.95, 0.01, 0.93758, 0.96242, np.nan, np.nan, np.nan, 0, np.nan, "tied", 5),
        ("zeros", 2, 1, 0, 0.1, np.nan, np.nan, np.nan, -0.85, np.nan, np.nan, 1, np.nan, "untested", 5),
        ("ones", 2, 0, 5, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 0, np.nan, "", 0),
    ],
    columns=[*BY, *comparison.OUTCOME],
).assign(erratic=False)
BASELINE = {"initializer": "glorot_uniform"}

TERMINAL = """
initializer     depth      seeds    failed  val accuracy     95 % interval     standing    difference to glorot_uniform    95 % interval
--------------  -------  -------  --------  ---------------  ----------------  ----------  ------------------------------  ----------------
he_normal       2              5         0  0.9750 ± 0.0051  [0.9687, 0.9813]  best        +0.025                          [+0.013, +0.037]
glorot_uniform  2              5         1  0.950 ± 0.010    [0.938, 0.962]    tied        baseline
zeros           2              1         0  0.1000           –                 untested    -0.8500                         –
ones            2              0         5  –                –                             –                               –
"""  # noqa: E501
MARKDOWN = """
| initializer    | depth   |   seeds |   failed | val accuracy    | 95 % interval    | standing   | difference to glorot_uniform   | 95 % interval    |
|:---------------|:--------|--------:|---------:|:----------------|:-----------------|:-----------|:-------------------------------|:-----------------|
| he_normal      | 2       |       5 |        0 | 0.9750 ± 0.0051 | [0.9687, 0.9813] | best       | +0.025                         | [+0.013, +0.037] |
| glorot_uniform | 2       |       5 |        1 | 0.950 ± 0.010   | [0.938, 0.962]   | tied       | baseline                       |                  |
| zeros          | 2       |       1 |        0 | 0.1000          | –                | untested   | -0.8500                        | –                |
| ones           | 2       |       0 |        5 | –               | –                |            | –                              | –                |
"""  # noqa: E501
LATEX = r"""
\begin{tabular}{llrrlllll}
\toprule
initializer & depth & seeds & failed & val accuracy & 95 \% interval & standing & difference to glorot\_uniform & 95 \% interval \\
\midrule
he\_normal & 2 & 5 & 0 & 0.9750 ± 0.0051 & [0.9687, 0.9813] & best & +0.025 & [+0.013, +0.037] \\
glorot\_uniform & 2 & 5 & 1 & 0.950 ± 0.010 & [0.938, 0.962] & tied & baseline & \\
zeros & 2 & 1 & 0 & 0.1000 & – & untested & -0.8500 & – \\
ones & 2 & 0 & 5 & – & – & & – & – \\
\bottomrule
\end{tabular}
"""  # noqa: E501
HTML = """
<table>
<tr><th>initializer</th><th>depth</th><th>seeds</th><th>failed</th><th>val accuracy</th><th>95 % interval</th><th>standing</th><th>difference to glorot_uniform</th><th>95 % interval</th></tr>
<tr><td>he_normal</td><td>2</td><td>5</td><td>0</td><td>0.9750 ± 0.0051</td><td>[0.9687, 0.9813]</td><td>best</td><td>+0.025</td><td>[+0.013, +0.037]</td></tr>
<tr><td>glorot_uniform</td><td>2</td><td>5</td><td>1</td><td>0.950 ± 0.010</td><td>[0.938, 0.962]</td><td>tied</td><td>baseline</td><td></td></tr>
<tr><td>zeros</td><td>2</td><td>1</td><td>0</td><td>0.1000</td><td>–</td><td>untested</td><td>-0.8500</td><td>–</td></tr>
<tr><td>ones</td><td>2</td><td>0</td><td>5</td><td>–</td><td>–</td><td></td><td>–</td><td>–</td></tr>
</table>
"""  # noqa: E501


def table(format, comparison=COMPARISON, by=BY, baseline=BASELINE):
    return tables.comparison_table(comparison, by, "val_accuracy", baseline, format)


def stripped(text):
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("format", "golden"), [("terminal", TERMINAL), ("markdown", MARKDOWN)])
def test_a_table_is_what_it_was(format, golden):
    assert stripped(table(format)) == stripped(golden)


def test_a_latex_table_is_what_it_was_but_for_spaces():
    assert [" ".join(line.split()) for line in table("latex").splitlines()] == LATEX.strip().splitlines()


def test_an_html_table_is_what_it_was_but_for_spaces_and_style():
    text = re.sub(r' style="[^"]*"|</?(thead|tbody)>\n?', "", table("html"))
    assert re.sub(r"(<t[hd]>) *(.*?) *(</t[hd]>)", r"\1\2\3", text) == HTML.strip()


def test_an_html_table_escapes_names():
    text = table("html", COMPARISON.assign(initializer="<script>alert(1)</script> & co"))
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (0.97073, 0.0185, "0.971"),
        (0.97073, 0.00185, "0.9707"),
        (0.5686, 0.256, "0.57"),
        (123.4, 27.0, "123"),
        (0.10104, 0.0, "0.1010"),
        (0.10104, np.nan, "0.1010"),
        (0.5, 1e-12, "0.5000"),
        (0.5, 1e-8, "0.500000"),
        (1.01e12, 1e10, "1.01e+12"),
        (np.nan, 0.1, "–"),
        (-0.0063, 0.0071, "-0.0063"),
    ],
)
def test_a_number_has_the_digits_that_its_uncertainty_leaves(value, uncertainty, text):
    assert tables.rounded(value, uncertainty) == text


def test_an_interval_is_rounded_by_half_its_width():
    assert tables.interval(0.5, 0.31231, 0.82502) == "[0.31, 0.83]"
    assert tables.interval(0.0, -0.0134, 0.0008, sign=True) == "[-0.0134, +0.0008]"
    assert tables.interval(0.5, np.nan, np.nan) == "–"


def test_csv_has_every_number_in_full():
    read = pd.read_csv(io.StringIO(table("csv")))
    pd.testing.assert_frame_equal(read.fillna({"standing": ""}), COMPARISON)


def test_latex_has_as_many_cells_in_each_row_and_nothing_unescaped():
    comparison = COMPARISON.assign(initializer=["a_b", "50 %", "x & y", "{#$^~\\"], **{"model.depth": [(8, 16)] * 4})
    text = table("latex", comparison.set_index("model.depth").reset_index(), ["model.depth", "initializer"], {})
    rows = re.search(r"\\toprule\n(.*)\\bottomrule", text, re.DOTALL)[1].replace("\\midrule\n", "").splitlines()
    for row in rows:
        assert row.endswith(r"\\") and len(re.findall(r"(?<!\\)&", row)) == 6
        assert not re.search(r"(?<!\\)[_%#$]", row)
        assert not row.strip().startswith("[")  # an argument of the \\ before it


def test_every_format_is_rendered_without_rows_without_factors_and_without_a_baseline():
    for format in tables.FORMATS:
        assert "val" in table(format, COMPARISON.iloc[:0]) or format in tables.PLAIN
        assert "baseline" not in table(format, baseline={}) and "difference to" not in table(format, baseline={})
        alone = table(format, COMPARISON.iloc[:1].drop(columns=BY), [], {})
        assert "0.97" in alone and "he_normal" not in alone


def test_levels_are_shown_as_yaml_has_them_and_the_baseline_is_found_whatever_its_type():
    levels = pd.Series([None, (8, 16), True, 0.001], dtype=object)
    for baseline, row in ((None, 0), ([8, 16], 1), (True, 2), (0.001, 3)):
        lines = table(
            "terminal", COMPARISON.assign(**{"model.depth": levels}), ["model.depth"], {"model.depth": baseline}
        )
        names = [line.split("  ")[0] for line in lines.splitlines()[2:]]
        assert names == ["null", "8, 16", "true", "0.001"]
        assert [place for place, line in enumerate(lines.splitlines()[2:]) if "baseline" in line] == [row]


def test_a_level_that_numpy_holds_is_written_as_any_other():
    levels = pd.DataFrame({"model.use_bias": [False], "model.depth": [2], "optimizer.learning_rate": [0.1]})
    [row] = levels.to_dict("records")
    held = {factor: levels[factor].to_numpy()[0] for factor in levels}
    assert arm_label(held) == arm_label(row) == "use_bias=false depth=2 learning_rate=0.1"


def test_factors_that_end_alike_keep_their_whole_names():
    comparison = COMPARISON.rename(columns={"initializer": "other.depth"})
    header = table("terminal", comparison, ["other.depth", "model.depth"], {}).splitlines()[0]
    assert header.split()[:2] == ["other.depth", "model.depth"]


def test_warnings_are_shown_with_what_became_of_their_trials():
    found = pd.DataFrame(
        [("at chance", 12, 1.5, 2, 0.1, 0.95)], columns=["warning", "trials", "epoch", "failed", "value", "others"]
    )
    last = tables.warning_table(found, "val_accuracy").splitlines()[-1]
    assert re.split(r"  +", last.strip()) == ["at chance", "12", "1.5", "2", "0.1000", "0.9500"]


def test_failures_are_shown_with_their_seeds_and_reason():
    found = pd.DataFrame(
        [("he", "crashed", 2, (0, 3), 4.0, "boom")],
        columns=["initializer", "status", "trials", "seeds", "epochs", "error"],
    )
    last = tables.failure_table(found, ["initializer"]).splitlines()[-1]
    assert re.split(r"  +", last.strip()) == ["he", "crashed", "2", "0, 3", "4", "boom"]


def test_what_intervals_are_is_said_by_the_metrics_bounds():
    assert "logit" in tables.interval_note("test_accuracy") and "-1 and 1" in tables.interval_note("test_accuracy")
    assert "cut at 0" in tables.interval_note("val_loss") and "-1 and 1" not in tables.interval_note("val_loss")


def test_what_a_run_prints_fits_the_terminal():
    outcome = {"metric": "val_accuracy", "seeds": 5, "failures": 0, "code": 0, "mean": 0.9, "sd": 0.01, "trials": ""}
    names = ("optimizer.learning_rate", "training.early_stopping", "a_setting_of_a_long_name")
    jobs = [dict.fromkeys(names, level) | outcome for level in ("0.1", "0.01")]
    tuned = pd.DataFrame({"initializer": ["he"], "optimizer.learning_rate": [0.1], "optimizer.weight_decay": [0.1]})
    tuned = tuned.assign(value=0.9, edge=[("optimizer.learning_rate", "optimizer.weight_decay")])
    measured = pd.DataFrame({"rate": [0.1], "status": "finished", **{f"quantity_{n}": [n / 7] for n in range(12)}})
    tried = ["optimizer.learning_rate", "optimizer.weight_decay"]
    for made in (
        lambda width: tables.sweep_table(jobs, width=width),
        lambda width: tables.tuning_table(tuned, ["initializer"], tried, "val_accuracy", width=width),
        lambda width: quantities.table(measured, ["rate"], list(measured)[2:], width=width),
    ):
        assert max(map(len, made(None).splitlines())) > 80
        table, _, left_out = made(80).partition("\n\n")
        assert max(map(len, table.splitlines())) <= 80 and "--wide" not in left_out
    assert "COLUMNS=400" in left_out and "0.1429" in table and "quantity 11" in left_out
