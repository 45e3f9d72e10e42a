"""The public functions of `import edgead`: train, build, load, evaluate and stream, each in one call.

Each function does the same as the command of its name, with the same options. A function imports its dependencies when
it is called, so that a device without the training packages can load a bundle. The functions print nothing: they log
steps to the logger `edgead` at level INFO, and progress at level DEBUG (see `edgead.files.progress`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from edgead.errors import InputError, needs_extra
from edgead.files.addresses import without_secrets
from edgead.files.arguments import (
    BuildOptions,
    PathLike,
    StreamOptions,
    TrainOptions,
    check_build_source,
    checked,
    checked_options,
    path_of,
    paths_of,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from edgead.bundle import Bundle
    from edgead.evaluation.evaluate import Evaluation
    from edgead.runtime.model import Model
    from edgead.streaming import Summary
    from edgead.training.run import Run

_log = logging.getLogger(__name__)


def train(data: PathLike | Sequence[PathLike], out: PathLike, **options: Unpack[TrainOptions]) -> Run:
    """Train a model on images of good parts.

    The same call again continues a training that was killed, and does nothing if the training is finished.

    Args:
        data: Folder with images of good parts, or a list of folders for one model of several parts.
        out: Run directory to write, or to continue.
        **options: `method`, `size`, `epochs` and the other options of `edgead.files.arguments.TrainOptions`.

    Returns:
        The finished run: its `path`, `thresholds` and `summary`.

    Raises:
        EdgeadError: If an option or the dataset is not usable, `out` holds another run, the student learnt nothing
            (CollapseError), or the training packages are missing.

    Example:
        >>> import edgead
        >>> run = edgead.train("my-parts", "runs/my-parts", method="rd")
        >>> list(run.thresholds)
        ['my-parts']
    """
    given = checked_options(TrainOptions, options)
    folders, run_path = paths_of(data, "data"), path_of(out, "out")
    # Checks that need no torch come first, because its import takes seconds.
    from edgead.data import open_dataset
    from edgead.data.view_options import VIEW_OPTIONS, view_of
    from edgead.files.atomic import check_directory
    from edgead.files.lock import exclusive
    from edgead.files.progress import is_first_process
    from edgead.imaging.decode import check_bit_depth
    from edgead.imaging.preprocess import ModelSize

    # An update has the view of its run, unless another is given, which is refused.
    viewed = "base" not in given or not given.keys().isdisjoint(VIEW_OPTIONS)
    view = view_of(given)
    if "size" in given:
        ModelSize.parse(str(given["size"]))
    check_bit_depth(given.get("bit_depth"))
    check_directory(run_path)
    for folder in folders:
        open_dataset(folder, given.get("layout", "auto"))
    # The other processes of a training only exist because the first one has the lock.
    with exclusive(run_path) if is_first_process() else nullcontext():
        with needs_extra("train", "edgead train"):
            from edgead.training.start import start_training
        return start_training(folders, run_path, {**given, **({"view": view} if viewed else {})})


def build(run: Run | Bundle | PathLike, out: PathLike, **options: Unpack[BuildOptions]) -> Bundle:
    """Build a bundle from a run and verify that it decides as the trained model does.

    Args:
        run: Run that `train` returned, or the directory of a run. A bundle may be given instead: it is compiled as it
            is for another target, or built again with the images of `data`.
        out: Bundle directory to write; an existing bundle is replaced.
        **options: `target`, `precision` and the other options of `edgead.files.arguments.BuildOptions`.

    Returns:
        The bundle, opened.

    Raises:
        EdgeadError: If an option or the run is not usable, or the decisions of the built model differ from the trained
            model (VerificationError). Nothing is written then.

    Example:
        >>> import edgead
        >>> bundle = edgead.build("runs/my-parts", "engines/my-parts", target="cpu", precision="fp32")
        >>> bundle.manifest.precision
        'fp32'
    """
    from edgead.bundle import check_out, open_bundle
    from edgead.engine.build import build_bundle
    from edgead.engine.candidate import check_target_here
    from edgead.engine.plan import Plan
    from edgead.engine.rebuild import rebuild_bundle, recompile_bundle
    from edgead.files.lock import exclusive
    from edgead.files.packages import require_packages

    given = checked_options(BuildOptions, options)
    source, bundle_path = path_of(run, "run"), path_of(out, "out")
    data = paths_of(given.pop("data"), "data") if given.get("data") is not None else []
    is_bundle = check_build_source(source, data, given)
    plan = Plan.parse(**given)
    check_out(bundle_path)
    check_target_here(plan)
    if not is_bundle:
        require_packages("train", "edgead build", "torch", "onnxscript", "onnxsim")
    with exclusive(bundle_path):
        if not is_bundle:
            with needs_extra("train", "edgead build"):
                from edgead.training.run import open_run
            built = build_bundle(open_run(source), bundle_path, plan)
        elif data:
            built = rebuild_bundle(open_bundle(source), data, bundle_path, plan)
        else:
            built = recompile_bundle(open_bundle(source), bundle_path, plan)
    thresholds = built.manifest.thresholds
    for part, threshold in thresholds.items():
        if (warning := threshold.warning()) is not None:
            _log.warning("%s%s", f"{part}: " if len(thresholds) > 1 else "", warning)
    return built


def load(
    model: Run | Bundle | PathLike, *, threads: int | None = None, threshold: float | None = None
) -> Model:
    """Open a bundle or a run to decide on images; use the result as a context manager.

    Args:
        model: Directory of a bundle or of a run, or the object that `build` or `train` returned. A run needs the
            training packages.
        threads: Number of CPU threads of one inference, for a bundle on a CPU; by default one for each core.
        threshold: Decision threshold to use instead of the model's own; a finite number above 0.

    Returns:
        The opened model, see `Model.predict`.

    Raises:
        EdgeadError: If the directory holds neither, the run is unfinished, the bundle is damaged or of a newer edgead,
            or its backend cannot open it.

    Example:
        >>> import edgead
        >>> with edgead.load("engines/my-parts") as model:
        ...     model.parts
        ('my-parts',)
    """
    from edgead.files.atomic import restore_directory
    from edgead.runtime.model import Model
    from edgead.scoring.threshold import check_value

    path = path_of(model, "model")
    checked("threads", threads, int | None)
    checked("threshold", threshold, float | None)
    if threshold is not None:
        check_value(threshold)
    restore_directory(path)
    if (path / "run.json").is_file():
        if threads is not None:
            raise InputError(f"threads is {threads}, and {path} is a run", hint="leave threads out")
        with needs_extra("train", "a run"):
            from edgead.training.run import open_run
        run = open_run(path)
        description = f"{path} (run: {run.method_name}, {run.teacher_name})"
        return Model(
            run.session(), run.size, run.thresholds, description, run.bit_depth, threshold, view=run.view
        )
    if (path / "manifest.json").is_file():
        from edgead.bundle import Bundle, open_bundle

        return Model.of_bundle(model if isinstance(model, Bundle) else open_bundle(path), threads, threshold)
    state = "is neither a run nor a bundle" if path.exists() else "does not exist"
    raise InputError(f"{path} {state}", hint="give a directory that edgead train or edgead build wrote")


def evaluate(
    model: Run | Bundle | PathLike,
    data: PathLike,
    *,
    part: str | None = None,
    layout: str = "auto",
    out: PathLike | None = None,
    skip_broken: bool = False,
) -> Evaluation:
    """Measure how well a bundle or a run distinguishes defects from good parts.

    Args:
        model: Directory of a bundle or of a run, or the object that `build` or `train` returned.
        data: Dataset with good and defective images to test on.
        part: Name of the part on the images, if the model has several parts; by default the name of the dataset.
        layout: Folder layout of the dataset: "auto", "mvtec", "btad", "visa" or "folder".
        out: Directory for `report.html` and `results.json`; needs the packages of `edgead[report]`.
        skip_broken: Whether to leave out and count image files that cannot be read.

    Returns:
        The metrics; `collapse` is the reason why the model counts as failed, None if it does not.

    Raises:
        EdgeadError: If the model cannot be loaded, the part is unknown, the dataset has no test images, or an image
            cannot be read (DataError).

    Example:
        >>> import edgead
        >>> evaluation = edgead.evaluate("engines/my-parts", "my-parts")
        >>> 0.0 <= evaluation.image_auroc <= 1.0
        True
    """
    from edgead.evaluation.model_evaluation import evaluate_model

    checked("part", part, str | None)
    checked("layout", layout, str)
    path, report = path_of(data, "data"), None if out is None else path_of(out, "out")
    model_path = path_of(model, "model")
    return evaluate_model(lambda: load(model), model_path, path, part, layout, skip_broken, report).evaluation


def stream(
    model: Run | Bundle | PathLike,
    source: int | PathLike,
    sinks: Sequence[str] = ("status:",),
    **options: Unpack[StreamOptions],
) -> Summary:
    """Score a camera, a video or a folder until it ends or Ctrl-C is pressed.

    Args:
        model: Directory of a bundle or of a run, or the object that `build` or `train` returned.
        source: Camera number, video file, folder of images, "rtsp://..." or another address that
            `edgead.streaming.open_source` lists.
        sinks: Addresses that receive the verdicts: "jsonl:FILE", "video:FILE.mkv", "rejects:FOLDER?keep=1000",
            "mqtt://HOST/TOPIC?spool=FILE", "webhook:https://HOST/PATH#spool=FILE", "modbus://HOST/?registers=100",
            "opcua:PORT", "prometheus:PORT", "status:", "window:".
        **options: `part`, `max_age` and the other options of `edgead.files.arguments.StreamOptions`.

    Returns:
        Counts, latencies and ages of the stream, with the events that each sink has written and lost.

    Raises:
        EdgeadError: If the model cannot be loaded, an argument is bad, a sink cannot be opened, the source fails, or a
            sink fails while a file or a folder is scored.

    Example:
        >>> import edgead
        >>> summary = edgead.stream("engines/my-parts", source="frames", sinks=["jsonl:verdicts.jsonl"])
        >>> summary.frames_scored == summary.frames_seen
        True
    """
    from edgead.streaming.plan import CameraPlan, StreamPlan
    from edgead.streaming.start import start_stream

    chosen = checked_options(StreamOptions, options)
    # An address is not converted to a path, which would lose the second slash of rtsp://.
    given = source if type(source) in (int, str) and source != "" else path_of(source, "source")
    if not isinstance(sinks, list | tuple) or not all(isinstance(sink, str) for sink in sinks):
        shown = without_secrets(str(sinks))[:200]
        raise InputError(f"sinks is {shown!r}", hint="give a list of addresses, such as ['status:']")

    threads = chosen.pop("threads", None)
    of_all = {name: chosen.pop(name) for name in ("serve", "feedback") if name in chosen}
    plan = StreamPlan((CameraPlan(str(given), sink=tuple(sinks), **chosen),), **of_all)
    (summary,) = start_stream(lambda: load(model, threads=threads), plan).cameras.values()
    return summary
