"""The command line: registers the commands, and converts errors into one line and an exit code.

Each command is a module beside this one. Its function imports its dependencies when it runs, so that ``--help`` is
fast and works on a machine without the training packages. Help is plain text, because Rich would double the time to the
first character.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from edgead import __version__
from edgead.cli.bench import bench
from edgead.cli.build import build
from edgead.cli.calibrate import calibrate
from edgead.cli.command import Command, UsageError, command_line_error
from edgead.cli.compare import compare
from edgead.cli.demo import demo
from edgead.cli.doctor import doctor
from edgead.cli.eval import eval_
from edgead.cli.export_deepstream import export_deepstream
from edgead.cli.export_triton import export_triton
from edgead.cli.import_ import import_
from edgead.cli.info import info
from edgead.cli.interrupt import CommandInterruptedError, exit_code_of, interruptible, signals_interrupt
from edgead.cli.library_warnings import library_warnings_as_lines
from edgead.cli.plugin import plugin
from edgead.cli.predict import predict
from edgead.cli.progress import echo, report
from edgead.cli.serve import serve
from edgead.cli.standard_streams import STANDARD_OUTPUT, drop_standard_output, usable_standard_streams
from edgead.cli.stream import stream
from edgead.cli.threshold import threshold
from edgead.cli.train import train
from edgead.errors import EdgeadError, InputError, MissingLibraryError, VerificationError
from edgead.files.addresses import hide_arguments
from edgead.files.progress import is_first_process

# Errors of the operating system for a path or an output that the user chose.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    """Print the version and exit, if `--version` was given."""
    if asked:
        echo(f"edgead {__version__}")
        raise typer.Exit


@app.callback()
def edgead(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find defects at line speed: train on images of good parts, build an engine, stream a camera."""


# Each command, and its message for Ctrl-C, unless the command itself has a more precise one.
_COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("train", train, "the same command starts the training, or continues it"),
    ("import", import_, "nothing was written; the same command starts again"),
    ("build", build, "no bundle was written, an existing bundle stays; the same command starts again"),
    ("calibrate", calibrate, "nothing was written; the same command starts again"),
    ("info", info, "nothing was written"),
    ("eval", eval_, "an existing report stays; the same command starts again"),
    ("threshold", threshold, "the bundle keeps its threshold; the same command starts again"),
    ("predict", predict, "the results so far are kept; the same command continues"),
    ("compare", compare, "finished cells are kept; the same command continues"),
    ("stream", stream, "the output of the sinks is kept"),
    ("serve", serve, "the answers so far were sent"),
    ("bench", bench, "nothing was written; the same command starts again"),
    ("export-deepstream", export_deepstream, "an earlier export stays; the same command starts again"),
    ("export-triton", export_triton, "an earlier export stays; the same command starts again"),
    ("demo", demo, "finished steps are kept; the same command continues"),
    ("doctor", doctor, "nothing was written"),
)
for _name, _command, _kept in _COMMANDS:
    app.command(_name, cls=Command)(interruptible(_command, _kept))
app.add_typer(plugin, name="plugin")


def main() -> None:
    """Run the command line of this process, see `run_command_line`, and end the process."""
    before = threading.enumerate()
    try:
        run_command_line()
    except SystemExit as end:
        _end_with_hung_threads(before, end.code)
        raise
    _end_with_hung_threads(before, 0)


def run_command_line() -> None:
    """Run the command line of this process and raise SystemExit, unless the exit code is 0.

    The exit codes are `edgead.errors.EXIT_CODES`. An error is printed as ``error: <one line>`` on standard error, an
    interrupt as ``interrupted: <one line>``. Errors of the operating system that any command may meet (a path, a
    permission, a full disk, a library that OpenCV lacks) are printed in the same way. If the reader of standard output
    closes it, the command ends with exit code 1 and without a message. Any other exception is a bug and keeps its
    traceback.
    """
    # OpenCV and FFmpeg print to the terminal, and read these variables when they are imported. edgead reports the
    # problems that matter as its own errors and warnings.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # matplotlib works without a writable HOME, and its warnings about that do not help a user.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with usable_standard_streams(), signals_interrupt(), library_warnings_as_lines():
        _run()


def _end_with_hung_threads(before: Sequence[threading.Thread], code: object) -> None:
    """End the process at once if a thread of the command hangs, such as the read of a camera.

    FFmpeg calls Python while it waits for a camera, which crashes the process after the end of the interpreter.
    """
    if any(one.name.startswith("edgead-") for one in threading.enumerate() if one not in before):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)


def _run() -> None:
    """Run the command, and convert its errors into a line and an exit code."""
    try:
        try:
            code = app(prog_name="edgead", standalone_mode=False)
        finally:
            # A failure to flush at the exit of the interpreter could not be caught.
            sys.stdout.flush()
    except UsageError as error:
        if (refused := command_line_error(error)) is not None:
            _fail(refused)
        error.show()
        sys.exit(error.exit_code)
    except EdgeadError as error:
        _fail(error)
    except ImportError as error:
        if error.name != "cv2" or isinstance(error, ModuleNotFoundError):
            raise
        _fail(MissingLibraryError(error))
    except CommandInterruptedError as interrupt:
        _stop(str(interrupt), interrupt.exit_code)
    except KeyboardInterrupt as interrupt:
        _stop("nothing was started", exit_code_of(interrupt))
    except typer.Abort:  # click's word for Ctrl-C in it
        _stop("nothing was started", exit_code_of(KeyboardInterrupt()))
    except BrokenPipeError:
        drop_standard_output()
        sys.exit(1)
    except OSError as error:
        _fail(_refusal(error))

    if code:
        sys.exit(code)


def _refusal(error: OSError) -> EdgeadError:
    """Convert an error of the operating system that any command may meet; raise it again if it is a bug."""
    if error.errno in _TOO_MANY_FILES:
        return EdgeadError(f"too many open files ({error.strerror})", hint="raise the limit with ulimit -n")
    if error.errno == errno.ENOENT and not _has_current_directory():
        return InputError("the current directory no longer exists", hint="cd to another directory")
    if error.filename == STANDARD_OUTPUT:
        drop_standard_output()
        return InputError(f"cannot write to standard output ({error.strerror})", hint="redirect it elsewhere")
    if error.errno not in _REFUSALS:
        raise error
    return InputError(
        f"cannot use {error.filename or 'a file'} ({error.strerror})",
        hint="check the path, its rights and the disk",
    )


def _has_current_directory() -> bool:
    """Return False if the current directory was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _stop(kept: str, exit_code: int) -> NoReturn:
    """Print the line of an interrupt and exit."""
    # Ctrl-C reaches all processes of a training, and one line is enough.
    if is_first_process():
        report(f"interrupted: {kept}")
    sys.exit(exit_code)


def _fail(error: EdgeadError) -> NoReturn:
    """Print the line of an error, below its table if it has one, and exit with its code."""
    for line in error.table if isinstance(error, VerificationError) else ():
        report(line)
    report(f"error: {hide_arguments(str(error), sys.argv[1:])}")
    sys.exit(error.exit_code)
