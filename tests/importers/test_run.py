"""Checkpoints of other libraries become runs, or are refused with an error of one line."""

import enum
import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from torch import nn

from edgead.data import open_dataset
from edgead.engine.build import build_bundle
from edgead.errors import DataError, EdgeadError, InputError, TeacherError
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize
from edgead.importers import run as importing
from edgead.importers.checkpoints import read_external_checkpoint
from edgead.importers.run import import_run
from edgead.training.run import open_run
from tests.helpers.command_line import files_in
from tests.helpers.other_libraries import enlarged_maps, pixels, random_state, resnet18
from tests.helpers.training_parts import good_parts, write_images

SIZE_PX = 64
RD18 = "anomalib ReverseDistillation resnet18"
COLOURS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "inplace": False}


def step(name, **options):
    return {"class_path": f"torchvision.transforms.v2.{name}", "init_args": options}


def preprocessing(*steps):
    return {"transform": step("Compose", transforms=list(steps))}


RESIZE, NORMALIZE = step("Resize", size=[SIZE_PX, SIZE_PX], antialias=True), step("Normalize", **COLOURS)


def checkpoint(state, **changes):
    """Return a Lightning checkpoint of anomalib 2.7; `changes` are its keys, with `options` for those of the model."""
    options = {"backbone": "resnet18", "layers": ("layer1", "layer2", "layer3"), **changes.pop("options", {})}
    return {
        "epoch": 1,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": state,
        "hyper_parameters": options,
        "anomalib_pre_processor_config": preprocessing(RESIZE, NORMALIZE),
        **changes,
    }


@pytest.fixture(scope="module")
def trained():
    """State dict of an Stfpm with a ResNet18, built from timm's networks and trained on discs for 12 steps."""
    torch.manual_seed(0)
    teacher, student = (
        timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1, 2, 3))
        for _ in "ts"
    )
    for layer in (*teacher.modules(), *student.modules()):
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    teacher.eval()
    x = pixels(torch.from_numpy(good_parts(8, SIZE_PX)))
    with torch.no_grad():
        features = teacher(x)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.4, momentum=0.9)
    for _ in range(12):
        pairs = zip(features, student(x), strict=True)
        loss = sum((1 - torch.cosine_similarity(t, s)).mean() for t, s in pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    networks = {"teacher_model": teacher, "student_model": student}
    return {
        f"model.{name}.feature_extractor.{key}": tensor
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "discs"
    write_images(root / "train" / "good", 8)
    write_images(root / "test" / "good", 4)
    return root


def saved(tmp_path, content, module=None):
    """Write a file of torch.save; `module` can be imported while it is written, and not afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        if module is not None:
            parts = module.__name__.split(".")
            for number in range(1, len(parts)):
                patch.setitem(sys.modules, ".".join(parts[:number]), types.ModuleType(parts[number - 1]))
            patch.setitem(sys.modules, module.__name__, module)
        torch.save(content, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def imported(file, data, out, teacher_weights=None):
    return import_run(file, data, out, teacher_weights)


def test_a_checkpoint_becomes_a_run_with_the_same_scores(tmp_path, data, trained, monkeypatch, caplog):
    file = saved(tmp_path, checkpoint({**trained, "post_processor.image_max": torch.tensor(9.0)}))
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    imported(file, Path(data.name), Path("run"))
    monkeypatch.chdir("/")
    run = open_run(tmp_path / "run")
    images = np.stack([read_image(path) for path in sorted((data / "test" / "good").iterdir())])
    x = pixels(torch.from_numpy(images))
    sides = (
        resnet18(x, trained, f"model.{side}_model.feature_extractor.") for side in ("teacher", "student")
    )
    expected = enlarged_maps(*sides, (SIZE_PX, SIZE_PX), align_corners=False).prod(0)
    with run.session() as session:
        np.testing.assert_allclose(session.infer(images).anomaly_map, expected.numpy(), rtol=0, atol=1e-5)
    # For so few images the threshold is the largest score.
    (part,) = run.record.parts.values()
    assert part.threshold.value == pytest.approx(float(expected.max()), abs=1e-5)
    assert part.holdout == tuple(f"test/good/{number:03d}.png" for number in range(4))
    assert (part.train_images, run.size, run.teacher_name) == (8, ModelSize(64, 64), "resnet18")
    assert len(run.training_images(100).samples) == 8
    assert run.summary["imported_from"] == "anomalib Stfpm"
    assert run.summary["holdout_trained_on"] is False
    assert any(line.startswith("4 good test images") for line in caplog.messages)
    assert run.summary["differences"]
    assert all(difference in caplog.text for difference in run.summary["differences"])


def test_the_held_out_images_are_read_at_the_bit_depth(tmp_path, data, trained):
    for folder in ("train", "test"):
        for path in (data / folder / "good").iterdir():
            image = cv2.imread(str(path)).astype(np.uint16)
            assert cv2.imwrite(str(path), image * 16)
    file = saved(tmp_path, checkpoint(trained))
    run = import_run(file, data, tmp_path / "run", None, bit_depth=12)
    assert run.bit_depth == open_run(tmp_path / "run").bit_depth == 12
    with run.session() as session:
        images = [read_image(path, 12) for path in sorted((data / "test" / "good").iterdir())]
        highest = session.infer(np.stack(images)).anomaly_score.max()
    (part,) = run.record.parts.values()
    assert part.threshold.value == pytest.approx(float(highest), abs=1e-5)


def test_the_run_builds(tmp_path, data, trained):
    imported(saved(tmp_path, checkpoint(trained)), data, tmp_path / "run")
    bundle = build_bundle(open_run(tmp_path / "run"), tmp_path / "bundle")
    assert bundle.manifest.verified
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["method"] == "stfpm-anomalib"


def test_without_good_test_images_a_warning_says_that_the_threshold_is_too_low(tmp_path, trained, caplog):
    data = write_images(tmp_path / "discs", 12)
    run = imported(saved(tmp_path, checkpoint(trained)), data, tmp_path / "run")
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert any("test/good" in record.getMessage() for record in warnings)
    assert run.summary["holdout_trained_on"] is True
    (part,) = run.record.parts.values()
    assert (len(part.holdout), part.train_images) == (1, 11)
    assert part.holdout[0] in {sample.path.name for sample in open_dataset(data).train}


def test_an_exported_module_is_the_same_run(tmp_path, data, trained):
    """The module is pickled as by `anomalib export`, and its classes cannot be imported when it is read."""
    root = "anomalib.models.image.stfpm.lightning_model"
    made = types.ModuleType(root)
    for name, base in (("Stfpm", nn.Module), ("PreProcessor", nn.Module), ("Step", nn.Module)):
        setattr(made, name, type(name, (base,), {"__module__": root}))
    for name in ("Resize", "Normalize", "Compose"):
        setattr(made, name, type(name, (made.Step,), {"__module__": root}))
    module = made.Stfpm()
    for key, tensor in trained.items():
        part = module
        *path, last = key.split(".")
        for name in path:
            if name not in part._modules:
                part.add_module(name, nn.Module())
            part = part._modules[name]
        part.register_buffer(last, tensor)
    module._hparams = checkpoint({})["hyper_parameters"]
    module.pre_processor = made.PreProcessor()
    module.pre_processor.transform = made.Compose()
    resize, normalize = made.Resize(), made.Normalize()
    resize.size, normalize.mean, normalize.std = [64, 64], COLOURS["mean"], COLOURS["std"]
    module.pre_processor.transform.transforms = [resize, normalize]
    file = saved(tmp_path, {"model": module}, made)
    exported = imported(file, data, tmp_path / "exported")
    plain = imported(saved(tmp_path, checkpoint(trained)), data, tmp_path / "plain")
    assert exported.record.parts == plain.record.parts
    weights = (files_in(tmp_path / name)["model.safetensors"] for name in ("exported", "plain"))
    assert next(weights) == next(weights)


def test_rd4ad_takes_its_teacher_from_a_file(tmp_path):
    theirs = random_state(RD18)
    content = {
        ours: {key.removeprefix(prefix): x for key, x in theirs.items() if key.startswith(prefix)}
        for ours, prefix in (("bn", "model.bottleneck."), ("decoder", "model.decoder."))
    }
    file = saved(tmp_path, content)
    external = read_external_checkpoint(file)
    assert (external.method, external.backbone, external.size) == (
        "rd",
        "resnet18.tv_in1k",
        ModelSize(256, 256),
    )
    data = write_images(tmp_path / "discs", 4)
    with pytest.raises(TeacherError) as caught:
        imported(file, data, tmp_path / "run", str(tmp_path / "resnet18.pth"))
    assert str(tmp_path / "resnet18.pth") in str(caught.value)
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet18.pth")
    # The student is untrained, so the run is refused after its teacher has been accepted.
    with pytest.raises(DataError) as refused:
        imported(file, data, tmp_path / "run", str(tmp_path / "resnet18.pth"))
    assert str(data) in refused.value.what
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("mode", "method"), [("add", "rd-anomalib"), ("multiply", "rd-anomalib-multiply")])
def test_the_mode_of_a_map_is_a_member_of_their_enumeration(tmp_path, mode, method):
    root = "anomalib.models.image.reverse_distillation.anomaly_map"
    made = types.ModuleType(root)
    made.AnomalyMapGenerationMode = enum.Enum("AnomalyMapGenerationMode", {"ONE": mode}, module=root)
    options = {"anomaly_map_mode": made.AnomalyMapGenerationMode.ONE}
    file = saved(tmp_path, checkpoint(random_state(RD18), options=options), made)
    assert read_external_checkpoint(file).method == method


def test_before_2_7_the_preprocessing_was_an_argument(tmp_path, trained):
    content = checkpoint(trained, options={"pre_processor": True})
    del content["anomalib_pre_processor_config"]
    assert read_external_checkpoint(saved(tmp_path, content)).size == ModelSize(256, 256)


RD = {"model.bottleneck.conv1.weight": torch.zeros(1)}
STFPM = {"model.teacher_model.feature_extractor.conv1.weight": torch.zeros(1)}


def prepared(*steps):
    """A checkpoint with another preprocessing."""
    return checkpoint(STFPM, anomalib_pre_processor_config=preprocessing(*steps))


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        ([1], "RD4AD", ".ckpt"),
        ({"weights": {}}, "RD4AD", ".ckpt"),
        ({"model": {"a": torch.zeros(1)}}, "RD4AD", ".ckpt"),
        ({"bn": {}, "decoder": {}}, "RD4AD", "resnet18"),
        ({"bn": {}, "decoder": {"layer2.\u00b2.x": torch.zeros(1)}}, "RD4AD", "resnet18"),
        ({"bn": 1, "decoder": "x"}, "RD4AD", "resnet18"),
        (checkpoint({"model.memory_bank": torch.zeros(1)}), "Patchcore", "ReverseDistillation"),
        (checkpoint({"model.ae.encoder.weight": torch.zeros(1)}), "EfficientAd", "ReverseDistillation"),
        (checkpoint({"net.weight": torch.zeros(1)}), "unknown", "ReverseDistillation"),
        (checkpoint({1: 2}), "unknown", "ReverseDistillation"),
        (checkpoint(STFPM, hyper_parameters=None), "hyper_parameters", "anomalib 2"),
        (checkpoint(STFPM, options={"layers": ["layer2", "layer3"]}), "['layer2', 'layer3']", "layer1, layer2, layer3"),
        (checkpoint(STFPM, options={"backbone": None}), "backbone None", "backbone"),
        (checkpoint(RD, options={"backbone": "resnet101"}), "backbone 'resnet101'", "resnet18"),
        (checkpoint(RD, options={"anomaly_map_mode": "max"}), "anomaly_map_mode 'max'", "multiply"),
        (checkpoint(RD), "anomaly_map_mode None", "multiply"),
        (prepared(RESIZE, step("CenterCrop", size=[32, 32]), NORMALIZE), "CenterCrop", "without"),
        (prepared(RESIZE, step("Normalize", mean=[0.5], std=[1])), "mean [0.5] and std [1]", "0.485"),
        (prepared(RESIZE), "preprocessing", "Normalize"),
        (checkpoint(STFPM, anomalib_pre_processor_config={"transform": None}), "preprocessing", "Normalize"),
        (prepared(step("Resize", size=256), NORMALIZE), "Resize to 256", "height"),
    ],
)  # fmt: skip
def test_a_model_or_option_that_is_not_supported_is_refused_by_name(tmp_path, content, what, hint):
    file = saved(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_external_checkpoint(file)
    assert str(file) in caught.value.what
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_image_size_that_is_no_multiple_of_32_is_refused(tmp_path):
    file = saved(tmp_path, prepared(step("Resize", size=[250, 250]), NORMALIZE))
    with pytest.raises(InputError) as caught:
        read_external_checkpoint(file)
    assert "250x250" in str(caught.value)
    assert "32" in str(caught.value)


def test_an_exported_patchcore_is_refused_by_name(tmp_path):
    root = "anomalib.models.image.patchcore.lightning_model"
    made = types.ModuleType(root)
    made.Patchcore = type("Patchcore", (nn.Module,), {"__module__": root})
    file = saved(tmp_path, {"model": made.Patchcore()}, made)
    with pytest.raises(InputError) as caught:
        read_external_checkpoint(file)
    assert "Patchcore" in caught.value.what
    assert "ReverseDistillation" in caught.value.hint


def test_images_of_other_parts_are_refused(tmp_path, data, trained):
    """The library saw no score as high as the scores of these images."""
    file = saved(tmp_path, checkpoint({**trained, "post_processor.image_max": torch.tensor(1e-6)}))
    with pytest.raises(DataError) as caught:
        imported(file, data, tmp_path / "run")
    assert str(data) in caught.value.what
    assert "1e-06" in caught.value.what
    assert not (tmp_path / "run").exists()


def test_a_student_that_learnt_nothing_is_refused(tmp_path, data):
    file = saved(tmp_path, checkpoint(random_state("anomalib Stfpm resnet18")))
    with pytest.raises(DataError) as caught:
        imported(file, data, tmp_path / "run")
    assert str(data) in caught.value.what
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("found", ["nothing", "no folder", "a broken image"])
def test_a_dataset_that_cannot_be_read(tmp_path, data, trained, found):
    file, root = saved(tmp_path, checkpoint(trained)), data
    if found == "nothing":
        root = tmp_path / "empty"
        root.mkdir()
    elif found == "no folder":
        root = tmp_path / "nowhere"
    else:
        (data / "test" / "good" / "002.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        imported(file, root, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_in_the_run_directory_stay(tmp_path, data, trained):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError) as caught:
        imported(saved(tmp_path, checkpoint(trained)), data, tmp_path / "run")
    assert str(tmp_path / "run") in caught.value.what
    assert files_in(tmp_path / "run") == {"notes.txt": b"mine"}


def test_teacher_weights_beside_those_of_the_checkpoint_are_refused(tmp_path, data, trained):
    with pytest.raises(InputError) as caught:
        imported(saved(tmp_path, checkpoint(trained)), data, tmp_path / "run", "hub")
    assert str(tmp_path / "model.ckpt") in caught.value.what
    assert "--teacher-weights" in caught.value.hint


def test_a_failure_while_writing_leaves_nothing(tmp_path, data, trained, monkeypatch):
    disk_full = EdgeadError("disk full")

    def full(*_):
        raise disk_full

    monkeypatch.setattr(importing, "write_record", full)
    with pytest.raises(EdgeadError) as caught:
        imported(saved(tmp_path, checkpoint(trained)), data, tmp_path / "run")
    assert caught.value is disk_full
    assert not (tmp_path / "run").exists()
