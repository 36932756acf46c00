"""The page in a real browser: what is seen of it, and what it asks for."""

import datetime
import io
import pathlib
from collections.abc import Iterator

import matplotlib.image
import numpy as np
import pytest

from pes_cluster.report.page import page
from tests.report import browser
from tests.report.browser import Tab
from tests.report.samples import history, records

NOW = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
NAMES = ["pes", "nres", "truncated_es"]
CURVE = {"light": (11, 110, 153), "dark": (79, 179, 221)}  # The first one's colour.

AREA = """(() => {
  const seen = [...document.querySelectorAll('%s')].find(e => e.checkVisibility());
  const {x, y, width, height} = seen.getBoundingClientRect();
  return {x: x + scrollX, y: y + scrollY, width, height};
})()"""

# The least contrast of a text with what lies behind it, by WCAG 2's formula.
CONTRAST = """(() => {
  const light = c => {
    const part = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = [21, ''];
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const a = light(e.closest('svg') ? style.fill : style.color), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) least = [ratio, texts.currentNode.data];
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    found = browser.find()
    if found is None:
        pytest.skip("no browser: there is no chromium on this machine")
    with browser.tab(found, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    file: pathlib.Path = tmp_path_factory.mktemp("page") / "report.html"
    runs = [
        history(name, estimator=name, records=records(200, scale=100.0 + 900 * place))
        for place, name in enumerate(NAMES)
    ]
    file.write_text(page(runs, "first", NOW), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(autouse=True)
def _opened(tab: Tab, url: str) -> None:
    tab.screen(1200)
    tab.light("light")
    tab.open(url)


def test_it_asks_for_nothing_but_itself_and_complains_of_nothing(
    tab: Tab, url: str
) -> None:
    asked = [one["request"]["url"] for one in tab.of("Network.requestWillBeSent")]
    assert url in asked
    assert [one for one in asked if one != url and not one.startswith("data:")] == []
    assert tab.of("Runtime.consoleAPICalled") + tab.of("Runtime.exceptionThrown") == []
    assert tab.of("Log.entryAdded") == []
    # That complaints would be heard:
    tab.run("console.error('heard'); document.body.append(new Image()); 1")
    tab.run("document.querySelector('img').src = 'http://127.0.0.1:9/x.png'")
    assert tab.of("Runtime.consoleAPICalled") and tab.of("Log.entryAdded")


def test_the_table_has_a_row_for_each_run(tab: Tab) -> None:
    rows = "[...document.querySelectorAll('main table')[0].tBodies[0].rows]"
    assert tab.run(f"{rows}.map(row => row.cells[0].innerText.trim())") == NAMES
    assert tab.run(f"{rows}.every(row => row.getBoundingClientRect().height > 10)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_curves_are_seen_and_its_texts_can_be_read(tab: Tab, scheme: str) -> None:
    tab.light(scheme)
    area = tab.run(AREA % "main svg.chart")
    assert area["width"] > 300 and area["height"] > 150
    picture = matplotlib.image.imread(io.BytesIO(tab.picture(area)))[..., :3]
    away = np.abs(picture * 255 - CURVE[scheme]).max(axis=-1)
    assert (away < 12).sum() > 150
    bright = picture.mean() > 0.5
    assert bright == (scheme == "light")
    ratio, text = tab.run(CONTRAST)
    assert ratio >= 4.5, text


def test_curves_are_shown_against_what_is_chosen(tab: Tab) -> None:
    shown = "[...document.querySelectorAll('.by-%s')].some(e => e.checkVisibility())"
    assert tab.run(shown % "updates") and not tab.run(shown % "inner")
    tab.run("document.getElementById('by-inner').click()")
    assert tab.run(shown % "inner") and not tab.run(shown % "updates")


@pytest.mark.parametrize("width", [360, 768])
def test_a_small_screen_need_not_be_moved_sideways(tab: Tab, width: int) -> None:
    tab.screen(width)
    assert tab.run("document.scrollingElement.scrollWidth") <= width
    area = tab.run(AREA % "main svg.chart")
    assert 0 <= area["x"] and area["x"] + area["width"] <= width
    sizes = """[...document.querySelectorAll('main svg.chart text')]
      .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().height)"""
    assert min(tab.run(sizes)) >= 10
