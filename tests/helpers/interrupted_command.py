"""Commands that get a signal while they work. This module imports nothing heavy, so a process starts at once."""

from __future__ import annotations

import importlib
import os
import sys

from edgead.cli.main import main

# The module that a command imports, and the function in it that is interrupted.
WORK = {
    "train": ("edgead.training.start", "train_run", ["data", "--out", "out"]),
    "import": ("edgead.importers.run", "import_run", ["x.ckpt", "--data", "data", "--out", "out"]),
    "build": ("edgead.engine.plan", "find_target", ["run", "--out", "out"]),
    "calibrate": ("edgead.files.atomic", "restore_directory", ["run", "--out", "out"]),
    "info": ("edgead.files.atomic", "restore_directory", ["run"]),
    "eval": ("edgead.data", "open_dataset", ["run", "data"]),
    "compare": ("edgead.comparison.grid", "plan_grid", ["data", "--methods", "rd", "--out", "out"]),
    "stream": ("edgead.bundle", "open_bundle", ["run", "--source", "0"]),
    "predict": ("edgead.prediction.inputs", "find_inputs", ["run", "data", "--out", "out"]),
    "demo": ("edgead.demo.run", "run_demo", []),
    "doctor": ("edgead.cli.diagnosis", "diagnose", []),
}


def work_interrupted(number: int, command: str) -> None:
    """Run a command that sends a signal to itself while it works; exit with 7 if the signal does not end it."""

    module, function, arguments = WORK[command]

    def work(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            # timeout(1), and a terminal that closes, send it twice.
            os.kill(os.getpid(), number)
        sys.exit(7)

    setattr(importlib.import_module(module), function, work)
    sys.argv = ["edgead", command, *arguments]
    main()
