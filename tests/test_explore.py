"""A report as it is used: hovered, sifted, a trial opened, printed; in a real browser. Screenshots: tests/output/."""

import re
import shutil

import pytest
from playwright.sync_api import expect
from test_browser import CONTRAST, OUTPUT, brightness, browser  # noqa: F401  a fixture
from test_report import NASTY, grid, write

from analysis import load, report
from analysis.estimate import foretell

pytestmark = pytest.mark.slow

INITIALIZERS = tuple(f"initializer_{n}" for n in range(8))
LOST = "initializer_1"
QUESTION = "Does it train?"


@pytest.fixture(scope="module")
def stores(fresh, tmp_path_factory):
    """A function from a name and a design to the store of a study of made-up trials, and the file of its report."""

    def made(name, arms, **settings):
        root = shutil.copytree(fresh, tmp_path_factory.mktemp("explored") / name)
        write(root, arms, **settings)
        with pytest.MonkeyPatch.context() as patch:
            for number in ("RESAMPLES", "PERMUTATIONS"):
                patch.setattr(foretell, number, 50)
            assert report.main(["made up", "--root", str(root), "--to", str(root / "page.html")]) == 0
        return root, root / "page.html"

    OUTPUT.mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="module")
def store(stores):
    """The store of eight initializers at two depths, one of which diverges at one, and the file of its report."""
    lost = {"initializer": LOST, "model.depth": 8}
    return stores(
        "eight",
        grid(initializer=INITIALIZERS, model__depth=(2, 8)),
        question=QUESTION,
        baseline={"initializer": INITIALIZERS[0]},
        status=lambda arm, seed: "diverged" if arm == lost else "finished",
    )


@pytest.fixture
def opened(browser, store):  # noqa: F811
    """A function that opens the report: it asks for nothing else, and has nothing to complain of."""
    contexts, asked, said = [], [], []

    def page(file=store[1], ready=True, script="", **settings):
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **settings})
        contexts.append(context)
        new = context.new_page()
        new.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        new.on("console", lambda message: said.append(message.text))
        new.on("pageerror", lambda error: said.append(str(error)))
        new.on("dialog", lambda dialog: said.append(dialog.message))
        if script:
            new.add_init_script(script)
        new.goto(file.as_uri())
        if ready:
            expect(new.locator("html.live")).to_be_attached()
        return new

    yield page
    for context in contexts:
        context.close()
    assert {address for address in asked if not address.startswith("data:")} <= {contexts and asked[0]} and said == []


TROUBLE = (
    "() => {"
    + CONTRAST
    + """
  const all = 'p, li, dd, dt, h1, h2, h4, figcaption, caption, td, th, a, .chip, label, input, summary, .panel svg text'
  for (const element of document.querySelectorAll(all + ', .still svg text')) {
    if (!element.checkVisibility() || !element.textContent.trim()) continue
    const style = getComputedStyle(element), svg = element.ownerSVGElement, still = element.closest('.still')
    const ink = light(numbers(svg ? style.fill : style.color).slice(0, 3))
    if (!still && (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) < 4.5)
      found.push(`faint: ${element.textContent}`)
    const scale = still ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1
    const size = parseFloat(style.fontSize) * scale
    if (size < 9.99) found.push(`small, ${size}: ${element.textContent}`)
    if (!svg) continue
    const whole = svg.getBoundingClientRect(), box = element.getBoundingClientRect()
    if (box.left < whole.left - 2 || box.right > whole.right + 2 || box.bottom > whole.bottom + 2)
      found.push(`cut: ${element.textContent}`)
  }
  for (const box of document.querySelectorAll('.wide, pre, .panel, .chips')) {
    if (!box.checkVisibility() || box.scrollWidth <= box.clientWidth + 2) continue
    const scrolls = ['auto', 'scroll'].includes(getComputedStyle(box).overflowX)
    const shade = getComputedStyle(box).backgroundImage.includes('gradient')
    if (!scrolls || !shade) found.push(`cut without a cue: ${box.className}`)
  }
  return found
}"""
)
"""What is wrong with a page: text that is faint, below ten pixels or cut off, and boxes that are without saying so."""


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scripts", [True, False], ids=["live", "still"])
def test_a_report_reads_at_any_width_in_light_and_dark_with_and_without_script(opened, width, scripts):
    page = opened(
        ready=scripts,
        viewport={"width": width, "height": 900},
        color_scheme="light",
        java_script_enabled=scripts,
        is_mobile=width < 500,
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        name = f"explore-{width}-{scheme}{'' if scripts else '-still'}"
        page.screenshot(path=OUTPUT / f"{name}.png", full_page=True)
        assert (brightness(page, "backgroundColor") > 0.8) == (scheme == "light")
        assert page.evaluate(TROUBLE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        figure = page.locator("figure[data-chart=val_accuracy]")
        assert figure.locator(".still").is_visible() != scripts
        assert page.locator(".unscripted").is_visible() != scripts
        assert figure.locator("canvas").count() == (2 if scripts else 0)
    if scripts and width < 500:
        assert page.locator(".cue:visible").count() > 0
        page.evaluate("location.hash = document.querySelector('.trials a').hash")
        expect(page.get_by_role("heading", name="Config")).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(TROUBLE) == [] and page.evaluate("document.documentElement.scrollWidth") == width


def over(page, chart, panel=0):
    return page.locator(f"figure[data-chart={chart}] .u-over").nth(panel)


def tip(page, chart, panel=0):
    return page.locator(f"figure[data-chart={chart}] .panel").nth(panel).locator(".tip")


def hover(page, chart, panel, share):
    area = over(page, chart, panel)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    area.hover(position={"x": box["width"] * share, "y": box["height"] / 3})


def test_a_curve_that_is_hovered_says_its_numbers(opened, store):
    page = opened()
    hover(page, "val_accuracy", 1, 0.99)
    said = tip(page, "val_accuracy", 1)
    expect(said).to_contain_text("epoch 4")
    trials = load.trials("made up", store[0])
    best = trials[(trials["initializer"] == INITIALIZERS[3]) & (trials["model.depth"] == 8)]["val_accuracy"].mean()
    assert f"{INITIALIZERS[3]}: {best:.4g} [" in said.inner_text()
    assert said.locator(".near").count() == 1 and tip(page, "val_accuracy", 0).is_hidden()
    hover(page, "val_accuracy", 1, 0.25)
    expect(said).to_contain_text(f"{LOST}: 0.1 [0.1, 0.1] × trials fail")
    page.mouse.move(2, 2)
    expect(said).to_be_hidden()
    page.screenshot(path=OUTPUT / "explore-hover.png")


def test_a_part_of_the_curves_is_looked_at_closer(opened):
    page = opened()
    hover(page, "val_accuracy", 0, 0.02)
    expect(tip(page, "val_accuracy")).to_contain_text("epoch 0")
    box = over(page, "val_accuracy").bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 50, steps=4)
    page.mouse.up()
    hover(page, "val_accuracy", 0, 0.02)
    expect(tip(page, "val_accuracy")).to_contain_text("epoch 2")
    over(page, "val_accuracy").dblclick()
    hover(page, "val_accuracy", 0, 0.02)
    expect(tip(page, "val_accuracy")).to_contain_text("epoch 0")


def test_curves_are_read_by_keyboard_too(opened):
    page = opened()
    panel = page.locator("figure[data-chart=running_loss] .panel").first
    panel.focus()
    for epoch in (0, 1, 2):
        page.keyboard.press("ArrowRight")
        expect(tip(page, "running_loss")).to_contain_text(f"epoch {epoch}")
    page.keyboard.press("ArrowLeft")
    expect(tip(page, "running_loss")).to_contain_text("epoch 1")
    panel.blur()
    expect(tip(page, "running_loss")).to_be_hidden()


def test_arms_are_switched_off_in_all_charts(opened):
    page = opened()
    chip = page.locator("figure[data-chart=val_accuracy] .chip", has_text=INITIALIZERS[3])
    dots = page.locator("figure[data-chart=comparison] svg a")
    assert dots.count() == 48
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert (
        dots.count() == 42
        and page.locator(f"figure[data-chart=comparison] .panel svg >> text={INITIALIZERS[3]}").count() == 0
    )
    for chart in ("val_accuracy", "running_loss", "kernels"):
        hover(page, chart, 0, 0.99)
        expect(tip(page, chart)).to_contain_text(INITIALIZERS[2])
        assert INITIALIZERS[3] not in tip(page, chart).inner_text()
    page.locator("figure[data-chart=running_loss]").get_by_role("button", name="none", exact=True).click()
    assert dots.count() == 0
    page.locator("figure[data-chart=comparison]").get_by_role("button", name="all", exact=True).click()
    assert dots.count() == 48 and chip.get_attribute("aria-pressed") == "true"
    hover(page, "val_accuracy", 0, 0.99)
    expect(tip(page, "val_accuracy")).to_contain_text(INITIALIZERS[3])


def test_weights_are_explored_one_depth_and_one_kernel_at_a_time(opened):
    page = opened()
    figure = page.locator("figure[data-chart=kernels]")
    assert figure.locator("canvas").count() == 3
    figure.get_by_label("kernel", exact=True).select_option("logits")
    hover(page, "kernels", 0, 0.5)
    before = tip(page, "kernels").inner_text()
    figure.get_by_label("at", exact=True).select_option("depth=8")
    assert figure.get_by_label("kernel", exact=True).locator("option:checked").inner_text() == "logits"
    hover(page, "kernels", 0, 0.5)
    expect(tip(page, "kernels")).to_contain_text("epoch 2")
    assert tip(page, "kernels").inner_text() != before


def column(table, n):
    return [row.strip() for row in table.locator(f"tbody tr:visible > :nth-child({n})").all_inner_texts()]


def test_tables_are_sorted_and_sifted(opened):
    page = opened()
    table = page.locator("#comparison ~ .wide table").first
    plain = column(table, 5)
    values = [float(text.split()[0]) for text in plain]
    header = table.get_by_role("columnheader", name="val accuracy", exact=True)
    for order, expected in (("ascending", sorted(values)), ("descending", sorted(values)[::-1])):
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == order
        assert [float(text.split()[0]) for text in column(table, 5)] == expected
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") is None and column(table, 5) == plain
    box = page.get_by_label("filter rows of val accuracy by initializer and model.depth")
    box.fill("initializer_3")
    assert column(table, 1) == ["initializer_3"] * 2 and page.get_by_text("2 of 16 rows").is_visible()
    box.fill("nothing like it")
    assert column(table, 1) == []
    box.fill("")
    assert len(column(table, 1)) == 16
    trials = page.locator(".trials table")
    page.get_by_label("filter rows of All 48 trials").fill("diverged")
    assert set(column(trials, 2)) == {LOST} and len(column(trials, 2)) == 3


def test_a_trials_page_opens_by_click_and_leads_back(opened, store):
    page = opened()
    trials = load.trials("made up", store[0])
    lost = trials[(trials["initializer"] == LOST) & (trials["model.depth"] == 8)].iloc[1]
    mark = page.locator(f"figure[data-chart=comparison] a[href='#trial-{lost['key']}']")
    mark.hover()
    expect(page.locator("figure[data-chart=comparison] .tip:visible")).to_contain_text(", failed")
    mark.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{LOST} depth=8, seed 1: diverged")
    one = page.locator("#trial")
    for text in (lost["key"], "not finite in epoch 1", "seed 0", "Early warnings", "Curves", "Weights"):
        expect(one).to_contain_text(text)
    expect(one.get_by_role("heading", name="Config")).to_be_visible()
    assert page.locator("main").is_hidden() and LOST in page.title()
    one.get_by_role("link", name="seed 2", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{LOST} depth=8, seed 2: diverged")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{LOST} depth=8, seed 1: diverged")
    page.get_by_role("link", name="back to the report").click()
    expect(page.locator("main")).to_be_visible()
    assert page.title() == f"made up: {QUESTION}" and one.is_hidden()
    good = trials[(trials["initializer"] == INITIALIZERS[2]) & (trials["model.depth"] == 2)].iloc[0]
    page.locator(f".trials a[href='#trial-{good['key']}']").click()
    expect(one).to_contain_text(f"{good['val_accuracy']:.4g}")
    expect(one.locator("canvas")).to_have_count(6)
    panel = one.locator(".panel").nth(3)
    panel.locator(".u-over").hover(position={"x": 60, "y": 60})
    expect(panel.locator(".tip")).to_contain_text("dense_1: ")
    page.screenshot(path=OUTPUT / "explore-trial.png", full_page=True)
    page.get_by_role("link", name="back to the report").click()
    page.get_by_role("navigation").get_by_role("link", name="Weights").click()
    expect(page.get_by_role("heading", name="Weights", exact=True)).to_be_in_viewport()
    page.goto(f"{store[1].as_uri()}#trial-0000")
    expect(one).to_contain_text("There is no such trial in this report.")


def test_a_report_is_printed_with_its_figures(opened):
    page = opened(color_scheme="dark")
    assert page.pdf(path=OUTPUT / "explore.pdf", format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert brightness(page, "backgroundColor") == 1 and brightness(page, "color") == 0
    assert all(still.is_visible() for still in page.locator(".still").all())
    for hidden in (".chart", ".chips", ".sift", ".trials", ".cue", ".choices"):
        assert page.locator(f"{hidden}:visible").count() == 0


def test_what_a_browser_cannot_unpack_it_shows_as_figures(opened):
    page = opened(ready=False, script="delete window.DecompressionStream")
    assert page.locator("figure[data-chart=val_accuracy] .still").is_visible()
    assert page.locator("html.live").count() == 0 and page.locator(".unscripted").is_visible()


def test_names_of_any_kind_are_shown_and_not_run(opened, stores):
    arms = grid(initializer=NASTY, model__depth=(2, "</svg>"))
    _, file = stores("nasty", arms, seeds=2, question="Is <img src=x onerror=alert(1)>?")
    page = opened(file)
    assert page.locator("img").count() == 0 and page.locator("script").count() == 3
    for name in NASTY:
        expect(page.locator("figure[data-chart=comparison] .chip").get_by_text(name, exact=True)).to_be_visible()
    page.locator(".trials a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(NASTY[0])


def test_twelve_arms_have_a_panel_each(opened, stores):
    arms = grid(initializer=tuple(f"arm_{n}" for n in range(12)))
    _, file = stores("twelve", arms, seeds=2, weights=False)
    page = opened(file)
    panels = page.locator("figure[data-chart=val_accuracy] .panel")
    assert panels.locator("h4").all_inner_texts() == [f"arm_{n}" for n in range(12)]
    hover(page, "val_accuracy", 5, 0.99)
    said = panels.nth(5).locator(".tip").inner_text()
    assert re.findall(r"arm_\d+", said) == ["arm_5"]
    page.locator("figure[data-chart=val_accuracy] .chip", has_text="arm_5").click()
    assert panels.nth(5).is_hidden() and panels.nth(4).is_visible()
    page.screenshot(path=OUTPUT / "explore-twelve.png", full_page=True)
    assert page.evaluate(TROUBLE) == []
