"""edgead: train on images of good parts, build a verified engine, stream a camera.

    import edgead
    run = edgead.train("my-parts", "runs/my-parts")
    bundle = edgead.build(run, "engines/my-parts")
    with edgead.load("engines/my-parts") as model:
        result = model.predict("part.png")

Names are imported when they are first used (PEP 562), so that `import edgead` takes milliseconds and needs neither
PyTorch nor an inference library.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgead.text import PrintableRecords

if TYPE_CHECKING:
    from edgead.api import build, evaluate, load, stream, train
    from edgead.bundle import Bundle, open_bundle
    from edgead.data import open_dataset
    from edgead.errors import EdgeadError
    from edgead.evaluation.evaluate import Evaluation
    from edgead.imaging.preprocess import ModelSize
    from edgead.runtime import FakeSession, Session, open_session
    from edgead.runtime.agreement import compare_sessions
    from edgead.runtime.model import Model
    from edgead.runtime.results import Result
    from edgead.scoring.threshold import Threshold
    from edgead.streaming.summary import Summary
    from edgead.types import Prediction, Region, Verdict

__version__ = "0.1.0"

# ONNX Runtime reads this once, at its first import, which may be an import by another library (onnxsim) or in a worker
# process. With telemetry it sends events to its vendor, and warns where it cannot write an identifier below HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Bundle",
    "EdgeadError",
    "Evaluation",
    "FakeSession",
    "Model",
    "ModelSize",
    "Prediction",
    "Region",
    "Result",
    "Session",
    "Summary",
    "Threshold",
    "Verdict",
    "__version__",
    "build",
    "compare_sessions",
    "evaluate",
    "load",
    "open_bundle",
    "open_dataset",
    "open_session",
    "stream",
    "train",
]

# Nothing is printed unless the program that imports edgead, or the command line, adds a handler. That handler gets
# messages without characters that control a terminal.
logging.getLogger("edgead").addHandler(PrintableRecords())

_HOMES = {
    **dict.fromkeys(("build", "evaluate", "load", "stream", "train"), "edgead.api"),
    "Bundle": "edgead.bundle.directory",
    "EdgeadError": "edgead.errors",
    "Evaluation": "edgead.evaluation.evaluate",
    "FakeSession": "edgead.runtime",
    "Model": "edgead.runtime.model",
    "ModelSize": "edgead.imaging.preprocess",
    "Prediction": "edgead.types",
    "Region": "edgead.types",
    "Result": "edgead.runtime.results",
    "Session": "edgead.runtime",
    "Summary": "edgead.streaming.summary",
    "Threshold": "edgead.scoring.threshold",
    "Verdict": "edgead.types",
    "compare_sessions": "edgead.runtime.agreement",
    "open_bundle": "edgead.bundle.directory",
    "open_dataset": "edgead.data",
    "open_session": "edgead.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgead' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
