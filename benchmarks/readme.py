"""The documents' tables: the main job's as it is printed, and the README's board of claims as it stands in a store.

The first is made by `make readme`, or `python -m benchmarks.readme --root mlruns`: without `--root` the study is
trained anew, in a store of its own, so that the table is a first look's, on this machine. The second is made by
`python -m benchmarks.readme --board --root mlruns` of the verdicts that `make claims` left there; nothing is trained.
`--picture` is the main job's report as a browser shows it, Chromium, which it needs.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from analysis import claims, command, compare, load, report
from analysis.show import board, sentences
from studies.record import StudyError, listed

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MAIN_JOB = ROOT / "docs" / "main_job.md"
PICTURE = ROOT / "docs" / "report.png"
SEEN = {"width": 1000, "height": 1250}
"""How much of the report the picture shows, in pixels."""
STUDY = "init_comparison"
BEGIN, END = "<!-- made by make readme, not by hand -->\n", "<!-- end -->\n"
BOARD = "<!-- made by python -m benchmarks.readme --board --root mlruns, not by hand -->\n"
BOARD_END = "<!-- end of the board -->\n"


def main(arguments: list[str] | None = None) -> int:
    """Write a table into its document; gives the exit code, 2 for what the user can put right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description="Make the documents' tables.")
    parser.add_argument("--board", action="store_true", help="the board of claims, of the store's verdicts")
    parser.add_argument("--picture", action="store_true", help="the picture of the report, of the store's main job")
    parser.add_argument("--root", help=f"a store with {STUDY} (default: one that is made for it, in a minute)")
    options = parser.parse_args(arguments)

    def run():
        if options.picture:
            picture(options.root or "mlruns")
        elif options.board:
            fill(README, board_part(options.root or "mlruns"), BOARD, BOARD_END)
        else:
            with tempfile.TemporaryDirectory(prefix="studies-readme-") as folder:
                fill(MAIN_JOB, part(options.root or _trained(Path(folder) / "store")), BEGIN, END)

    return command.ended(run)


def part(root: str | Path) -> str:
    """The table that a store's study has, indented, and a paragraph that says what it was made on.

    Raises:
        StudyError: the store has no such study, or its trials are of several machines or versions.
    """
    executions = {each.run_id: each for each in load.executions(STUDY, root)}
    compared = set(load.execution(STUDY, root).keys)
    parents = [run.tags["mlflow.parentRunId"] for run in load.ended(STUDY, root) if run.tags["trial.key"] in compared]
    made = list(dict.fromkeys(_surroundings(executions[parent].tags) for parent in parents if parent in executions))
    if len(made) != 1:
        raise StudyError(
            f"--root {root}: the trials of {STUDY} were trained on several machines or by several versions "
            f"({'; '.join(made) or 'none is known'}): leave out --root to train them on this one"
        )
    table = compare.table(STUDY, root).partition("\n\n")[0]
    said = f"Made on {made[0]}. Another processor rounds otherwise, which shows in the digits after some epochs."
    return f"\n{textwrap.indent(table, '    ')}\n\n{textwrap.fill(said, 120)}\n\n"


def picture(root: str | Path) -> None:
    """Draw the head of the main job's report as a browser shows it, and print the picture's path.

    Raises:
        StudyError: the store has no such study, or there is no browser.
    """
    from playwright.sync_api import sync_playwright

    execution = load.execution(STUDY, root)
    page = report.report(execution, load.trials(STUDY, root, execution.arms), root)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise StudyError("--picture: there is no chromium, chromium-browser or google-chrome on the PATH: install one")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = browser.new_page(viewport=SEEN)
        shown.goto(page.copy(Path(folder) / report.FILE).as_uri())
        shown.wait_for_timeout(2000)  # its curves are drawn
        shown.screenshot(path=PICTURE)
        browser.close()
    print(PICTURE)


def board_part(root: str | Path) -> str:
    """The short form of the board that a store's verdicts make, and a paragraph that says what they are of."""
    records = claims.rows(root)
    ran = [record for record in records if record["verdict"] != sentences.NOT_RUN]
    machines = list(dict.fromkeys(record["machine"].partition(" ")[2] for record in ran))
    profiles = list(dict.fromkeys(record["profile"] for record in ran))
    said = "`python -m analysis.claims --format html --to board.html` tells of each on a page."
    if ran:
        said = f"The {' and '.join(profiles)} profile, on {'; '.join(machines) or 'an unknown machine'}. {said}"
    return f"\n{board.short_form(records)}.\n\n{textwrap.fill(said, 120)}\n\n"


def fill(page: Path, part: str, begin: str, end: str) -> None:
    """Put `part` between two marks of a document, in place of what was there, and print the document's path.

    Raises:
        StudyError: it has not one of each mark, in their order.
    """
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended or begin in rest or end in before + after:
        raise StudyError(f"{page}: expected one line {begin.strip()} and, after it, one line {end.strip()}")
    page.write_text(before + begin + part + end + after, encoding="utf-8")
    print(page)


def _trained(root: Path) -> Path:
    command = [sys.executable, "-m", "studies.run", f"+study={STUDY}", f"tracking.root={root}"]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise StudyError(f"{STUDY} did not end well: see above")
    return root


def _surroundings(tags) -> str:
    """`x86_64, AMD EPYC 7B13, 2 cores, 8 GB, with keras 3.12.0, …`: a machine without its name."""
    versions = [f"{n.removeprefix('version.')} {tags[n]}" for n in ("version.tensorflow", "version.keras") if n in tags]
    return f"{tags.get('machine', '').partition(' ')[2] or 'an unknown machine'}, with {listed(versions)}"


if __name__ == "__main__":
    sys.exit(main())
