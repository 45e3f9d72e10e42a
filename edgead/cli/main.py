"""The command line: registers the commands, and turns errors into one line and an exit code.

Each command is one file beside this one, whose function imports what it needs when it runs, so that every
``--help`` answers at once on a machine without the training stack. Help is plain text: Rich's formatting
would double the time to the first letter.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from edgead import __version__
from edgead.cli.build import build
from edgead.cli.calibrate import calibrate
from edgead.cli.compare import compare
from edgead.cli.demo import demo
from edgead.cli.doctor import doctor
from edgead.cli.eval import eval_
from edgead.cli.import_ import import_
from edgead.cli.info import info
from edgead.cli.interrupt import EXIT_CODE as INTERRUPTED
from edgead.cli.interrupt import CommandInterruptedError, interruptible
from edgead.cli.plugin import plugin
from edgead.cli.progress import is_first_process
from edgead.cli.stream import stream
from edgead.cli.train import train
from edgead.errors import EdgeadError, InputError, MissingLibraryError

# What the system answers to a path or an output that the user chose.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """Shows an argument by its metavar alone: some versions of Typer add a Python type behind it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                vars(parameter)["display_type_rich"] = lambda ctx: None


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgead {__version__}")
        raise typer.Exit


@app.callback()
def edgead(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find defects at line speed: train on images of good parts, build an engine, stream a camera."""


# Each command, and what it says when it is interrupted before it has a better answer.
_COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("train", train, "the same command begins, or continues what is there"),
    ("import", import_, "nothing was written; the same command begins again"),
    ("build", build, "no bundle was written, and one that was there stays; the same command begins again"),
    ("calibrate", calibrate, "nothing was written; the same command begins again"),
    ("info", info, "nothing was written"),
    ("eval", eval_, "a report that was there stays; the same command begins again"),
    ("compare", compare, "finished cells are kept; the same command continues"),
    ("stream", stream, "what the sinks have written is kept"),
    ("demo", demo, "finished steps are kept; the same command continues"),
    ("doctor", doctor, "nothing was written"),
)
for _name, _command, _kept in _COMMANDS:
    app.command(_name, cls=_Command)(interruptible(_command, _kept))
app.add_typer(plugin, name="plugin")


def main() -> None:
    """Run the command line of this process and exit.

    The exit codes are `edgead.errors.EXIT_CODES`. An error is ``error: <one line>`` on standard error, an interrupt
    ``interrupted: <one line>``. What the machine may refuse to every command (a path, a right, space for the output, a
    library of OpenCV) is an error too, as is a reader of standard output that went away, which says nothing. Any other
    exception is a bug and keeps its traceback.
    """
    # OpenCV and FFmpeg write to the terminal by themselves, and read this when they are imported; what
    # matters of it comes as an error or a warning of ours.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        try:
            app(prog_name="edgead")
        finally:
            # What is still buffered would fail at the interpreter's exit, where nobody can catch it.
            sys.stdout.flush()
    except EdgeadError as error:
        _fail(error)
    except ImportError as error:
        if error.name != "cv2" or isinstance(error, ModuleNotFoundError):
            raise
        _fail(MissingLibraryError(error))
    except CommandInterruptedError as interrupt:
        _stop(str(interrupt))
    except KeyboardInterrupt:
        _stop("nothing was begun")
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        if error.filename is None:
            _drop_output()
        where = error.filename or "standard output"
        _fail(InputError(f"cannot use {where}: {error.strerror}; check the path, its rights and the disk"))


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(kept: str) -> NoReturn:
    # Ctrl-C reaches every process of a training.
    if is_first_process():
        print(f"interrupted: {kept}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _fail(error: EdgeadError) -> NoReturn:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.exit_code)
