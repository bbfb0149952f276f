"""Render a comparison: to the terminal, Markdown, CSV, LaTeX. Computes nothing."""

import pandas as pd
from tabulate import tabulate

FORMATS = ("terminal", "markdown", "csv", "latex")


def comparison_table(
    comparison: pd.DataFrame, by: list[str], metric: str, baseline: dict, format: str = "terminal"
) -> str:
    """A comparison as text: an arm a row.

    Args:
        comparison: what `estimates.comparison` gave.
        format: one of `FORMATS`; CSV has every number in full, the others what a reader needs.
    """
    if format == "csv":
        return comparison.to_csv(index=False)
    names = [_short(factor, by) for factor in by]
    anchors = [factor for factor in by if factor in baseline]
    headers = [*names, "seeds", "failed", metric.replace("_", " "), "95 % interval"]
    if anchors:
        against = ", ".join(str(baseline[factor]) for factor in anchors)
        headers += [f"difference to {against}", "95 % interval"]
    rows = []
    for row in comparison.to_dict("records"):
        cells = [row[factor] for factor in by] + [
            row["seeds"],
            row["failures"],
            _mean(row),
            _interval(row["low"], row["high"]),
        ]
        if anchors:
            own = all(row[factor] == baseline[factor] for factor in anchors)
            cells += ["baseline" if own else _signed(row["difference"])]
            cells += ["" if own else _interval(row["difference_low"], row["difference_high"], sign=True)]
        rows.append([_text(cell) for cell in cells])
    if format == "latex":
        headers = [_latex(header) for header in headers]
        rows = [[_latex(cell) for cell in row] for row in rows]
    style = {"terminal": "simple", "markdown": "pipe", "latex": "latex_raw"}[format]
    style = "latex_booktabs_raw" if format == "latex" else style
    aligned = ["left"] * len(by) + ["right"] * 2 + ["left"] * (len(headers) - len(by) - 2)
    if format == "latex":
        return _booktabs(headers, rows, aligned)
    return tabulate(rows, headers, tablefmt=style, colalign=aligned if rows else None, disable_numparse=True)


def _booktabs(headers, rows, aligned) -> str:
    lines = [
        r"\begin{tabular}{" + "".join(a[0] for a in aligned) + "}",
        r"\toprule",
        " & ".join(headers) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _short(factor: str, by: list[str]) -> str:
    last = factor.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in by) == 1 else factor


def _text(cell) -> str:
    return str(cell)


def _missing(value) -> bool:
    return value != value


def _mean(row) -> str:
    if _missing(row["mean"]):
        return "–"
    return f"{row['mean']:.4f}" if _missing(row["sd"]) else f"{row['mean']:.4f} ± {row['sd']:.4f}"


def _signed(value) -> str:
    return "–" if _missing(value) else f"{value:+.4f}"


def _interval(low, high, sign=False) -> str:
    if _missing(low):
        return "–"
    return f"[{low:+.4f}, {high:+.4f}]" if sign else f"[{low:.4f}, {high:.4f}]"


def _latex(text: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "),
        ("_", r"\_"),
        ("%", r"\%"),
        ("&", r"\&"),
        ("#", r"\#"),
        ("$", r"\$"),
    ):
        text = text.replace(plain, escaped)
    return (
        text.replace("±", r"$\pm$").replace("–", "--").replace("{", r"\{").replace("}", r"\}")
        if "{" in text
        else text.replace("±", r"$\pm$").replace("–", "--")
    )
