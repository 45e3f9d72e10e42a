"""The choices of help and completion are equal to the registries of the packages."""

from typing import get_args

import pytest
import timm

from edgead.cli import choices
from edgead.cli.diagnosis import HUB_TEACHERS, PACKAGE_TEACHERS
from edgead.data.layouts import LAYOUTS
from edgead.data.synthetic.parts import KINDS
from edgead.engine.calibration_images import CALIBRATE_ON
from edgead.engine.fidelity import PRECISIONS
from edgead.engine.plan import HEADS
from edgead.engine.target import target_names
from edgead.export.precision.clipping import ALGORITHMS
from edgead.imaging.view import FITS
from edgead.models import METHODS
from edgead.models.base import ALIGNMENTS, PRESETS
from edgead.prediction.saving import FILES
from edgead.streaming.policy import WITHHOLD_STILL
from edgead.training.fabric import ACCELERATORS
from edgead.training.fabric import PRECISIONS as TRAINING_PRECISIONS
from edgead.types import BACKENDS, Quantize


@pytest.mark.parametrize(
    ("choice", "known"),
    [
        (choices.Method, METHODS),
        (choices.Variant, METHODS["rstpm"].variants),
        (choices.Preset, PRESETS),
        (choices.Fit, FITS),
        (choices.Layout, ("auto", *LAYOUTS)),
        (choices.Alignment, ("auto", *ALIGNMENTS)),
        (choices.Accelerator, ACCELERATORS),
        (choices.TrainingPrecision, TRAINING_PRECISIONS),
        (choices.Backend, BACKENDS),
        (choices.Precision, (*PRECISIONS, "auto")),
        (choices.Head, HEADS),
        (choices.CalibrateOn, CALIBRATE_ON),
        (choices.Algorithm, ALGORITHMS),
        (choices.Quantize, get_args(Quantize)),
        (choices.Kind, KINDS),
        (choices.WithholdStill, WITHHOLD_STILL),
        (choices.Save, FILES),
        (choices.TARGETS, target_names()),
        (choices.TEACHERS, (*PACKAGE_TEACHERS, *HUB_TEACHERS)),
    ],
)
def test_a_choice_is_its_registry(choice, known):
    assert sorted(map(str, choice)) == sorted(known)


def test_every_variant_is_one_of_some_method():
    variants = {variant for method in METHODS.values() for variant in method.variants}
    assert variants == set(map(str, choices.Variant))


def test_the_teachers_are_networks_of_timm():
    assert set(choices.TEACHERS) <= set(timm.list_models())


def test_completion_offers_words_with_the_typed_prefix():
    assert choices.complete_target("rtx-d") == ["rtx-desktop"]
    assert choices.complete_teacher("wide") == ["wide_resnet50_2"]
    assert choices.complete_methods("rd,stfpm-sl") == ["rd,stfpm-slim"]
    assert choices.complete_save("overlay,ma") == ["overlay,map", "overlay,mask"]
