"""The names of `import edgead`, and what its import brings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgead
from tests.test_imports import BLOCK


def test_the_public_names() -> None:
    assert edgead.__all__ == [
        "Bundle", "EdgeadError", "Evaluation", "FakeSession", "Model", "ModelSize", "Prediction", "Region", "Result",
        "Session", "Summary", "Threshold", "Verdict", "__version__", "build", "compare_sessions", "evaluate", "load",
        "open_bundle", "open_dataset", "open_session", "stream", "train",
    ]  # fmt: skip
    for name in edgead.__all__:
        assert getattr(edgead, name) is not None
    assert set(edgead.__all__) <= set(dir(edgead))
    with pytest.raises(AttributeError):
        _ = edgead.nothing
    # An installed type checker reads the package.
    assert (Path(edgead.__file__).parent / "py.typed").is_file()


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse(Path(edgead.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: line.module for line in block.body for alias in line.names}  # type: ignore[attr-defined]
    assert sorted([*seen, "__version__"]) == edgead.__all__
    for name, module in seen.items():
        assert getattr(sys.modules[module], name) is getattr(edgead, name)


def run_python(code: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_the_import_brings_only_the_standard_library() -> None:
    code = (
        "import sys\nbefore = set(sys.modules)\nimport edgead\nassert edgead.EdgeadError.exit_code == 1\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    assert set(run_python(code).split()) - set(sys.stdlib_module_names) == {"edgead"}


def test_a_device_without_the_training_packages_predicts(bundle: Path) -> None:
    # All packages except ONNX Runtime are blocked.
    code = (
        BLOCK + "HEAVY.remove('onnxruntime')\nimport edgead, numpy\nwith edgead.load(sys.argv[1]) as model:\n"
        "    print(model.predict(numpy.full((8, 8, 3), 255, numpy.uint8)).is_anomalous)"
    )
    assert run_python(code, str(bundle)) == "True\n"


def test_no_package_has_the_name_of_a_public_function() -> None:
    # The import of a submodule would replace the function by the module.
    names = {path.stem for path in Path(edgead.__file__).parent.iterdir()}
    assert names.isdisjoint(edgead.__all__)
