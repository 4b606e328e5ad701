"""The page in a browser: layout, sorting, filters and pictures; by keyboard, and without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import synthetic
from browser import CHROMIUM, Browser
from test_page import pictured, world

from analysis.build import build
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.output.page import write_page

MARKUP = "<img src=x onerror=alert(1)>'\"&"
LONG = "a_method_of_a_stranger_with_a_name_of_more_than_sixty_letters_in_one_word" + "x" * 25
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "ArrowRight": (39, ""), "Escape": (27, ""), "End": (35, "")}
VISIBLE = (
    "[...document.querySelectorAll('#results ~ table tbody tr')].filter(r => r.getBoundingClientRect().height > 0)"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def strangers_rows() -> list[dict[str, Any]]:
    """Digits: the dense network, DST at two alphas, SET, and two methods with hostile or long names."""
    rows = []
    for seed in (0, 1, 2):
        at = {"dataset": "digits", "protocol": ""}
        rows += [
            synthetic.cell("lenet-300-100", "dense", seed, **at, accuracy=98.0 + seed / 10),
            synthetic.cell("lenet-300-100", "dst", seed, **at, alpha=5e-4, kept=0.08, accuracy=97.0 + seed / 10),
            synthetic.cell("lenet-300-100", "dst", seed, **at, alpha=1e-3, kept=0.03, accuracy=96.0 + seed),
        ]
        for density, accuracy, words in (
            (0.05, 95.0, {}),
            (0.05, 94.0, {"name": "mine", "note": MARKUP}),
            (0.1, 96.5, {"name": LONG, "note": LONG}),
        ):
            own = synthetic.cell(
                "lenet-300-100", "set", seed, **at, density=density, kept=density, accuracy=accuracy + seed / 10
            )
            rows.append(synthetic.changed(own, partial(update, words)) | {"device": MARKUP})
    return rows


def update(words: Mapping[str, str], tree: dict[str, Any]) -> None:
    tree["method"].update(words)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a stranger's results, with few exhibits."""
    folder = tmp_path_factory.mktemp("page")
    tables = load([synthetic.write(folder / "in", strangers_rows())])
    written = build(tables, folder, only=["digits", "digits-accuracy-density", "table1", "table1-verdicts"])
    return write_page(Results(tables), written, folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def press(browser: Browser, key: str) -> None:
    code, text = KEYS[key]
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)


def column(browser: Browser, number: int) -> list[str]:
    """The texts of a column of All results, of the rows that are shown."""
    return list(browser.evaluate(f"{VISIBLE}.map(r => r.cells[{number}].textContent.replace(/\\s+/g, ' ').trim())"))


def choose(browser: Browser, label: str, value: str) -> None:
    """Set a field of the tool bar of All results."""
    browser.evaluate(
        f"""(() => {{
      const label = [...document.querySelector('.tools').querySelectorAll('label')]
        .find(l => l.firstChild.data === {label!r});
      const field = label.querySelector('input, select');
      field.value = {value!r};
      field.dispatchEvent(new Event('input', {{bubbles: true}}));
      field.dispatchEvent(new Event('change', {{bubbles: true}}));
    }})()"""
    )


def test_a_table_sorts_by_a_heading_from_the_keyboard(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    built = column(browser, 5)
    assert built == ["100", "10.00 ± 0.00", "8.00 ± 0.00", "5.00 ± 0.00", "5.00 ± 0.00", "3.00 ± 0.00"]
    browser.evaluate("document.querySelectorAll('#results ~ table th button')[5].focus()")
    press(browser, "Enter")
    assert column(browser, 5) == [built[-1], *built[3:5], built[2], built[1], built[0]]
    assert browser.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    press(browser, "Enter")
    assert column(browser, 5)[0] == "100"
    assert browser.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    press(browser, "Enter")
    assert column(browser, 5) == built
    assert browser.evaluate("document.querySelectorAll('[aria-sort]').length") == 0


def test_a_table_is_filtered_by_method_density_and_words(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    for label, value, wanted in (
        ("Method", "DST", 2), ("Setting", "alpha 0.001", 1), ("Weights kept (%) from", "4", 5), ("to", "6", 3)
    ):  # fmt: skip
        choose(browser, label, value)
        assert len(column(browser, 0)) == wanted
        choose(browser, label, "")
    choose(browser, "find", "ALPHA 0.001")
    assert column(browser, 2) == ["alpha 0.001"]
    assert browser.evaluate("document.querySelector('.tools output').textContent") == "1 of 6 rows"
    browser.evaluate("document.querySelector('.tools button').click()")
    assert len(column(browser, 0)) == 6


def test_short_cells_of_a_card_share_a_line(page: Path, browser: Browser) -> None:
    browser.open(page, width=390)
    tops = browser.evaluate(f"{VISIBLE}.map(r => [...r.cells].slice(1, 4).map(c => c.getBoundingClientRect().top))")
    assert any(method == setting for method, setting, _ in tops)


def test_a_number_of_several_conditions_unfolds_their_list(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    place = "document.getElementById('runs-1')"
    assert not browser.evaluate(f"{place}.closest('details').open")
    browser.evaluate("document.querySelector('a[href=\"#runs-1\"]').click()")
    browser.evaluate("new Promise(done => requestAnimationFrame(done))")
    assert browser.evaluate(f"{place}.closest('details').open")


def test_a_verdict_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    rows = [
        synthetic.cell("lenet-300-100", "dst", seed, alpha=alpha, protocol="paper", accuracy=97.0 + seed / 10)
        for seed in (0, 1)
        for alpha in (5e-4, 1e-3, 2e-3)
    ]
    results = Results(load([synthetic.write(tmp_path, rows)]))
    browser.open(write_page(results, [], tmp_path, verdicts=[("inconclusive (n=2)", (rows[0]["run_id"],))]), width=1280)
    assert len(column(browser, 0)) == 4  # three conditions and the printed number
    choose(browser, "find", "inconclusive")
    assert column(browser, 2) == ["alpha 0.0005"]
    choose(browser, "find", "")
    choose(browser, "Source", "paper")
    assert column(browser, 2) == ["Table 1, alpha 0.0005"]


def test_points_say_their_cell_seeds_and_interval_and_lead_to_their_runs(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    browser.evaluate("document.querySelector('.panel .dot[tabindex=\"0\"]').focus()")
    said = browser.evaluate("document.getElementById('tip').textContent")
    assert said.splitlines() == [
        "DST, alpha 0.001: Lenet-300-100, digits", "97.00 ± 1.00 % test accuracy, 95 % interval [94.52, 99.48]",
        "keeps 3.00 ± 0.00 % of the weights", "n=3: seeds 0, 1, 2",
    ]  # fmt: skip
    assert browser.evaluate("document.querySelectorAll('.panel .dot[tabindex=\"0\"]').length") == 1
    press(browser, "ArrowRight")
    assert browser.evaluate("document.getElementById('tip').textContent").startswith("mine: Lenet-300-100, digits")
    press(browser, "Escape")
    assert browser.evaluate("document.getElementById('tip').textContent") == ""
    press(browser, "End")
    anchor = browser.evaluate("document.activeElement.getAttribute('href')")
    press(browser, "Enter")
    assert browser.evaluate("location.hash") == anchor
    assert browser.evaluate("document.querySelector(':target').closest('details').open")
    assert browser.evaluate("document.querySelector(':target').getBoundingClientRect().height") > 0


def test_a_method_of_the_legend_dims_the_others_until_it_is_pressed_again(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    dimmed = "[...document.querySelectorAll('.dot.dim')].map(d => d.dataset.look)"
    browser.evaluate(
        "[...document.querySelectorAll('.legend button')].find(b => b.textContent.includes('SET')).focus()"
    )
    press(browser, "Enter")
    assert set(browser.evaluate(dimmed)) == {"DST", "mine", LONG}
    assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    press(browser, "Enter")
    assert browser.evaluate(dimmed) == []


def test_every_control_is_reached_by_the_tab_key_and_shows_its_focus(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    reached = set()
    for _ in range(160):
        press(browser, "Tab")
        tag, looks = browser.evaluate(
            """(() => { const e = document.activeElement, s = getComputedStyle(e), hit = e.querySelector(':scope .hit');
            return [e.localName, s.outlineStyle !== 'none' || (hit && getComputedStyle(hit).stroke !== 'none')]; })()"""
        )
        if tag == "body":
            break
        assert looks, tag
        reached.add(tag)
    else:
        pytest.fail("the end of the page was not reached")
    assert reached >= {"a", "button", "input", "select", "summary"}


def test_the_page_is_whole_without_javascript(page: Path, browser: Browser) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page, width=390)
        assert len(column(browser, 0)) == 6
        assert browser.evaluate("document.querySelectorAll('.tools, #tip').length") == 0
        dots = browser.evaluate("[...document.querySelectorAll('.dot')].map(d => [d.tabIndex, d.textContent.trim()])")
        assert [tab for tab, _ in dots] == [0] * 5
        assert all("95 % interval" in text and "n=3" in text for _, text in dots)
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_names_of_strangers_are_text_and_fit(page: Path, browser: Browser) -> None:
    for width in (1280, 390):
        browser.open(page, width=width)
        assert browser.evaluate("document.querySelectorAll('img[src=x]').length") == 0
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert wide_tables(browser) == []
        assert browser.complaints == []
    names = browser.evaluate("[...new Set([...document.querySelectorAll('.dot')].map(d => d.dataset.look))]")
    assert {"mine", LONG} <= set(names)
    assert LONG in column(browser, 1)
    runs = browser.evaluate("[...document.querySelectorAll('#runs ~ details td')].map(d => d.textContent)")
    assert MARKUP in runs
    assert any(f"method.note={MARKUP}" in text for text in runs)


def wide_tables(browser: Browser) -> list[str]:
    """Tables that are wider than their place, with everything unfolded."""
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    return list(
        browser.evaluate("""[...document.querySelectorAll('table')]
      .filter(t => Math.max(t.getBoundingClientRect().width, t.scrollWidth) > t.parentElement.clientWidth + 1)
      .map(t => t.caption.textContent)""")
    )


@pytest.fixture(scope="module", params=["committed", pytest.param("every data set", marks=pytest.mark.rare)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the committed exhibits, or one with the exhibits of every data set."""
    if request.param == "committed":
        return Path(__file__).resolve().parents[3] / "paper_figures"
    return pictured(world(tmp_path_factory.mktemp("every")), tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_a_browser_shows_the_page_without_complaint_or_overflow(whole: Path, browser: Browser) -> None:
    for width in (1280, 390):
        for dark in (False, True):
            browser.open(whole / "index.html", width=width, dark=dark)
            assert browser.evaluate("innerWidth") == width
            assert wide_tables(browser) == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            assert (browser.complaints, browser.requests) == ([], [])
            assert lowest_contrast(browser) >= 4.5
        beside = browser.evaluate(
            "document.querySelector('nav').getBoundingClientRect().right"
            " < document.getElementById('answer').getBoundingClientRect().left"
        )
        cards = browser.evaluate("getComputedStyle(document.querySelector('#results ~ table td')).display") == "block"
        assert (beside, cards) == (width == 1280, width == 390)
    assert browser.evaluate("document.querySelector('.panel svg').getBoundingClientRect().top") < 900
    browser.open(whole / "index.html", width=390)
    first = browser.evaluate("document.querySelector('td a[href^=\"#run-\"]').hash.slice(1)")
    browser.evaluate("location.hash = '%s'" % first)  # noqa: UP031
    assert browser.evaluate("document.querySelector(':target').id") == first
    assert browser.evaluate("document.querySelector(':target').getBoundingClientRect().height") > 0


def lowest_contrast(browser: Browser) -> float:
    """The smallest WCAG contrast of any text on the page with what is painted behind it."""
    return float(
        browser.evaluate("""(() => {
      const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
      const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
      let least = 21;
      for (const e of document.body.querySelectorAll('*')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
        least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
      }
      return least; })()""")
    )
