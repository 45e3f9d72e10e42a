"""The counts, layers and advice of a report page, without a browser; the fake session takes the place of the model."""

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.data import Sample, open_dataset
from edgead.evaluation import html as html_of_pages
from edgead.evaluation.advice import FEW_IMAGES, WEAK_MAPS_GAP, advice
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.evaluation.explorer import ScorePlot, confusion, image_rows, outcome, score_plot
from edgead.evaluation.html import page_template
from edgead.evaluation.layers import PIXELS, SMALLEST_SIDE_PX, image_layers, layer_shape
from edgead.evaluation.report import write_report
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.fake import FakeSession
from edgead.scoring.threshold import Threshold
from tests.evaluation.test_report import Page
from tests.helpers.parts_on_disk import SIZE_PX, write_parts

SIZE = ModelSize(SIZE_PX, SIZE_PX)
LEVEL = Threshold(0.2, 0.01, 0.95, 0.95, 299, 299)
BY_HAND = Threshold(0.2, None, None, None, 50, None)
SETTER = ("edgead", "threshold", "engines/a b", "--part", "x<y")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    root = write_parts(
        tmp_path_factory.mktemp("data") / "parts", defects=("<b>dot", "<b>dot", "x", "x", "scratch")
    )
    scores = score_dataset(FakeSession(SIZE), open_dataset(root).test, SIZE)
    # A kind of defect may have the name of the folder of good parts.
    renamed = (replace(s, defect="good") if s.defect == "x" else s for s in scores.samples)
    return replace(scores, samples=tuple(renamed))


def page_of(directory, scores, threshold=LEVEL, setter=SETTER):
    path = write_report(directory, evaluate(scores, threshold), scores, {"model": "toy"}, setter)
    return Page(path.read_text(encoding="utf-8"))


def arrays(scores):
    labels = np.array([-1 if sample.label is None else sample.label for sample in scores.samples])
    return labels, scores.scores.astype(np.float64) > LEVEL.value


def text_of(page, identifier):
    """Text of the element with this id, which holds no other element."""
    (text,) = (text for text, given in page.texts if given.get("id") == identifier)
    return text


def test_the_page_counts_without_a_script(tmp_path, scores):
    page, (labels, above) = page_of(tmp_path, scores), arrays(scores)
    found, alarms = int((above & (labels == 1)).sum()), int((above & (labels == 0)).sum())
    assert 0 < found < (labels == 1).sum()
    assert text_of(page, "found") == str(found)
    assert text_of(page, "missed") == str((labels == 1).sum() - found)
    assert text_of(page, "false-alarms") == str(alarms)
    assert float(text_of(page, "recall")) == pytest.approx(found / (labels == 1).sum(), abs=6e-4)
    assert float(text_of(page, "precision")) == pytest.approx(found / above.sum(), abs=6e-4)
    assert text_of(page, "command") == "edgead threshold 'engines/a b' --part 'x<y' --value 0.2"
    # What needs the script is hidden until it runs.
    for tag, given in page.elements:
        if tag in ("input", "select") and given.get("id") == "slider":
            assert "hidden" in given
    rows = page.rows()
    assert sorted(float(row["data-score"]) for row in rows) == sorted(float(score) for score in scores.scores)
    assert [float(row["data-score"]) for row in rows] == sorted(
        (float(s) for s in scores.scores), reverse=True
    )


def test_every_script_of_the_page_is_allowed_by_its_hash_and_nothing_else(tmp_path, scores):
    page = page_of(tmp_path, scores)
    policy = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts]
    assert digests
    assert policy["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    assert not any(name.startswith("on") for _, given in page.elements for name in given)


def test_other_pages_have_the_same_stylesheet_and_run_no_script():
    text = page_template("compare.html").render(facts={}, tables=[], headings=[], notes=[])
    page = Page(text)
    assert "script-src 'none'" in page.policy
    assert page.scripts == []
    style = Path(html_of_pages.__file__).with_name("templates") / "page.css"
    assert style.read_text(encoding="utf-8") in text


def test_a_kind_of_defect_may_be_named_good(scores):
    rows, (labels, above) = image_rows(evaluate(scores, LEVEL), scores), arrays(scores)
    assert {(row.label, row.kind, row.kind_number) for row in rows} == {
        (0, "good", 0), (1, "<b>dot", 1), (1, "good", 2), (1, "scratch", 3),
    }  # fmt: skip
    groups = {(group.name, group.label): group for group in confusion(evaluate(scores, LEVEL), rows)}
    kinds = np.array([sample.defect for sample in scores.samples])
    for (name, label), group in groups.items():
        own = labels == label if name in ("good parts", "defects") else (labels == label) & (kinds == name)
        assert (group.images, group.rejected.n, group.rejected.count) == (
            own.sum(),
            own.sum(),
            (own & above).sum(),
        )
    assert list(groups) == [("good parts", 0), ("defects", 1), ("<b>dot", 1), ("good", 1), ("scratch", 1)]
    assert groups["good", 1].images == 2
    assert groups["defects", 1].kinds == (1, 2, 3)


def test_outcomes_are_named_by_label_and_decision(scores):
    names = {
        (label, decision): outcome(label, decision) for label in (0, 1, None) for decision in (True, False)
    }
    assert names == {
        (0, True): "false alarm", (0, False): "passed",
        (1, True): "found", (1, False): "missed",
        (None, True): "rejected", (None, False): "passed",
    }  # fmt: skip
    for row in image_rows(evaluate(scores, LEVEL), scores):
        assert row.right == (row.outcome in ("found", "passed"))
        assert row.share == pytest.approx(row.score / LEVEL.value)


def test_images_without_labels_are_counted_as_such(tmp_path, scores):
    unlabelled = replace(scores, samples=tuple(Sample(sample.path, None) for sample in scores.samples))
    page = page_of(tmp_path, unlabelled)
    (group,) = confusion(evaluate(unlabelled, LEVEL), image_rows(evaluate(unlabelled, LEVEL), unlabelled))
    _, above = arrays(unlabelled)
    assert (group.label, group.rejected.count, group.rejected.n) == (None, above.sum(), len(above))
    assert not any(given.get("id") in ("found", "recall", "precision") for _, given in page.elements)
    assert len(page.rows(label="")) == len(above)


def test_the_plot_holds_all_scores_and_the_threshold(scores):
    for value in (1e-9, 0.2, 5.0):
        plot = score_plot(evaluate(scores, replace(LEVEL, value=value)), scores)
        assert 0 < plot.low < min(scores.scores.min(), value)
        assert plot.high > max(scores.scores.max(), value)
        assert plot.low + plot.cut / 1000 * (plot.high - plot.low) == pytest.approx(value)
        assert (plot.ticks[0], plot.ticks[-1]) == (plot.low, plot.high)
        # Bars of good parts go up from the middle of 100, bars of defects down.
        for path, sign in ((plot.good, -1), (plot.defect, 1)):
            heights = [float(height) for height in re.findall(r"50v(-?[\d.]+)h", path)]
            assert heights
            assert all(0 < sign * height <= 50 for height in heights)
    assert score_plot(evaluate(scores, None), scores) is None


def test_a_tick_beside_zero_is_zero():
    plot = ScorePlot(4.07e-05, 0.36, (4.07e-05, 0.09, 0.180012, 0.27, 0.36), 0.0, "", "", "")
    assert plot.tick_texts == ("0", "0.09", "0.18", "0.27", "0.36")
    # On a short axis the same number is not near zero.
    assert replace(plot, high=9e-05, ticks=(4.07e-05, 9e-05)).tick_texts == ("4.07e-05", "9e-05")


def decoded(uri):
    data = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_the_page_carries_image_heat_map_and_mask_of_every_image(tmp_path, scores):
    page = page_of(tmp_path, scores)
    assert sorted(page.layers) == list(range(len(scores.samples)))
    for index, (image, heat_map, mask) in page.layers.items():
        sample = scores.samples[index]
        expected = cv2.imread(str(sample.path))
        assert np.abs(decoded(image).astype(int) - expected).mean() < 12  # JPEG of noise
        assert decoded(heat_map).shape == expected.shape
        if sample.label == 1:
            true = cv2.imread(str(sample.mask_path), cv2.IMREAD_GRAYSCALE) > 0
            np.testing.assert_array_equal(decoded(mask) > 0, true)
        else:
            assert mask is None


@pytest.mark.parametrize("model", [ModelSize(256, 256), ModelSize(1024, 256), ModelSize(32, 64)])
@pytest.mark.parametrize("n", [1, 160, 2000, 9000, 10**6])
def test_a_page_of_many_images_has_smaller_ones(n, model):
    (height, width), most = layer_shape(n, (model.height_px, model.width_px))
    assert height <= model.height_px
    assert width <= model.width_px
    assert height / width == pytest.approx(model.height_px / model.width_px, rel=0.07)
    shown = min(n, most)
    assert shown * height * width <= PIXELS
    if shown < n:
        assert max(height, width) <= SMALLEST_SIDE_PX
    elif height < model.height_px:
        # A fifth more in both directions would not fit.
        assert n * height * width * 1.44 > PIXELS
    if n == 1:
        assert (height, width) == (model.height_px, model.width_px)


def test_with_too_many_images_those_near_the_threshold_have_layers(tmp_path, scores, monkeypatch):
    monkeypatch.setattr("edgead.evaluation.layers.PIXELS", 3 * SIZE_PX**2)
    page = page_of(tmp_path, scores)
    nearest = np.argsort(np.abs(scores.scores.astype(np.float64) - LEVEL.value), kind="stable")[:3]
    assert sorted(page.layers) == sorted(nearest.tolist())
    assert len(page.rows()) == len(scores.samples)


def test_numbers_that_are_not_finite_have_no_layers(scores):
    maps = scores.maps.copy()
    maps[1, 2, 3] = np.nan
    assert image_layers(replace(scores, maps=maps), LEVEL) is None


def titles(scores, threshold, **figures):
    evaluation = replace(evaluate(scores, threshold), **figures)
    return [item.title for item in advice(evaluation, SETTER)]


def test_advice_for_weak_maps_depends_on_the_gap(scores):
    for pixel, expected in (
        (0.97 - WEAK_MAPS_GAP - 0.01, 1),
        (0.97 - WEAK_MAPS_GAP + 0.01, 0),
        (0.99, 0),
        (None, 0),
    ):
        assert len(titles(scores, BY_HAND, image_auroc=0.97, pixel_auroc=pixel)) == expected
    assert titles(scores, BY_HAND, image_auroc=None, pixel_auroc=0.5) == []


def test_advice_for_a_threshold_of_one_image_names_counts_and_commands(tmp_path, scores):
    nine = Threshold(0.2, 0.01, 0.95, 0.086, 9, 299)
    good = {"image_auroc": 0.9, "pixel_auroc": 0.9}
    assert len(titles(scores, nine, **good)) == 1
    # Two of 1000 may lie above, so no image alone sets this threshold.
    assert titles(scores, Threshold(0.2, 0.01, 0.95, 0.96, 1000, 299), **good) == []
    assert titles(scores, None, **good) == []
    (item,) = advice(replace(evaluate(scores, nine), **good), SETTER)
    assert re.search(r"\b9\b.*\b299\b.*\b290\b", item.text)
    assert all(
        command.startswith("edgead threshold 'engines/a b' --part 'x<y' --good ") for command in item.commands
    )
    (of_run,) = advice(replace(evaluate(scores, nine), **good), None)
    assert of_run.commands == ()
    page = page_of(tmp_path, scores, nine, None)
    assert not any(given.get("id") == "command" for _, given in page.elements)
    (one,) = advice(replace(evaluate(scores, replace(nine, n_normal=1)), **good), None)
    assert re.search(r"\bonly\b.*\b298\b", one.text)


def test_advice_for_a_threshold_without_a_promise_depends_on_the_images_behind_it(scores):
    good = {"image_auroc": 0.9, "pixel_auroc": 0.9}
    for n, expected in ((0, 1), (FEW_IMAGES - 1, 1), (FEW_IMAGES, 0)):
        found = advice(replace(evaluate(scores, replace(BY_HAND, n_normal=n)), **good), SETTER)
        assert len(found) == expected
        assert all(
            item.commands == ("edgead threshold 'engines/a b' --part 'x<y' --good new-good",)
            for item in found
        )


def test_names_are_text_on_the_page(tmp_path, scores):
    page = page_of(tmp_path, scores)
    assert "<b>dot" in page.all_text
    # The headlines of tiles are the only bold elements.
    assert len([tag for tag, _ in page.elements if tag == "b"]) == len(
        [given for _, given in page.elements if given.get("class") == "tile"]
    )
