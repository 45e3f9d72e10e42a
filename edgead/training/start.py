"""Start a training with a user's options: the preset gives the defaults, and Fabric chooses the devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgead.data import dataset_path
from edgead.errors import InputError
from edgead.models import hyperparameters_of, method_class
from edgead.models.base import PRESETS
from edgead.training.config import PROCEDURAL, TrainConfig
from edgead.training.fabric import FabricConfig, create_fabric
from edgead.training.run import Run, open_run
from edgead.training.training import train_run
from edgead.training.update import update_config

# Options without a meaning for a method in closed form, and their defaults.
_OF_GRADIENTS = {
    "preset": PRESETS[0],
    "alignment": "auto",
    "epochs": None,
    "learning_rate": None,
    "loss": None,
    "training_precision": None,
    "devices": 1,
    "nodes": 1,
    "early_stop": None,
}
_OF_FABRIC = ("accelerator", "devices", "nodes", "tensorboard")


def start_training(folders: Sequence[Path], out: Path, options: Mapping[str, Any]) -> Run:
    """Train a run with the options of `edgead.train`.

    Args:
        folders: Dataset folders, one for each part.
        out: Run directory to write, or to continue.
        options: Options that the user gave, by their names in `edgead.files.arguments.TrainOptions`, and
            `view` in place of the options of the view.

    Returns:
        The finished run.

    Raises:
        EdgeadError: An option is out of range, or `train_run` raised an error.
    """
    if "base" in options:
        return _start_update(folders, out, options)
    given = {"method": "rd", "preset": PRESETS[0], "alignment": "auto", "textures": PROCEDURAL, **options}
    preset = hyperparameters_of(given["method"], given["preset"])
    if method_class(given["method"]).closed_form:
        _check_closed_form(given)
        given["training_precision"] = "32-true"
    place = {name: given.pop(name) for name in _OF_FABRIC if name in given}
    fabric, precision = create_fabric(FabricConfig(**place), given.pop("training_precision", None), out)
    for name in ("epochs", "batch_size", "learning_rate", "loss"):
        given.setdefault(name, getattr(preset, name))
    given.setdefault("fusion", method_class(given["method"]).fusion)
    if given["textures"] != PROCEDURAL:
        given["textures"] = str(Path(given["textures"]).resolve())
    given |= {name: str(given[name]) for name in ("size", "teacher_weights", "hold_out") if name in given}
    data = tuple(str(dataset_path(folder)) for folder in folders)
    config = TrainConfig(data=data, training_precision=precision, **given)
    return train_run(config, out, fabric)


def _start_update(folders: Sequence[Path], out: Path, options: Mapping[str, Any]) -> Run:
    """Go on with the run of the option `base`, see `edgead.training.update`."""
    given = dict(options)
    run = open_run(Path(given.pop("base")))
    if out.resolve() == run.path.resolve():
        raise InputError(
            f"--out {out} is the run of --from", hint="choose another --out, because that run is kept"
        )
    place = {name: given.pop(name) for name in _OF_FABRIC if name in given}
    wanted = given.pop("training_precision", None)
    if method_class(run.record.config.method).closed_form:
        _check_closed_form({"method": run.record.config.method, **given})
        wanted = "32-true"
    fabric, precision = create_fabric(FabricConfig(**place), wanted, out)
    given |= {name: str(given[name]) for name in ("size", "teacher_weights", "hold_out") if name in given}
    data = tuple(str(dataset_path(folder)) for folder in folders)
    config = update_config(run, data, {**given, "training_precision": precision})
    return train_run(config, out, fabric)


def _check_closed_form(given: Mapping[str, Any]) -> None:
    """Refuse options that have no meaning for a method without gradients; InputError names the first of them."""
    for name, default in _OF_GRADIENTS.items():
        if given.get(name, default) != default:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} {given[name]}, but {given['method']} is computed in one pass, without epochs and gradients",
                hint=f"leave out {option}",
            )
