"""The page and the JSON of an evaluation, read back; the fake session takes the place of the model."""

import base64
import html.parser
import json
import re
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgead.data import Sample, open_dataset
from edgead.errors import EdgeadError, ImageError, MissingExtraError
from edgead.evaluation.charts import histogram_chart, roc_chart
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.evaluation.gallery import colour_scale, galleries
from edgead.evaluation.layers import image_layers
from edgead.evaluation.report import (
    check_report_packages,
    decision_sentence,
    results_json,
    text_report,
    write_report,
)
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View, read_roi
from edgead.runtime.fake import FakeSession
from edgead.scoring.threshold import Threshold
from tests.helpers.parts_on_disk import SIZE_PX, write_parts

SIZE = ModelSize(SIZE_PX, SIZE_PX)
LEVEL = Threshold(0.2, 0.01, 0.95, 0.95, 299, 299)
DETAILS = {"model": "a <script>alert(1)</script> run", "data": "parts"}


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    dataset = open_dataset(write_parts(tmp_path_factory.mktemp("data") / "parts"))
    return score_dataset(FakeSession(SIZE), dataset.test, SIZE)


class Page(html.parser.HTMLParser):
    """Text, images and scripts of a page, every address that it would load, and what it carries for its scripts."""

    def __init__(self, text):
        super().__init__()
        self.images, self.addresses, self.text, self.scripts, self.layers = [], [], [], [], {}
        self.elements, self.texts, self.policy, self._inside = [], [], "", None
        self.feed(text)
        self.all_text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements.append((tag, given))
        self._inside = (tag, given)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        for name, value in attributes:
            if name == "src" and value.startswith("data:image/jpeg;base64,"):
                data = base64.b64decode(value.split(",", 1)[1], validate=True)
                self.images.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
            elif name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.addresses.append(value)

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        tag, given = self._inside or ("", {})
        self.texts.append((data, given))
        if tag != "script":
            self.text += [data] if tag != "style" else []
        elif given.get("type") == "application/json":
            self.layers[int(given["id"].removeprefix("layers-"))] = json.loads(data)
        else:
            self.scripts.append(data)

    def rows(self, **wanted):
        """Attributes of the rows of the table of images that have these attributes."""
        rows = [given for tag, given in self.elements if tag == "tr" and "data-score" in given]
        return [
            given for given in rows if all(given[f"data-{key}"] == value for key, value in wanted.items())
        ]


def page_of(directory, scores, threshold=LEVEL):
    evaluation = evaluate(scores, threshold)
    path = write_report(directory, evaluation, scores, DETAILS)
    return Page(path.read_text(encoding="utf-8")), evaluation


def test_page_stands_alone_and_shows_every_image(tmp_path, scores):
    page, evaluation = page_of(tmp_path / "new" / "out", scores)
    assert page.addresses == []
    assert not any("alert" in script for script in page.scripts)  # the model's name is text, not markup
    assert "a <script>alert(1)</script> run" in page.all_text
    # Seven images in the galleries, each with its heat map, and the colours' legend.
    assert len(page.images) == 2 * 7 + 1
    for name in ("image AUROC", "pixel AUROC", "AUPRO", "scratch", "dot", "dot/000.png"):
        assert name in page.all_text
    assert f"{evaluation.image_auroc:.3f}" in page.all_text
    assert f"{evaluation.aupro:.3f}" in page.all_text
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == ["report.html", "results.json"]


def test_page_charts_are_drawings(tmp_path, scores):
    evaluation = evaluate(scores, LEVEL)
    text = write_report(tmp_path, evaluation, scores, DETAILS).read_text(encoding="utf-8")
    # The histogram of the explorer, and the ROC curves.
    assert len(re.findall(r"<svg\b", text)) == 2
    assert "<?xml" not in text
    assert "<!DOCTYPE svg" not in text


def test_heat_maps_light_what_is_above_the_threshold(scores):
    cards = {card.name: card for gallery in galleries(scores, LEVEL) for card in gallery.cards}
    for index, sample in enumerate(scores.samples):
        card = cards[f"{sample.path.parent.name}/{sample.path.name}"]
        image = decoded(card.heat_map).astype(int)
        lit = scores.maps[index] > LEVEL.value
        warmth = (image[..., 0] - image[..., 2])[lit]
        assert (card.outcome in ("found", "false alarm")) == lit.any()
        if lit.any():
            assert np.median(warmth) > 20 or (image[lit].min(axis=1) > 180).mean() > 0.3
        assert card.score == scores.scores[index]


def test_cards_of_large_maps_are_reduced(scores, monkeypatch):
    monkeypatch.setattr("edgead.evaluation.gallery.LONGEST_SIDE_PX", SIZE_PX // 2)
    cards = [card for gallery in galleries(scores, LEVEL) for card in gallery.cards]
    for card in cards:
        for uri in (card.image, card.heat_map):
            assert decoded(uri).shape == (SIZE_PX // 2, SIZE_PX // 2, 3)


def decoded(uri):
    data = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def test_galleries_are_chosen_by_score(scores):
    defects_high, defects_low, good = galleries(scores, LEVEL)
    assert [c.name for c in defects_high.cards] == ["scratch/003.png", "scratch/002.png"]
    assert [c.name for c in defects_low.cards] == ["dot/000.png", "dot/001.png"]
    assert [c.kind for c in good.cards] == ["good"] * 3
    assert [c.score for c in good.cards] == sorted((c.score for c in good.cards), reverse=True)
    assert [c.right for c in defects_high.cards] == [True, True]
    assert [c.right for c in defects_low.cards] == [False, False]
    assert [c.outcome for c in defects_low.cards] == ["missed", "missed"]
    assert [c.outcome for c in defects_high.cards] == ["found", "found"]
    assert [c.outcome for c in good.cards] == ["passed"] * 3


def test_without_threshold_the_scale_is_the_highest_good_score(tmp_path, scores):
    best = max(s for s, sample in zip(scores.scores, scores.samples, strict=True) if sample.label == 0)
    assert colour_scale(scores, None) == best
    page, _ = page_of(tmp_path, scores, None)
    assert f"{best:.4g}" in page.all_text
    assert not any("mark" in given.get("class", "").split() for _, given in page.elements)
    assert not any(given.get("id") == "explorer" for _, given in page.elements)
    assert "edgead build" in page.all_text


def test_images_without_labels_have_a_gallery_and_no_judgement(tmp_path, scores):
    unlabelled = replace(scores, samples=tuple(Sample(s.path, None) for s in scores.samples))
    page, evaluation = page_of(tmp_path, unlabelled)
    assert evaluation.unlabelled == 7
    (gallery,) = galleries(unlabelled, LEVEL)
    assert gallery.title in page.all_text
    assert {c.right for c in gallery.cards} == {None}
    assert len(gallery.cards) == 6
    assert colour_scale(unlabelled, None) == scores.scores.max()


def test_failures_and_warnings_are_on_the_page(tmp_path, scores):
    small = replace(LEVEL, n_normal=20, achieved_confidence=0.18)
    dark = replace(
        scores, maps=np.zeros_like(scores.maps), scores=np.zeros_like(scores.scores), broken=("x.png is bad",)
    )
    page, evaluation = page_of(tmp_path, dark, small)
    assert evaluation.collapse in page.all_text
    assert small.warning().lower() in page.all_text.lower()
    assert "x.png is bad" in page.all_text
    assert text_report(evaluation).startswith(f"FAILED: {evaluation.collapse}")
    assert "broken, left out   1" in text_report(evaluation)


def test_scores_that_are_not_finite_still_make_a_page(tmp_path, scores):
    maps = scores.maps.copy()
    maps[:] = np.nan
    page, evaluation = page_of(tmp_path, replace(scores, maps=maps, scores=maps[:, 0, 0].copy()))
    assert evaluation.collapse in page.all_text
    assert page.images == []
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["images"][0]["score"] is None
    assert evaluation.absent["image"] in text_report(evaluation)


def test_an_image_whose_map_is_not_finite_has_no_decision_in_the_results(tmp_path, scores):
    maps = scores.maps.copy()
    maps[1, 2, 3] = np.inf
    page, evaluation = page_of(tmp_path, replace(scores, maps=maps))
    images = json.loads((tmp_path / "results.json").read_text())["images"]
    expected = [bool(v > LEVEL.value) for v in scores.scores]
    expected[1] = None
    assert [image["is_anomalous"] for image in images] == expected
    assert evaluation.absent["decisions"] in text_report(evaluation)
    assert page.images == []


def test_results_json_holds_every_score(tmp_path, scores):
    _, evaluation = page_of(tmp_path, scores)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["schema"] == 1
    assert results["details"] == DETAILS
    assert results["evaluation"]["image_auroc"] == evaluation.image_auroc
    assert [p["path"] for p in results["images"]] == [str(s.path) for s in scores.samples]
    assert [p["score"] for p in results["images"]] == [float(v) for v in scores.scores]
    assert [p["is_anomalous"] for p in results["images"]] == [bool(v > LEVEL.value) for v in scores.scores]
    without = results_json(evaluate(scores, None), scores, DETAILS)
    assert {p["is_anomalous"] for p in without["images"]} == {None}


def test_text_report(scores):
    evaluation = evaluate(scores, LEVEL)
    lines = text_report(evaluation).splitlines()
    auroc = next(line for line in lines if line.startswith("AUROC"))
    assert auroc.split() == ["AUROC", f"{evaluation.image_auroc:.3f}", f"{evaluation.pixel_auroc:.3f}"]
    row = next(line for line in lines if line.startswith("scratch"))
    assert row.split()[1:3] == ["2", "2"]
    assert decision_sentence(evaluation) in lines
    assert re.search(r"\b0\.2\b.*\b2 of 4\b.*\b0 of 3\b", decision_sentence(evaluation))
    without = evaluate(scores, None)
    no_threshold = text_report(without)
    assert without.absent["decisions"] in no_threshold
    assert " - " in no_threshold


def test_previous_report_survives_a_failure(tmp_path, scores):
    page_of(tmp_path, scores)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    gone = replace(
        scores, samples=(*scores.samples[:-1], replace(scores.samples[-1], path=tmp_path / "gone.png"))
    )
    with pytest.raises(ImageError) as caught:
        write_report(tmp_path, evaluate(scores, LEVEL), gone, DETAILS)
    assert "gone.png" in caught.value.what
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named(tmp_path, scores):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeadError) as caught:
        write_report(tmp_path / "file", evaluate(scores, LEVEL), scores, DETAILS)
    assert str(tmp_path / "file") in caught.value.what


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_missing_packages_are_named_before_the_work(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        check_report_packages()
    assert package.partition(".")[0] in caught.value.what
    assert "edgead[report]" in caught.value.hint


def test_charts_survive_edges():
    one = np.array([0.5], np.float32)
    none = np.array([], np.float32)
    assert histogram_chart(one, none, None).startswith("<svg")
    assert histogram_chart(none, np.zeros(3, np.float32), 0.0).startswith("<svg")
    many = np.linspace(0, 1, 100_000)
    chart = roc_chart([("pixels", many, many)])
    # A curve of a hundred thousand corners is drawn with a few.
    assert len(chart) < 200_000


def test_legend_and_outline_are_in_the_model_s_pixels(scores):
    (card, *_), *_ = (gallery.cards for gallery in galleries(scores, LEVEL))
    image = decoded(card.image)
    original = read_image(next(s.path for s in scores.samples if s.path.name == "003.png"))
    assert image.shape == original.shape
    # The outline of the true defect is green and lies inside the rectangle that was drawn.
    green = (image[..., 1].astype(int) - image[..., 0]) > 60
    rows, columns = np.nonzero(green)
    assert rows.min() >= 6
    assert rows.max() <= 12
    assert columns.min() >= 5
    assert columns.max() <= 20


def test_images_and_outlines_lie_on_the_region_of_interest(tmp_path):
    image, mask = np.zeros((60, 120, 3), np.uint8), np.zeros((60, 120), np.uint8)
    image[10:42, 80:112] = 200
    mask[18:34, 88:104] = 255
    for name, content in {"image.png": image, "mask.png": mask}.items():
        assert cv2.imwrite(str(tmp_path / name), content)
    sample = Sample(
        tmp_path / "image.png", 1, "hole", tmp_path / "mask.png", view=View(roi=read_roi("80,10,32,32"))
    )
    size = ModelSize(32, 32)
    scores = score_dataset(FakeSession(size), [sample], size)
    ((card,),) = [gallery.cards for gallery in galleries(scores, None)]
    shown = decoded(card.image).astype(int)
    assert shown.shape == (32, 32, 3)
    assert abs(shown[0, 0, 0] - 200) < 20
    coloured = np.ptp(shown, axis=2) > 60
    assert coloured[8:24, 6:11].any()
    assert not coloured[:4].any()
    assert not coloured[28:].any()
    layers = image_layers(scores, None)
    assert layers is not None
    plain, _, marked = layers.of_image[0]
    assert abs(int(decoded(plain)[0, 0, 0]) - 200) < 20
    np.testing.assert_array_equal(np.argwhere(decoded(marked)[..., 0])[[0, -1]], [[8, 8], [23, 23]])
