"""Every error that edgead raises on purpose.

EdgeadError
 ├── InputError             a value the user gave: an option, a size, a name
 ├── MissingExtraError      an optional package is not installed
 ├── MissingLibraryError    the operating system lacks a library that OpenCV needs
 ├── DataError              a dataset folder or its content
 │    └── ImageError      one image file
 ├── RunError               a training run directory
 ├── TeacherError           a teacher's name or weights
 ├── TrainingError          training cannot start or continue
 │    └── CollapseError     the student learnt nothing, or gives a constant
 ├── BundleError            a bundle directory: missing, changed, too new
 ├── BackendError           an inference backend, its library, its engine
 │    └── GraphRefusedError a compiler that cannot build an engine of one graph
 ├── PrecisionError         a graph or a calibration that does not support the requested precision
 ├── StreamError            a source, a sink or a trigger
 │    ├── SourceError
 │    │    └── AbsentSourceError  a source that may come later: a camera that starts, a share that is away
 │    ├── SinkError
 │    └── TriggerError
 ├── VerificationError      a built model whose decisions differ from the trained model
 └── IncompleteError        a prediction in which some images have no verdict

An error has two parts: `what` describes the problem and has the value, `hint` describes the fix. Its text joins both in
one line. Errors of vendor libraries are translated where they occur, with ``raise ... from``. The command line prints
``error: <what>: <hint>`` and exits with `exit_code`, one of `EXIT_CODES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from edgead.text import one_line, printable, shortened

EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        1: "error: the line on standard error says what and how to fix it",
        2: "usage: an option, an argument or a choice that the command does not take",
        3: "outside tolerance: a bundle decides otherwise than its model; a build wrote nothing, a start was refused",
        4: "collapsed: the model learnt nothing, or gives a constant",
        5: "incomplete: some images have no verdict, such as broken files; all others are written",
        6: "slower: a benchmark is slower than the one that it is compared with",
        129: "interrupted by SIGHUP: the terminal was closed",
        130: "interrupted by Ctrl-C",
        143: "interrupted by SIGTERM",
    }
)
"""Exit codes of commands and their meanings, for scripts."""


class EdgeadError(Exception):
    """Base of every error that edgead raises on purpose.

    Args:
        what: Description of the problem, with the value, in one line.
        hint: Description of the fix (text to type, package to install, setting to change) as one clause; None if there
            is nothing to do.

    Attributes:
        what: Description of the problem.
        hint: Description of the fix, or None.
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        # Names of files and messages of libraries in it must not control or fill the terminal that shows the error.
        self.what, self.hint = shortened(printable(what)), None if hint is None else printable(hint)
        super().__init__(self.what if self.hint is None else f"{self.what}: {self.hint}")


class InputError(EdgeadError):
    """A value from the user is not usable."""


class MissingExtraError(EdgeadError):
    """A required optional package is not installed.

    Args:
        package: Name of the missing package.
        extra: Extra of edgead that installs the package.
        purpose: Feature that needs the package, at the beginning of the message.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed", hint=f"pip install 'edgead[{extra}]'"
        )


class MissingLibraryError(EdgeadError):
    """OpenCV is installed but cannot be loaded: a bare server or device lacks libraries that a desktop has.

    Args:
        reason: Error of the import.
    """

    def __init__(self, reason: ImportError) -> None:
        super().__init__(
            f"OpenCV cannot be loaded ({reason})", hint="sudo apt-get install libgl1 libglib2.0-0"
        )


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Translate a failed import of a package in the block into MissingExtraError.

    Args:
        extra: Extra of edgead that installs the package.
        purpose: Feature that needs the package, at the beginning of the message.

    Raises:
        MissingExtraError: An imported package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # A missing module of edgead is a bug and keeps its traceback.
        if error.name is None or error.name.partition(".")[0] == "edgead":
            raise
        raise MissingExtraError(error.name, extra, purpose) from error


class DataError(EdgeadError):
    """A dataset folder is missing, empty or has an unexpected layout."""


class ImageError(DataError):
    """An image file cannot be read."""


class RunError(EdgeadError):
    """A training run directory is missing, incomplete or has another configuration."""


class TeacherError(EdgeadError):
    """A teacher is unknown or its weights cannot be loaded."""


class TrainingError(EdgeadError):
    """Training cannot start or continue."""


class CollapseError(TrainingError):
    """The student learnt nothing, or gives a constant."""

    exit_code = 4


class BundleError(EdgeadError):
    """A bundle directory is missing, changed, or has a newer schema."""


class BackendError(EdgeadError):
    """An inference backend cannot open or run a model."""


class GraphRefusedError(BackendError):
    """The compiler of an engine refuses one graph, or crashes on it; it may accept a graph of another precision."""


class PrecisionError(EdgeadError):
    """A graph or its calibration does not support the requested precision."""


class StreamError(EdgeadError):
    """Base of errors of sources, sinks and triggers."""


class SourceError(StreamError):
    """A source of frames cannot be opened or read."""


class AbsentSourceError(SourceError):
    """A source of frames is not there now, but may come later: a camera that starts, a share that is away."""


class SinkError(StreamError):
    """A sink cannot be opened or written."""


class TriggerError(StreamError):
    """A trigger cannot be opened."""


class VerificationError(EdgeadError):
    """The decisions of a built model differ from the trained model.

    Args:
        what: Description of the problem.
        hint: Description of the fix.
        table: Lines of a table of the differences; none if nothing was measured.

    Attributes:
        table: Lines of the table. A command prints them above the error.
    """

    exit_code = 3

    def __init__(self, what: str, *, hint: str | None = None, table: Iterable[str] = ()) -> None:
        super().__init__(what, hint=hint)
        self.table = tuple(map(printable, table))


class IncompleteError(EdgeadError):
    """Some images of a prediction have no verdict; the results of all others are written."""

    exit_code = 5


class SlowerError(EdgeadError):
    """A benchmark is slower than the one that it is compared with."""

    exit_code = 6


@contextmanager
def vendor_errors(what: str, hint: str) -> Iterator[None]:
    """Translate every error of a vendor library into BackendError; such errors share no base class except Exception.

    Args:
        what: Description of the failed operation.
        hint: Description of the fix.

    Raises:
        BackendError: The block raised an exception. A BackendError of the block is not changed.
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        reason = one_line(error)[:300].rstrip(".")
        raise BackendError(f"{what} ({reason})", hint=hint) from error
