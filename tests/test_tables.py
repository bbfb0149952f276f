"""Comparison tables in every format, to the letter."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from analysis import tables

BY = ["initializer", "model.depth"]
COMPARISON = pd.DataFrame(
    [
        ("he_normal", 2, 5, 0, 0.975, 0.0051, 0.96866, 0.98133, 0.025, 0.01251, 0.03749),
        ("glorot_uniform", 2, 5, 1, 0.95, 0.01, 0.93758, 0.96242, np.nan, np.nan, np.nan),
        ("zeros", 2, 1, 0, 0.1, np.nan, np.nan, np.nan, -0.85, np.nan, np.nan),
        ("ones", 2, 0, 5, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan),
    ],
    columns=[
        *BY, "seeds", "failures", "mean", "sd", "low", "high", "difference", "difference_low", "difference_high",
    ],
)  # fmt: skip
BASELINE = {"initializer": "glorot_uniform"}

TERMINAL = """
initializer     depth      seeds    failed  val accuracy     95 % interval     difference to glorot_uniform    95 % interval
--------------  -------  -------  --------  ---------------  ----------------  ------------------------------  ------------------
he_normal       2              5         0  0.9750 ± 0.0051  [0.9687, 0.9813]  +0.0250                         [+0.0125, +0.0375]
glorot_uniform  2              5         1  0.9500 ± 0.0100  [0.9376, 0.9624]  baseline
zeros           2              1         0  0.1000           –                 -0.8500                         –
ones            2              0         5  –                –                 –                               –
"""  # noqa: E501
MARKDOWN = """
| initializer    | depth   |   seeds |   failed | val accuracy    | 95 % interval    | difference to glorot_uniform   | 95 % interval      |
|:---------------|:--------|--------:|---------:|:----------------|:-----------------|:-------------------------------|:-------------------|
| he_normal      | 2       |       5 |        0 | 0.9750 ± 0.0051 | [0.9687, 0.9813] | +0.0250                        | [+0.0125, +0.0375] |
| glorot_uniform | 2       |       5 |        1 | 0.9500 ± 0.0100 | [0.9376, 0.9624] | baseline                       |                    |
| zeros          | 2       |       1 |        0 | 0.1000          | –                | -0.8500                        | –                  |
| ones           | 2       |       0 |        5 | –               | –                | –                              | –                  |
"""  # noqa: E501
LATEX = r"""
\begin{tabular}{llrrllll}
\toprule
initializer & depth & seeds & failed & val accuracy & 95 \% interval & difference to glorot\_uniform & 95 \% interval \\
\midrule
he\_normal & 2 & 5 & 0 & 0.9750 ± 0.0051 & [0.9687, 0.9813] & +0.0250 & [+0.0125, +0.0375] \\
glorot\_uniform & 2 & 5 & 1 & 0.9500 ± 0.0100 & [0.9376, 0.9624] & baseline & \\
zeros & 2 & 1 & 0 & 0.1000 & – & -0.8500 & – \\
ones & 2 & 0 & 5 & – & – & – & – \\
\bottomrule
\end{tabular}
"""


def table(format, comparison=COMPARISON, by=BY, baseline=BASELINE):
    return tables.comparison_table(comparison, by, "val_accuracy", baseline, format)


def stripped(text):
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("format", "golden"), [("terminal", TERMINAL), ("markdown", MARKDOWN)])
def test_a_table_is_what_it_was(format, golden):
    assert stripped(table(format)) == stripped(golden)


def test_a_latex_table_is_what_it_was_but_for_spaces():
    assert [" ".join(line.split()) for line in table("latex").splitlines()] == LATEX.strip().splitlines()


def test_csv_has_every_number_in_full():
    read = pd.read_csv(io.StringIO(table("csv")))
    pd.testing.assert_frame_equal(read, COMPARISON)


def test_latex_has_as_many_cells_in_each_row_and_nothing_unescaped():
    comparison = COMPARISON.assign(initializer=["a_b", "50 %", "x & y", "{#$^~\\"], **{"model.depth": [(8, 16)] * 4})
    text = table("latex", comparison.set_index("model.depth").reset_index(), ["model.depth", "initializer"], {})
    rows = re.search(r"\\toprule\n(.*)\\bottomrule", text, re.DOTALL)[1].replace("\\midrule\n", "").splitlines()
    for row in rows:
        assert row.endswith(r"\\") and len(re.findall(r"(?<!\\)&", row)) == 5
        assert not re.search(r"(?<!\\)[_%#$]", row)
        assert not row.strip().startswith("[")  # an argument of the \\ before it


def test_every_format_is_rendered_without_rows_without_factors_and_without_a_baseline():
    for format in tables.FORMATS:
        assert "val" in table(format, COMPARISON.iloc[:0]) or format == "csv"
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


def test_factors_that_end_alike_keep_their_whole_names():
    comparison = COMPARISON.rename(columns={"initializer": "other.depth"})
    header = table("terminal", comparison, ["other.depth", "model.depth"], {}).splitlines()[0]
    assert header.split()[:2] == ["other.depth", "model.depth"]
