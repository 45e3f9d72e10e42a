"""Maps of RD that are multiplied in place of added: trained and loaded."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch

import edgead
from edgead.errors import CollapseError, InputError
from edgead.imaging.anomaly_map import anomaly_map
from edgead.models import METHODS, check_fusion
from edgead.training.run import Run, open_run, read_record, write_record
from tests.helpers.training_parts import TINY_TEACHER, write_images

SMALL = {"method": "rd", "teacher": TINY_TEACHER, "teacher_weights": "random", "size": 64, "epochs": 2}


@pytest.fixture(scope="module")
def multiplied(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("fusion")
    data, out = write_images(root / "parts", 10), root / "run"
    # Such a short training may count as collapsed; the quality of the model does not matter here.
    with contextlib.suppress(CollapseError):
        edgead.train(data, out, fusion="multiply", hold_out=0.3, **SMALL)
    record = read_record(out)
    assert record is not None
    write_record(out, replace(record, state="finished"))
    return open_run(out)


def test_the_map_of_a_run_is_the_product_of_its_scales(multiplied):
    method = multiplied.load_model()
    assert (method.head.fusion, method.head.weights) == ("multiply", ())
    (images,) = (loaded.images for loaded in multiplied.holdout_images().values())
    with torch.no_grad():
        sides = method.features(torch.from_numpy(images[:1]))
    teacher, student = ([x.numpy() for x in side] for side in sides)
    product, score = anomaly_map(teacher, student, 64, 64, "multiply", method.head.sigma)
    prediction = multiplied.session().infer(images[:1])
    assert prediction.anomaly_map == pytest.approx(product, abs=1e-5)
    assert prediction.anomaly_score == pytest.approx(score, abs=1e-5)
    total, _ = anomaly_map(teacher, student, 64, 64, "add", method.head.sigma)
    assert abs(total - product).max() > 1e-2


def test_only_a_method_with_both_fusions_takes_the_other_one():
    for name, method in METHODS.items():
        check_fusion(name, method.fusion)
        other = "add" if method.fusion == "multiply" else "multiply"
        if name in ("rd", "rd++"):
            check_fusion(name, other)
        else:
            with pytest.raises(InputError) as caught:
                check_fusion(name, other)
            assert "--fusion" in caught.value.hint
