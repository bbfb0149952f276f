"""What a user sees: MLflow's pages of a real store, and the report, in a real browser. Screenshots: tests/output/."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from test_story import examples

from analysis import load, ui
from analysis.show import story

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "tests" / "output"
STUDY = ["+study.factors={initializer:[he_normal,orthogonal]}", "study.seeds=2", "training.epochs=3", "study.name=seen"]
EXECUTION = "epochs=3 seeds=2 factors={initializer:[he_normal,orthogonal]} (4 trials)"
QUESTION = "How does val accuracy depend on initializer?"
TRIALS = [f"{arm} seed={seed}" for arm in ("he_normal", "orthogonal") for seed in (0, 1)]
COLUMNS = ("val_accuracy", "initializer", "seed", "trial.status")
LAYERS = ("dense_1", "dense_2", "logits")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.slow

expect.set_options(timeout=40_000)  # a busy machine's

MLFLOWS_OWN = (
    # A server without users is asked who the user is.
    r"Failed to load resource: the server responded with a status of 404 \(Not Found\) .*/mlflow/users/current",
    r"null ResizeObserver loop completed with undelivered notifications\. .*/static-files/.*",
)
"""Errors in the console that MLflow's pages cause whatever the store holds."""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield started
        started.close()


@pytest.fixture(scope="module")
def root(browser, fresh, trained, tmp_path_factory):
    """The store of a study."""
    store = shutil.copytree(fresh, tmp_path_factory.mktemp("seen") / "store")
    trained(*STUDY, f"tracking.root={store}")
    OUTPUT.mkdir(exist_ok=True)
    return store


@pytest.fixture(scope="module")
def served(root):
    """The command that shows the store, and what it printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:  # of its own: another test may be about to take 5000
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "analysis.ui", "--root", str(root), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed = ""
    while "Ctrl-C" not in printed:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        printed += line
    yield process, printed
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def window(browser, served):
    """A browser's page for all tests, since MLflow's take seconds to load; and what went wrong on it, or elsewhere."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    errors, elsewhere = [], []
    context.on("console", lambda m: errors.append(f"{m.text} {m.location['url']}") if m.type == "error" else None)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on(
        "request", lambda r: elsewhere.append(r.url) if not re.match(r"(http://127|blob:|data:)", r.url) else None
    )
    opened = context.new_page()
    opened.set_default_timeout(40_000)
    yield opened, errors, elsewhere
    context.close()


@pytest.fixture
def page(window):
    """The page, as if it were new; nothing on it may go wrong, nor ask another machine for anything."""
    opened, errors, elsewhere = window
    yield opened
    for other in opened.context.pages[1:]:
        other.close()
    opened.evaluate("localStorage.clear(), sessionStorage.clear()")
    found = [error for error in errors if not any(re.fullmatch(known, error) for known in MLFLOWS_OWN)]
    asked = [*elsewhere]
    errors.clear()
    elsewhere.clear()
    assert found == [] and asked == []


@pytest.fixture
def address(served):
    """A function from a word of the guide to the address behind it."""
    return lambda words: re.search(rf"{words} +(\S+)", served[1])[1]


def shot(page, name):
    page.wait_for_timeout(400)  # pages unfold
    page.screenshot(path=OUTPUT / f"{name}.png")


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def unfold(page):
    """Show the trials of the execution in the list of runs."""
    row(page, EXECUTION).get_by_role("gridcell").filter(has_text=EXECUTION).get_by_role("button").click()


def run_of(root, name):
    """The address, within MLflow's pages, of a trial's run."""
    found = load.trials("seen", root)
    arm, seed = name.split(" seed=")
    [folder] = found[(found["initializer"] == arm) & (found["seed"] == int(seed))]["folder"]
    return f"{load.execution('seen', root).experiment_id}/runs/{folder.parent.name}"


def test_the_list_of_runs_nests_trials_that_are_named_by_arm_and_seed(page, address):
    page.goto(address("all runs"))
    expect(row(page, EXECUTION)).to_be_visible()
    assert not any(row(page, name).count() for name in TRIALS)
    unfold(page)
    for name in TRIALS:
        expect(row(page, name)).to_be_visible()
    expect(page.get_by_text(QUESTION)).to_be_visible()
    columns = [page.get_by_role("columnheader").get_by_text(name, exact=True) for name in COLUMNS]
    places = [column.first.bounding_box()["x"] for column in columns]
    assert places == sorted(places)
    shot(page, "runs")


def test_a_filter_that_is_typed_leaves_the_trials_that_it_says(page, address):
    page.goto(address("all runs"))
    box = page.get_by_placeholder("metrics.rmse")
    for query, count in (  # no two in a row leave as many
        ("", 4),
        ("tags.trial.seed = '1'", 2),
        (ui.FILTERS[0], 0),
        ("tags.`trial.seed` = '1'", 2),
        (ui.FILTERS[1].replace("0.9", "0.2"), 4),
        ("params.initializer = 'he_normal' and tags.study = 'seen'", 2),
    ):
        box.fill(query)
        box.press("Enter")
        with_parent = count + (count > 0)
        expect(page.get_by_text(re.compile(rf"^{with_parent} matching run"))).to_be_visible()


def test_an_execution_says_what_it_asked_found_and_ran_on(page, address, root):
    page.goto(address("latest execution"))
    expect(page.get_by_role("paragraph").filter(has_text=QUESTION)).to_be_visible()
    shot(page, "execution")
    page.get_by_text("Show more").click()
    expect(page.get_by_role("cell", name="he_normal", exact=True)).to_be_visible()
    for name in TRIALS:
        expect(page.get_by_role("link", name=name)).to_be_visible()
    tags = load.execution("seen", root).tags
    if commit := tags.get("mlflow.source.git.commit"):
        expect(page.get_by_text(commit[:7])).to_be_visible()
    assert tags["mlflow.source.name"].startswith("python -m studies.run '+study.factors={initializer:[")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="report.html").click()
    expect(opened.value.frame_locator("iframe").get_by_role("heading", name=QUESTION)).to_be_visible()


def test_an_execution_charts_the_mean_of_each_arm(page, address):
    page.goto(address("latest execution").replace("?", "/model-metrics?"))
    expect(page.get_by_text("val_accuracy of arms", exact=True)).to_be_visible()
    for arm in ("he_normal", "orthogonal"):
        expect(page.get_by_text(arm, exact=True).first).to_be_visible()
    shot(page, "execution-charts")


def test_a_dataset_says_what_was_trained_on(page, address):
    page.goto(address("latest execution"))
    page.get_by_text("digits (").click()
    expect(page.get_by_text("training examples: 1151")).to_be_visible()
    expect(page.get_by_text("image shape: [8,8,1]")).to_be_visible()
    shot(page, "dataset")


def test_a_trial_has_its_factors_first_and_charts_for_each_layer(page, address, root):
    trial = address("all runs").replace("1/runs", run_of(root, "orthogonal seed=1"))
    page.goto(trial)
    expect(page.get_by_role("heading", name="orthogonal seed=1")).to_be_visible()
    expect(page.get_by_text("batch_size")).to_be_attached()
    names = page.locator("text=/^(initializer|seed|data|model|optimizer|training)(\\.|$)/").all_inner_texts()
    assert names[:3] == ["initializer", "seed", "data"]
    shot(page, "trial")

    page.goto(trial.replace("?", "/model-metrics?"))
    expect(page.get_by_text("accuracy and loss", exact=True)).to_be_visible()
    above = page.get_by_text("activations/dense_1", exact=True).bounding_box()["y"]
    assert page.get_by_text("val_accuracy", exact=True).first.bounding_box()["y"] < above
    sections = [f"{kind}/{layer}" for kind in ("gradients", "updates", "weights") for layer in LAYERS]
    for section in sections:
        expect(page.get_by_text(section, exact=True)).to_be_attached()
    page.get_by_text("weights/dense_1", exact=True).scroll_into_view_if_needed()
    for chart in ("l2", "distance"):
        expect(page.get_by_text(chart, exact=True).first).to_be_visible()
    shot(page, "trial-charts")


def test_trials_that_are_checked_are_compared_by_the_studys_metric(page, address):
    page.goto(address("all runs"))
    unfold(page)
    for name in TRIALS:
        row(page, name).get_by_role("checkbox").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Comparing 4 Runs")).to_be_visible()
    plot = page.locator(".js-plotly-plot").first
    for words in ("val_accuracy", "initializer", "he_normal", "orthogonal"):
        expect(plot.get_by_text(words, exact=True).first).to_be_visible()
    shot(page, "compare")


def test_the_report_and_a_figure_open_among_the_artifacts(page, address):
    page.goto(address("its report"))
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name=QUESTION)).to_be_visible()
    expect(report.get_by_text("has the highest val accuracy")).to_be_visible()
    expect(report.locator("figure[data-chart=val_accuracy] canvas")).to_be_visible()
    report.locator(".trials a").first.click()
    expect(report.get_by_role("heading", name="he_normal, seed 0: finished")).to_be_visible()
    report.get_by_role("link", name="back to the report").click()
    expect(report.get_by_role("heading", name=QUESTION)).to_be_visible()
    shot(page, "report-among-artifacts")
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("weights.svg").click()
    expect(page.locator("img").first).to_be_visible()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth > 300)")
    shot(page, "figure-among-artifacts")


@pytest.fixture
def report(browser, root):
    """A function that opens the report as a file; it asks for nothing else and has nothing to complain of."""
    contexts, asked, said = [], [], []
    file = (load.execution("seen", root).folder / "report.html").as_uri()

    def opened(**settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("console", lambda message: said.append(message.text))
        context.on("weberror", lambda error: said.append(str(error.error)))
        page = context.new_page()
        page.goto(file)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert set(asked) == {file} and said == []


def brightness(page, of):
    """Of a CSS colour of the page's body, 0 (black) to 1 (white)."""
    colour = page.evaluate(f"getComputedStyle(document.body).{of}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 / 255


def test_a_report_of_trained_trials_is_explored(report, root):
    """What else can be done with one: test_explore.py."""
    page = report()
    trials = load.trials("seen", root)
    page.locator(f".trials a[href='#trial-{trials['key'].iloc[-1]}']").click()
    expect(page.get_by_role("heading", name="orthogonal, seed 1: finished")).to_be_visible()
    expect(page.locator("#trial")).to_contain_text(f"{trials['val_accuracy'].iloc[-1]:.4g}")
    expect(page.locator("#trial canvas")).to_have_count(6)
    panel = page.locator("#trial .panel").nth(3)
    panel.locator(".u-over").hover(position={"x": 5, "y": 60})
    layers = load.layers("seen", root, [trials["key"].iloc[-1]], ["l2"])
    drawn = layers[(layers["epoch"] == 0) & (layers["layer"] == "logits") & (layers["tensor"] == "kernel")]["l2"].iloc[
        0
    ]
    expect(panel.locator(".tip")).to_contain_text(f"logits: {drawn:.3g}")
    page.screenshot(path=OUTPUT / "report-trial.png", full_page=True)


CONTRAST = """
  const found = [], numbers = words => words.match(/[\\d.]+/g).map(Number)
  const light = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    return .2126 * r + .7152 * g + .0722 * b }
  const paper = light(numbers(getComputedStyle(document.body).backgroundColor).slice(0, 3))
"""
"""What tells how light a colour, and the page's paper, are (WCAG 2.2)."""

TROUBLE = (
    "() => {"
    + CONTRAST
    + """
  for (const element of document.querySelectorAll('p, li, dd, dt, h3, figcaption, .chip, .soft, a, svg text')) {
    const style = getComputedStyle(element), svg = element.ownerSVGElement
    const ink = light(numbers(svg ? style.fill : style.color).slice(0, 3))
    if ((Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) < 4.5) found.push(`faint: ${element.textContent}`)
    const size = parseFloat(style.fontSize) * (svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1)
    if (size < 10) found.push(`small, ${size}: ${element.textContent}`)
  }
  for (const svg of document.querySelectorAll('svg')) {
    const whole = svg.getBoundingClientRect()
    const there = [...svg.querySelectorAll('text')].filter(text => text.textContent)
    const texts = there.map(text => [text.textContent, text.getBoundingClientRect()])
    texts.forEach(([words, box], n) => {
      const within = box.left > whole.left - 1 && box.right < whole.right + 1 && box.bottom < whole.bottom + 1
      if (!within) found.push(`cut: ${words}`)
      for (const [other, place] of texts.slice(0, n)) {
        const wide = Math.min(box.right, place.right) - Math.max(box.left, place.left)
        const high = Math.min(box.bottom, place.bottom) - Math.max(box.top, place.top)
        if (wide > 1 && high > 4) found.push(`over another: ${words}, ${other}`)
      }
    })
  }
  return found
}"""
)
"""What is wrong with a page: text that is faint (a contrast below 4.5), small, cut off or over another."""


def test_the_board_reads_on_a_telephone_a_screen_and_paper_in_light_and_dark(browser, tmp_path):
    OUTPUT.mkdir(exist_ok=True)
    file = tmp_path / "board.html"
    file.write_text(story.page(examples()), encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    for width in (390, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert (brightness(page, "backgroundColor") > 0.8) == (scheme == "light")
            assert page.evaluate(TROUBLE) == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.screenshot(path=OUTPUT / f"board-{width}-{scheme}.png", full_page=True)
    pdf = page.pdf(path=OUTPUT / "board.pdf", format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    page.emulate_media(media="print", color_scheme="dark")
    assert brightness(page, "backgroundColor") == 1 and brightness(page, "color") == 0
    assert page.locator("svg").first.evaluate("svg => getComputedStyle(svg.parentElement).breakInside") == "avoid"
    page.locator(".contents a", has_text="Sloth").click()
    assert page.url.endswith("#idle")
    context.close()
    assert {address.partition("#")[0] for address in asked} == {file.as_uri()} and said == []


def test_a_foreign_host_is_refused_and_nobody_else_is_listened_to(served):
    """As a page elsewhere would ask whose name has been made to lead here."""
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)", served[1])[1])
    for host, expected in ((f"127.0.0.1:{port}", 200), ("evil.example.com", 403), (f"evil.example.com:{port}", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host})
        assert connection.getresponse().status == expected, host
        connection.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=2)


def test_the_server_is_two_processes_and_ctrl_c_leaves_none(served):
    process, _ = served
    [server] = children(process.pid)
    family = [server, *children(server)]
    assert len(family) == 2
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0 and error == ""
    deadline = time.monotonic() + 5
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, family))


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
