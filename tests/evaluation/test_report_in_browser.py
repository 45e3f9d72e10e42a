"""The report page in a real Chromium; expected counts are computed here from the scores in results.json."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from edgead.data import open_dataset
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.evaluation.report import write_report
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.fake import FakeSession
from edgead.scoring.threshold import Threshold
from tests.helpers.browser import chromium, emulate, requests
from tests.helpers.parts_on_disk import SIZE_PX, write_parts

SIZE = ModelSize(SIZE_PX, SIZE_PX)
LEVEL = Threshold(0.4037, 0.01, 0.95, 0.08, 9, 299)
# A name of a folder may hold markup, and be longer than a phone is wide.
MARKUP = "<img src=http:x onerror=fail()>\"'&"
KINDS = ("dot", MARKUP, "scratch" * 20)
SETTER = ("edgead", "threshold", "engines/my parts")


STATE = """
const texts = {};
for (const id of ["found", "missed", "false-alarms", "recall", "precision", "false-alarm-rate", "command"]) {
  texts[id] = document.getElementById(id).textContent;
}
const rows = [...document.querySelectorAll("#confusion tbody tr")];
const marks = [...document.querySelectorAll("[data-image] .mark")];
return {
  value: document.getElementById("value").value,
  texts,
  confusion: rows.map((row) => [...row.children].map((cell) => cell.textContent)),
  marks: marks.map((m) => [m.closest("[data-image]").dataset.image, m.textContent, m.classList.contains("right")]),
};
"""


class Report:
    """The page, and the scores that it shows."""

    def __init__(self, folder, driver):
        self.driver = driver
        images = json.loads((folder / "results.json").read_text())["images"]
        self.scores = np.array([image["score"] for image in images])
        self.labels = np.array([image["label"] for image in images])
        self.defects = np.array([image["defect"] for image in images])
        self.names = ["/".join(image["path"].split("/")[-2:]) for image in images]

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).get_property("textContent")

    @property
    def threshold(self):
        return float(self.find("#value").get_property("value"))

    @property
    def shown(self):
        """Position in the scores of each visible row, from the top."""
        rows = "return [...document.querySelectorAll('#images tbody tr:not([hidden])')].map(r => r.dataset.image)"
        return [int(number) for number in self.driver.execute_script(rows)]

    def slide(self, place):
        script = "slider.value = arguments[0]; slider.dispatchEvent(new Event('input'))"
        self.driver.execute_script(script, place)

    def press(self, name):
        self.find(f'[data-preset="{name}"]').click()

    def f1(self, threshold):
        found, alarms = self.counts(threshold)
        return 2 * found / (found + alarms + (self.labels == 1).sum())

    def counts(self, threshold):
        above = self.scores > threshold
        return int((above & (self.labels == 1)).sum()), int((above & (self.labels == 0)).sum())

    def check(self):
        """Compare all that the page counts and marks with the scores at its threshold."""
        page = self.driver.execute_script(STATE)
        threshold, texts = float(page["value"]), page["texts"]
        above, defect = self.scores > threshold, self.labels == 1
        found, alarms = self.counts(threshold)
        assert int(texts["found"]) == found
        assert int(texts["missed"]) == defect.sum() - found
        assert int(texts["false-alarms"]) == alarms
        assert float(texts["recall"]) == pytest.approx(found / defect.sum(), abs=6e-4)
        assert float(texts["false-alarm-rate"]) == pytest.approx(alarms / (~defect).sum(), abs=6e-4)
        if above.any():
            assert float(texts["precision"]) == pytest.approx(found / above.sum(), abs=6e-4)
        else:
            assert texts["precision"] == "-"
        groups = [~defect, defect, *(defect & (self.defects == kind) for kind in sorted(KINDS))]
        assert [[int(text) for text in row[1:4]] for row in page["confusion"]] == [
            [group.sum(), (group & above).sum(), (group & ~above).sum()] for group in groups
        ]
        assert len(page["marks"]) > len(self.scores)  # rows and cards
        for number, text, right in page["marks"]:
            is_above, is_defect = bool(above[int(number)]), bool(defect[int(number)])
            assert right == (is_above == is_defect)
            words = {(True, True): "found", (False, True): "missed", (True, False): "false alarm"}
            assert text == words.get((is_above, is_defect), "passed")
        *command, value = shlex.split(texts["command"])
        assert command == [*SETTER, "--value"]
        assert float(value) == threshold


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page #1?")
    dataset = open_dataset(write_parts(folder / "parts", good=12, defects=tuple(np.repeat(KINDS, 3))))
    scores = score_dataset(FakeSession(SIZE), dataset.test, SIZE)
    rng = np.random.default_rng(3)
    defect = np.array([sample.label == 1 for sample in scores.samples])
    values = np.where(defect, rng.normal(0.46, 0.06, len(defect)), rng.normal(0.38, 0.03, len(defect)))
    values[defect.argmax()] = values[~defect].max()  # a tie that no threshold separates
    values = values.astype(np.float32)
    maps = scores.maps / scores.maps.max(axis=(1, 2), keepdims=True) * values[:, None, None]
    scores = replace(scores, scores=values, maps=maps)
    write_report(folder / "out", evaluate(scores, LEVEL), scores, {"model": MARKUP}, SETTER)
    return folder / "out"


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def report(folder, browser):
    emulate(browser)
    browser.get((folder / "report.html").as_uri())
    yield Report(folder, browser)
    # Whatever a test does, the page asks for nothing and reports no error.
    assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "data"}
    assert browser.get_log("browser") == []


def test_every_move_of_the_threshold_counts_again(report):
    assert report.threshold == LEVEL.value
    report.check()
    assert "false alarm" in [mark.text for mark in report.all("#images .mark")]
    slider = report.find("#slider")
    for key in (Keys.ARROW_RIGHT, Keys.PAGE_UP, Keys.HOME, Keys.END):
        before = report.threshold
        slider.send_keys(key)
        assert report.threshold != before
        report.check()
    assert report.threshold > report.scores.max()
    for place in range(0, 1001, 125):
        report.slide(place)
        report.check()
    value = report.find("#value")
    score = repr(float(report.scores.max()))  # a score that equals the threshold is not above it
    for text, valid in (("0.4321", True), ("", False), (score, True)):
        value.clear()
        value.send_keys(text, Keys.ENTER)
        assert (value.get_attribute("aria-invalid") is None) == valid
        if valid:
            assert report.threshold == float(text)
            report.check()


def test_buttons_choose_thresholds_by_the_decisions(report):
    distinct = np.unique(report.scores)
    possible = [distinct[0] / 2, *(distinct[1:] + distinct[:-1]) / 2, distinct[-1] + 1]
    report.press("f1")
    report.check()
    assert report.f1(report.threshold) == max(map(report.f1, possible))
    report.press("recall")
    report.check()
    lowest_defect = report.scores[report.labels == 1].min()
    assert report.threshold < lowest_defect
    assert not ((report.scores > report.threshold) & (report.scores < lowest_defect)).any()
    report.press("alarms")
    report.check()
    highest_good = report.scores[report.labels == 0].max()
    assert report.threshold >= highest_good
    assert not ((report.scores <= report.threshold) & (report.scores > highest_good)).any()
    report.press("model")
    assert report.threshold == LEVEL.value
    for button, step in (("#lower", 1), ("#higher", -1)):
        for _ in range(3):
            before = report.scores > report.threshold
            report.find(button).click()
            report.check()
            changed = report.scores[before != (report.scores > report.threshold)]
            assert len(np.unique(changed)) == 1
            assert (report.scores > report.threshold).sum() - before.sum() == step * len(changed)
    report.find("#slider").send_keys(Keys.END)
    report.find("#higher").click()
    report.check()


def test_intervals_are_those_of_clopper_and_pearson(report):
    for count, n in ((0, 1), (1, 1), (0, 20), (14, 20), (87, 119), (1999, 2000), (3, 5000)):
        low = beta.ppf(0.025, count, n - count + 1) if count else 0.0
        high = beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
        found = report.driver.execute_script("return clopperPearson(arguments[0], arguments[1])", count, n)
        assert found == pytest.approx([low, high], abs=1e-9)


def test_the_table_sorts_and_filters(report):
    scores, names = report.scores, report.names
    assert (np.diff(scores[report.shown]) <= 0).all()
    score, file, decision = (
        report.find(f'#images th[data-sort="{key}"]') for key in ("score", "name", "outcome")
    )
    for heading, direction in ((score, "ascending"), (score, "descending"), (file, "ascending")):
        heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert heading.get_attribute("aria-sort") == direction
        assert len(report.all("#images [aria-sort]")) == 1
        if heading is score:
            assert (np.diff(scores[report.shown]) * (1 if direction == "ascending" else -1) >= 0).all()
    dots = [names[number] for number in report.shown if report.defects[number] == "dot"]
    assert dots == sorted(dots)
    decision.find_element(By.TAG_NAME, "button").click()
    seen = set()
    for place in (300, 700):
        report.slide(place)
        words = [report.text(f'tr[data-image="{number}"] .mark') for number in report.shown]
        assert words == sorted(words)
        seen.add(tuple(report.shown))
    assert len(seen) == 2  # the order follows the threshold

    Select(report.find("#filter-kind")).select_by_visible_text(MARKUP)
    assert {report.defects[number] for number in report.shown} == {MARKUP}
    assert len(report.shown) == 3
    report.find("#filter-name").send_keys("/004")
    assert [names[number] for number in report.shown] == [f"{MARKUP}/004.png"]
    Select(report.find("#filter-kind")).select_by_index(0)
    assert {names[number][-8:] for number in report.shown} == {"/004.png"}
    report.find("#filter-name").send_keys(Keys.BACKSPACE * 4)
    Select(report.find("#filter-outcome")).select_by_value("wrong")
    for _ in range(2):
        wrong = (scores > report.threshold) != (report.labels == 1)
        assert sorted(report.shown) == np.flatnonzero(wrong).tolist()
        assert report.text("#shown").split()[0] == str(wrong.sum())
        report.slide(700)  # the filter follows the threshold


def test_images_are_read_late_and_enlarge(report):
    loaded = report.all("#images .thumb img")
    assert len(loaded) < len(report.scores)
    report.find("#images tbody tr:nth-child(3)").location_once_scrolled_into_view  # noqa: B018 (it scrolls)
    wait = WebDriverWait(report.driver, 10)
    button = wait.until(lambda _: report.find("#images tbody tr:nth-child(3) .thumb button"))
    order = report.shown
    button.click()
    viewer = report.find("#viewer")
    assert viewer.get_attribute("open") is not None
    assert report.text("#viewer-name") == report.names[order[2]]
    widths = (
        "return ['image', 'heat-map', 'mask'].map(n => document.getElementById('viewer-' + n).naturalWidth)"
    )
    wait.until(lambda driver: driver.execute_script(widths) == [SIZE_PX] * 3)
    for key, place in ((Keys.ARROW_RIGHT, 3), (Keys.ARROW_LEFT, 2), (Keys.ARROW_LEFT, 1)):
        report.driver.switch_to.active_element.send_keys(key)
        assert report.text("#viewer-name") == report.names[order[place]]
    report.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert viewer.get_attribute("open") is None
    assert report.driver.switch_to.active_element == button
    # A good part has no mask. The cards of the galleries enlarge, too.
    good = next(
        card for card in report.all(".card") if report.labels[int(card.get_attribute("data-image"))] == 0
    )
    good.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert report.text("#viewer-name") == good.find_element(By.CLASS_NAME, "name").text
    assert not report.find("#viewer-mask").is_displayed()
    report.find("#viewer-close").click()


CONTRASTS = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const backdrop = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
};
return arguments[0].map((selector) => {
  const element = document.querySelector(selector);
  return [selector, rgb(getComputedStyle(element).color), backdrop(element)];
});
"""


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour[:3]) / 255]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_colour_schemes(report, scheme):
    emulate(report.driver, scheme=scheme)
    selectors = (
        "h1|dt|.warning p|.warning pre|.tile b|.tile span|#sentence|.ticks span|.quiet|button|#command|th"
    )
    selectors += "|tbody th|#images .right|#images .wrong|#images th button"
    for selector, ink, paper in report.driver.execute_script(CONTRASTS, selectors.split("|")):
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        # WCAG 2.2, success criterion 1.4.3
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector
    paper = report.driver.execute_script(CONTRASTS, ["body"])[0][2]
    assert (luminance(paper) > 0.5) == (scheme == "light")


def test_a_phone_scrolls_the_page_downwards_alone(report):
    emulate(report.driver, 390, 844)
    widths = "return [document.documentElement.scrollWidth, innerWidth]"
    report.find("#images").location_once_scrolled_into_view  # noqa: B018 (it scrolls)
    button = WebDriverWait(report.driver, 10).until(lambda _: report.find("#images .thumb button"))
    assert report.driver.execute_script(widths) == [390, 390]
    button.click()
    assert report.find("#viewer").size["width"] <= 390
    assert (
        report.driver.execute_script(
            "const v = document.getElementById('viewer'); return v.scrollWidth - v.clientWidth"
        )
        == 0
    )
    assert report.driver.execute_script(widths) == [390, 390]


def test_paper_is_light_and_shows_no_controls(report):
    report.slide(300)
    emulate(report.driver, scheme="dark", media="print")
    for selector in ("#slider", ".controls", "#images .thumb"):
        assert not report.find(selector).is_displayed()
    for selector in ("#sentence", "#found", "#images tbody tr:last-child", ".card img"):
        assert report.find(selector).is_displayed()
    ((_, ink, _),) = report.driver.execute_script(CONTRASTS, ["h1"])
    assert luminance(ink) < 0.1
    report.check()


def test_without_scripts_the_page_has_its_counts_and_no_dead_controls(folder, browser):
    emulate(browser)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((folder / "report.html").as_uri())

        def find(selector):
            root = browser.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
            return browser.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": selector})

        found, _ = Report(folder, browser).counts(LEVEL.value)
        assert f">{found}<" in browser.execute_cdp_cmd("DOM.getOuterHTML", find("#found"))["outerHTML"]
        for selector in ("#found", "#confusion", "#images tbody tr", ".card img"):
            assert browser.execute_cdp_cmd("DOM.getBoxModel", find(selector))["model"]["height"] > 0
        for selector in ("#slider", "#value", "#filter-name", "#images .thumb", "#viewer"):
            with pytest.raises(WebDriverException):
                browser.execute_cdp_cmd("DOM.getBoxModel", find(selector))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_policy_forbids_requests_and_scripts(folder, browser):
    browser.get((folder / "report.html").as_uri())
    script = """
      const [done] = arguments;
      const found = [];
      document.addEventListener("securitypolicyviolation", (event) => {
        found.push(event.effectiveDirective);
        if (found.length === 3) done(found.sort());
      });
      new Image().src = "http://127.0.0.1:9/pixel.png";
      fetch("http://127.0.0.1:9/").catch(() => {});
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
    """
    assert browser.execute_async_script(script) == ["connect-src", "img-src", "script-src-elem"]
    assert browser.execute_script("return window.ran") is None
    browser.get_log("browser")
    requests(browser)
