"""Check the sizes of the package's code: functions of at most 60 lines and 8 parameters, files of at most 300 lines.

Usage: python .ci/sizes.py [FOLDER]      (edgead is the default)

A function's lines include its signature, decorators and docstring. `self` and `cls` are no parameters. The command
functions of edgead/cli have one parameter for each option, so they may be longer: a command function is a function
with a parameter that Typer reads (`Annotated[..., typer.Option(...)]` or `typer.Argument(...)`). The names of the
functions and files that are too large are printed, one a line, and the exit status is then 1.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LINES_OF_FUNCTION = 60
PARAMETERS = 8
LINES_OF_FILE = 300

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main(folder: str = "edgead") -> int:
    """Print what is too large below `folder`, and return the exit status.

    Args:
        folder: Folder with the Python files to check.

    Returns:
        1 if a function or file is too large or no file is found, else 0.
    """
    files = sorted(Path(folder).rglob("*.py"))
    too_large = [line for file in files for line in _check(file)]
    for line in too_large:
        print(line)
    if not files:
        print(f"{folder}: no Python file")
    return 1 if too_large or not files else 0


def _check(file: Path) -> Iterator[str]:
    """Yield one line for each function and file that is too large."""
    text = file.read_text("utf-8")
    lines = len(text.splitlines())
    if lines > LINES_OF_FILE:
        yield f"{file}: {lines} lines, at most {LINES_OF_FILE}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, Function) or ("cli" in file.parts and _is_command(node)):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        length = (node.end_lineno or node.lineno) - first + 1
        if length > LINES_OF_FUNCTION:
            yield f"{file}:{node.lineno}: {node.name} has {length} lines, at most {LINES_OF_FUNCTION}"
        parameters = len(_parameters(node))
        if parameters > PARAMETERS:
            yield f"{file}:{node.lineno}: {node.name} has {parameters} parameters, at most {PARAMETERS}"


def _parameters(node: Function) -> list[ast.arg]:
    """Return the parameters of a function without `self` and `cls`; `*args` and `**kwargs` count as one each."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    if positional and positional[0].arg in ("self", "cls"):
        positional = positional[1:]
    return [*positional, *arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]


def _is_command(node: Function) -> bool:
    """Return True if Typer reads the function's parameters."""
    return any(
        isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "typer"
        for argument in _parameters(node)
        if argument.annotation is not None
        for part in ast.walk(argument.annotation)
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
