"""Every error that edgead raises on purpose.

EdgeadError
 ├── InputError             a value the user gave: an option, a size, a name
 ├── MissingExtraError      an optional package is not installed
 ├── MissingLibraryError    the operating system lacks a library that OpenCV needs
 ├── DataError              a dataset folder, or what is in it
 │    └── ImageError      one image file
 ├── RunError               a training run directory
 ├── TeacherError           a teacher's name or its weights
 ├── TrainingError          training cannot go on
 │    └── CollapseError     the student learnt nothing, or a constant
 ├── BundleError            a bundle directory: missing, changed, too new
 ├── BackendError           an inference backend, its library, its engine
 ├── PrecisionError         a graph or a calibration that does not serve the precision asked for
 ├── StreamError            a source or a sink
 │    ├── SourceError
 │    └── SinkError
 └── VerificationError      what was built decides otherwise than the model

An error has two parts: `what` was wrong, with the value, and the `hint`, how to fix it. Its text is one line of both.
Errors of vendor libraries are translated where they are met, with ``raise ... from``; the command line prints
``error: <what>: <hint>`` and exits with `exit_code`, one of `EXIT_CODES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        1: "error: the line on standard error says what and how to fix it",
        2: "usage: an option, an argument or a choice that the command does not take",
        3: "outside tolerance: what was built decides otherwise than the model; no bundle was written",
        4: "collapsed: the model learnt nothing, or gives a constant",
        130: "interrupted by Ctrl-C",
    }
)
"""What a command ends with, for scripts."""


class EdgeadError(Exception):
    """Base of every error that edgead raises on purpose.

    Args:
        what: What was wrong, with the value, in one line.
        hint: How to fix it: what to type, install or change.

    Attributes:
        what: As given.
        hint: As given; None if there is nothing to do.
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what if hint is None else f"{what}: {hint}")
        self.what, self.hint = what, hint


class InputError(EdgeadError):
    """A value that the user gave is not usable."""


class MissingExtraError(EdgeadError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed", hint=f"pip install 'edgead[{extra}]'"
        )


class MissingLibraryError(EdgeadError):
    """OpenCV is installed and cannot be loaded: a bare server or device lacks libraries that a desktop has."""

    def __init__(self, reason: ImportError) -> None:
        super().__init__(
            f"OpenCV cannot be loaded ({reason})", hint="sudo apt-get install libgl1 libglib2.0-0"
        )


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Translate the absence of a package that the block imports into MissingExtraError.

    Args:
        extra: The extra of edgead that brings the package.
        purpose: What needs the package, as the message begins.

    Raises:
        MissingExtraError: An imported package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # A module of ours that is missing is a bug, and keeps its traceback.
        if error.name is None or error.name.partition(".")[0] == "edgead":
            raise
        raise MissingExtraError(error.name, extra, purpose) from error


class DataError(EdgeadError):
    """A dataset folder is missing, empty or not of the expected layout."""


class ImageError(DataError):
    """An image file cannot be read."""


class RunError(EdgeadError):
    """A training run directory is missing, incomplete or of another configuration."""


class TeacherError(EdgeadError):
    """A teacher is unknown or its weights cannot be had."""


class TrainingError(EdgeadError):
    """Training cannot start or go on."""


class CollapseError(TrainingError):
    """The student learnt nothing, or gives a constant."""

    exit_code = 4


class BundleError(EdgeadError):
    """A bundle directory is missing, changed, or of a newer schema."""


class BackendError(EdgeadError):
    """An inference backend cannot open or run a model."""


class PrecisionError(EdgeadError):
    """A graph, or its calibration, does not serve the precision asked for."""


class StreamError(EdgeadError):
    """Base of what goes wrong at the ends of a stream."""


class SourceError(StreamError):
    """A source of frames cannot be opened or read."""


class SinkError(StreamError):
    """A sink cannot be opened or written."""


class VerificationError(EdgeadError):
    """What was built decides otherwise than the model it was built from."""

    exit_code = 3


@contextmanager
def vendor_errors(what: str, hint: str) -> Iterator[None]:
    """Translate every error of a vendor's library into BackendError; theirs have no common base below Exception.

    Args:
        what: What failed.
        hint: How to fix it.

    Raises:
        BackendError: The block raised an exception; a BackendError passes as it is.
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise BackendError(f"{what} ({reason})", hint=hint) from error
