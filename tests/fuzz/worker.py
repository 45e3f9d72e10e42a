"""The process that runs the cases of one target; its parent survives whatever a case does to it."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory, TemporaryFile

from edgead.errors import EdgeadError
from tests.fuzz.targets import TARGETS, Target

CASE_SECONDS = 30
"""Longest time of a case on a busy machine; a longer one is a hang."""

CASE_BYTES = 2**30
"""Most memory that a case may add to the process."""


def case(target: Target, whole: list[bytes], name: str, seed: int, number: int) -> bytes:
    """Make the input of a case."""
    random = Random(f"{name}/{seed}/{number}")
    data = random.choice(whole)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = random.choice(target.mutations)(random, data)
    return data


def failure_of(target: Target, data: bytes, folder: Path) -> tuple[str, str] | None:
    """Run a case; if it fails, return the kind of the failure and its details."""
    try:
        target.read(data, folder)
    except EdgeadError as error:
        text = str(error)
        if isinstance(error.__cause__, MemoryError):
            return f"out of memory in {_place(error.__cause__)}", text[:300]
        if target.in_a_file and not (text.isprintable() and len(text) < 2000):
            return f"no printable line of an {type(error).__name__} in {_place(error)}", repr(text[:300])
        return None
    except BaseException as error:
        return f"{type(error).__name__} in {_place(error)}", repr(str(error)[:300])
    return None


def _place(error: BaseException) -> str:
    """The function of edgead that was last called, and the function that raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "a library"
    ours = [frame for frame in frames if "/edgead/" in frame.filename]
    last = ours[-1] if ours else frames[-1]
    return f"{last.name} ({Path(last.filename).name}) from {frames[-1].name}"


def main() -> None:
    """Run cases of `argv`: target, seed, first number, seconds, most cases; print a line of JSON for each failure."""
    name, seed, first, seconds, most = sys.argv[1], *map(float, sys.argv[2:])
    logging.disable(logging.CRITICAL)
    target = TARGETS[name]
    # No library may print; its lines are failures, and no reports.
    report, errors = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
    with TemporaryDirectory(prefix="edgead-fuzz-") as place, TemporaryFile() as printed:
        folder = Path(place)
        whole = list(target.whole(folder))
        for data in whole:
            reason = failure_of(target, data, folder)
            assert reason is None, f"a whole input fails: {reason}"
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        # So that an allocation without limit is an error, not the end of the machine.
        resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30,) * 2)
        before = _peak_bytes()
        end, number = time.monotonic() + seconds, int(first)
        while number < first + most and (time.monotonic() < end or number == first):
            data = case(target, whole, name, int(seed), number)
            print(json.dumps({"started": number}), file=report, flush=True)
            # It ends the process, even if the case never comes back from a library.
            faulthandler.dump_traceback_later(CASE_SECONDS, exit=True, file=errors)
            reason = failure_of(target, data, folder)
            faulthandler.cancel_dump_traceback_later()
            if reason is None and _peak_bytes() - before > CASE_BYTES:
                reason = "much memory", f"{(_peak_bytes() - before) / 2**30:.1f} GiB more"
            before = max(before, _peak_bytes())
            if reason is None and os.fstat(printed.fileno()).st_size:
                printed.seek(0)
                reason = "a library prints", repr(printed.read(300))
                printed.seek(0)
                printed.truncate()
            if reason is not None:
                print(
                    json.dumps({"failed": number, "kind": reason[0], "details": reason[1]}),
                    file=report,
                    flush=True,
                )
            number += 1
    print(json.dumps({"done": number}), file=report, flush=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
