"""A checkpoint of RD4AD through the command line: imported, built and evaluated, it scores as the original model."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import gaussian_filter
from torch import nn

from edgead.bundle import open_bundle
from edgead.imaging.decode import read_image
from tests.helpers.command_line import run_main
from tests.helpers.other_libraries import State, enlarged_maps, pixels, random_state, resnet18, student_of_rd
from tests.helpers.training_parts import good_parts, write_images

# RD4AD's scripts use images of 256 pixels; here it is trained on smaller ones, which is enough for these discs.
SIZE_PX, TRAINED_PX = 256, 64
# The smallest network that RD4AD has.
NAMES = "anomalib ReverseDistillation resnet18"
GOOD_PARTS, DEFECTS = 3, 2


def theirs() -> tuple[State, State]:
    """Train RD4AD for some steps on images of good parts; return the tensors of teacher and student by name."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    teacher = network.state_dict()
    renamed = {"model.bottleneck.": "bn.", "model.decoder.": "decoder."}
    student = {
        ours + key.removeprefix(prefix): tensor
        for key, tensor in random_state(NAMES).items()
        for prefix, ours in renamed.items()
        if key.startswith(prefix)
    }
    x = pixels(torch.from_numpy(good_parts(4, TRAINED_PX)))
    with torch.no_grad():
        features = resnet18(x, teacher, "")
    learnt = [tensor.requires_grad_() for key, tensor in student.items() if key.endswith(("weight", "bias"))]
    optimizer = torch.optim.Adam(learnt, 2e-3)
    for _ in range(30):
        pairs = zip(features, student_of_rd(features, student, "bn.", "decoder."), strict=True)
        loss = torch.stack(
            [1 - F.cosine_similarity(t.flatten(1), s.flatten(1)).mean() for t, s in pairs]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher, {key: tensor.detach() for key, tensor in student.items()}


def score(image: Path, teacher: State, student: State) -> float:
    """Score an image as RD4AD's `evaluation` does: the maximum of resized, summed cosine maps, smoothed by SciPy."""
    features = resnet18(pixels(torch.from_numpy(read_image(image)[None])), teacher, "")
    rebuilt = student_of_rd(features, student, "bn.", "decoder.")
    maps = enlarged_maps(features, rebuilt, (SIZE_PX, SIZE_PX), align_corners=True)
    return float(gaussian_filter(maps.sum(0)[0, 0].double().numpy(), sigma=4).max())


@torch.no_grad()
def test_a_bundle_of_rd4ad_scores_as_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(Path("discs/train/good"), 2, SIZE_PX)
    write_images(Path("discs/test/good"), GOOD_PARTS, SIZE_PX)
    for stained in write_images(Path("discs/test/stain"), DEFECTS, SIZE_PX).iterdir():
        image = cv2.imread(str(stained))
        image[70:130, 100:160] = 0
        assert cv2.imwrite(str(stained), image)
    with torch.enable_grad():
        teacher, student = theirs()
    parts = {f"{part}.": part for part in ("bn", "decoder")}
    torch.save(teacher, "resnet18.pth")
    torch.save(
        {
            part: {key.removeprefix(prefix): x for key, x in student.items() if key.startswith(prefix)}
            for prefix, part in parts.items()
        },
        "rd4ad.pth",
    )

    assert (
        run_main(
            "import", "rd4ad.pth", "--data", "discs", "--out", "run", "--teacher-weights", "resnet18.pth"
        )
        == 0
    )
    assert run_main("build", "run", "--out", "bundle") == 0
    capsys.readouterr()
    assert run_main("eval", "bundle", "discs", "--json") == 0

    manifest = open_bundle(Path("bundle")).manifest
    assert (manifest.method, manifest.teacher, manifest.verified) == ("rd", "resnet18.tv_in1k", True)
    found = {row["path"]: row["score"] for row in json.loads(capsys.readouterr().out)["images"]}
    assert len(found) == GOOD_PARTS + DEFECTS
    expected = {path: score(Path(path), teacher, student) for path in found}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
    # The threshold is the highest score of good test images, which the original model scores the same.
    highest = max(value for path, value in expected.items() if "good" in path)
    assert manifest.thresholds["discs"].value == pytest.approx(highest, rel=1e-4)
