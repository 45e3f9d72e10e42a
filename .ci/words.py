"""Finds words that edgead does not use, in code, messages, help texts and documentation, and names their replacements.

One thing has one word, the one that papers, anomalib, ONNX Runtime and TensorRT use. Run from anywhere:

    python .ci/words.py [FILE...]

Without arguments it checks every file of the repository that git knows. It prints
`FILE:LINE: word: use replacement` for each finding and exits with code 1 if there is one. Three kinds of rules:

    WORDS     words, also inside of identifiers: `GoodPictures`, `picture_header` and `pictures` all hold "picture(s)"
    NAMES     identifiers of Python code, and code in backticks; the same words are legitimate in prose
    PATTERNS  regular expressions on a line
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".md", ".toml", ".html", ".css", ".js", ".cpp", ".cu", ".cuh", ".h", ".txt", ".yaml")
NAMED = ("Makefile", ".ci/run")
# Changes name old words; this file lists them; the third has names of tensors of other libraries.
EXCLUDED = ("CHANGELOG.md", ".ci/words.py", "tests/test_words.py", "imported_names.txt", "LICENSE")

WORDS = {
    "picture": "image",
    "pictures": "images",
    "rung": "candidate precision",
    "rungs": "candidate precisions",
    "ladder": "fallback order",
    "ladders": "fallback orders",
    "lowered": "converted",
    "judges": "validation images",
    "twin": "synthetic defect, corrupted copy",
    "twins": "synthetic defects, corrupted copies",
    "foreign": "external",
    "inert": "opaque object",
    "mend": "fix, hint",
    "mends": "fixes, hints",
    "mended": "fixed",
    "recipe": "hyperparameters (of a training), target (of a build)",
    "recipes": "hyperparameters (of a training), targets (of a build)",
    "pose": "alignment",
    "poses": "alignments",
    "spared": "excluded nodes",
}


@dataclass(frozen=True)
class Rule:
    """A regular expression for a name or a line.

    Attributes:
        pattern: What is not used; NAMES must match as a whole.
        use: Replacement.
        where: Regular expression for the path of the files that the rule is for.
    """

    pattern: str
    use: str
    where: str = ""


_GRAPHS = r"(edgead|tests)/(export|engine)/|benchmarks/int8"
NAMES = (
    Rule("LowerPrecisions", "PrecisionConverter"),
    Rule("Setting", "MethodConfig"),
    Rule("Machine|open_machine", "FabricConfig, create_fabric"),
    # Elsewhere a comparison is one of methods.
    Rule("Agreement|Comparison", "Fidelity", where=r"(engine|runtime|agreement)"),
    Rule("Budgets?|Limits", "Tolerance, Tolerances"),
    Rule("half_from_float", "float16_from_float32"),
    Rule("say|tell", "log, report", where=r"\.py$"),
    Rule("turn|TURN_S", "tick", where="stream"),
    Rule("pass_over", "skip"),
    Rule("parts_of|GraphParts", "sections"),
    Rule(r"(\w*_)?ranges", "clipping limits", where=_GRAPHS),
    Rule(r"(\w*_)?peaks", "absolute maxima", where=_GRAPHS),
    Rule(r"(\w*_)?shifts", "bias correction", where=_GRAPHS),
    Rule("draw_board|Board", "circuit board"),
)
PATTERNS = (
    Rule(r"first[_ ]start\b", "golden check"),
    # CUDA has lanes, too: those of a warp.
    Rule(r"(?<![a-z])lanes?(?![a-z])", "execution slot", where=r"^(edgead|tests)/runtime/"),
    Rule(r"\bpass(es|ed)? over\b", "skip"),
    Rule(r"\b(is|are|was|were|be|been|being) (told|let)\b", "a verb such as report, log, allow"),
    Rule(r"\bbut for\b", "except"),
    Rule(r"\bhas not(?=[,.;:)]| \()", "does not support"),
    Rule(r"\bdrawn (parts?|washers?)\b", "synthetic"),
    Rule(r"\btrain[./]importing\b|\b(test_)?importing\.py\b", "edgead.importers.run"),
    Rule(r"\btrain[./](order|curve|collapse)\b|\b(order|curve|collapse)\.py\b", "sampler, loss_plot, sanity"),
    Rule(r"\bmodels[./](components[./])?transport\b|\btransport\.py\b", "sinkhorn"),
    Rule(r"\bdata[./]board\b|\bboard\.py\b", "circuit_board"),
    Rule(r"\bexport[./]parts\b", "export.graph_sections"),
    Rule(r"\bengine[./]lower\b", "engine.precision_converter"),
    Rule(r"^\[budgets", "tolerances", where=r"\.toml$"),
    Rule(r"(?<!data.)pseudo.anomal", "cutpaste, synthetic defect", where=_GRAPHS),
    Rule(r"calibrate.on\W+pseudo.anomal", "--calibrate-on cutpaste"),
)

# A word of prose, or of an identifier in snake_case, UPPER_CASE or CamelCase.
_SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_QUOTED = re.compile(r"`([^`]+)`")
_IDENTIFIER = re.compile(r"\w+")


def python_names(text: str) -> Iterator[tuple[int, str]]:
    """Identifiers of Python code with their lines; `tell()`, the method of files, is none of ours."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for number, token in enumerate(tokens):
        following = "".join(later.string for later in tokens[number + 1 : number + 3])
        if token.type == tokenize.NAME and (token.string, following) != ("tell", "()"):
            yield token.start[0], token.string


def names_in(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Identifiers of Python code, and in other files those between backticks."""
    if path.endswith(".py"):
        yield from python_names(text)
    for number, line in enumerate(text.splitlines(), 1):
        for quoted in _QUOTED.findall(line):
            for name in _IDENTIFIER.findall(quoted):
                yield number, name


def findings(path: str, text: str) -> list[tuple[int, str, str]]:
    """Line, word and replacement of each finding in a file, sorted by line.

    Args:
        path: Path relative to the root of the repository, `/` between its parts.
        text: Content of the file.
    """
    # Most files hold none of these, which the text as a whole shows sooner than its lines.
    lower = text.lower()
    words = {word for word in WORDS if word in lower}
    patterns = [
        rule
        for rule in PATTERNS
        if re.search(rule.where, path) and re.search(rule.pattern, text, re.IGNORECASE | re.MULTILINE)
    ]
    names = [
        rule for rule in NAMES if re.search(rule.where, path) and re.search(rf"\b({rule.pattern})\b", text)
    ]
    found = set()
    for number, line in enumerate(text.splitlines() if words or patterns else (), 1):
        found |= {
            (number, word, WORDS[word]) for word in map(str.lower, _SUBWORD.findall(line)) if word in words
        }
        for rule in patterns:
            if match := re.search(rule.pattern, line, re.IGNORECASE):
                found.add((number, match[0], rule.use))
    for number, name in names_in(path, text) if names else ():
        for rule in names:
            if re.fullmatch(rule.pattern, name):
                found.add((number, name, rule.use))
    return sorted(found)


def names_of_files(path: str) -> list[str]:
    """Words of a path that are not used."""
    return sorted({word for word in map(str.lower, _SUBWORD.findall(path)) if word in WORDS})


def is_checked(path: str) -> bool:
    """Whether a file of the repository is text of ours."""
    return not path.endswith(EXCLUDED) and (path.endswith(SUFFIXES) or path in NAMED)


def main(arguments: list[str]) -> int:
    """Check files, print the findings, and return the exit code."""
    if arguments:
        paths = [Path(name).resolve().relative_to(ROOT).as_posix() for name in arguments]
    else:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        paths = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.splitlines()
    count = 0
    for path in sorted(filter(is_checked, paths)):
        if not (ROOT / path).is_file():
            continue
        for word in names_of_files(path):
            print(f"{path}:1: {word} in the name of the file: use {WORDS[word]}")
            count += 1
        for number, word, use in findings(path, (ROOT / path).read_text(encoding="utf-8")):
            print(f"{path}:{number}: {word}: use {use}")
            count += 1
    if count:
        print(f"{count} words that edgead does not use", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
