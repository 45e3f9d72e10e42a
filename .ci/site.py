"""Hooks of MkDocs: what `make docs` does to the pages beyond mkdocs.yml.

- Pages of the repository outside of `docs/` (results, CONTRIBUTING, ...) become pages of the site, and links to them
  lead there. Links to other files of the repository lead to the source on the web.
- Each command gets a page, made from the command line itself, so that no option can be missing.
- Lists are written as GitHub reads them (CommonMark), and indented here as Python-Markdown reads them. A page that it
  still reads otherwise is an error.
- The search works without a network, also if a page is opened from a disk.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Files of the repository outside of docs/, and the page that each becomes.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{
        file.relative_to(ROOT).as_posix(): f"results/{file.name}"
        for file in sorted((ROOT / "benchmarks/results").iterdir())
        if file.suffix in (".md", ".png")
    },
}
REPOSITORY = {page: file for file, page in OUTSIDE.items()}

_FENCE_OR_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_STRUCTURE = re.compile(r"<(ul|ol|li|table|pre|img|h[1-6])\b")
_log = logging.getLogger("mkdocs.plugins.site")
# What a browser loads by itself, unlike a link that a reader follows.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|object|embed|video|audio)\b[^>]*?\s(?:src|srcset|data)=["']?(?:https?:)?//[^"'>]*"""
    r"""|<link\b(?=[^>]*\srel=["']?(?:stylesheet|icon|preload|preconnect|dns-prefetch))[^>]*?\shref=["']?(?:https?:)?//[^>]*"""
    r"""|(?:@import\s+|url\()["']?(?:https?:)?//[^"')]*""",
)
_COMMAND_HEADING = re.compile(r"^## edgead .*$", re.MULTILINE)


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Name, command and context of each command of the command line, `plugin build` and its like included."""
    from edgead.cli.main import app

    def below(group: Any, context: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            inner = typer.Context(command, info_name=name, parent=context)
            if hasattr(command, "list_commands"):
                yield from below(command, inner, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}", command, inner

    group = typer.main.get_command(app)
    yield from below(group, typer.Context(group, info_name="edgead"), "")


def page_of(command: str) -> str:
    """Path of the page of a command in the site."""
    return f"commands/{command.replace(' ', '-')}.md"


def command_page(name: str, command: Any, context: Any) -> str:
    """Markdown of the page of a command: usage, help, arguments and options."""
    usage = " ".join(("edgead", name, *command.collect_usage_pieces(context)))
    lines = [f"# edgead {name}", "", "```text", usage, "```", "", command.help or "", ""]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        records = [
            parameter.get_help_record(context)
            for parameter in command.params
            if parameter.param_type_name == kind and not getattr(parameter, "hidden", False)
        ]
        if records:
            lines += [f"## {title}", "", *(f"- `{names}`: {_text(help_)}" for names, help_ in records), ""]
    return "\n".join([*lines, "Conventions and exit codes: [Command line](../command-line.md).", ""])


def _text(help_: str) -> str:
    """A help text as Markdown of one line: options are code, and nothing else than words has a meaning."""
    escaped = re.sub(r"([\\`*_<>\[\]])", r"\\\1", re.sub(r"\s+", " ", help_))
    return re.sub(r"(?<![\w-])--[a-z][a-z0-9-]*", r"`\g<0>`", escaped)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation, and replace the script that the plugin `offline` would load from elsewhere."""
    config.extra["polyfills"] = ["assets/worker.js"]
    config.nav = _completed(config.nav)
    return config


def _completed(entries: list[Any]) -> list[Any]:
    """Entries of the navigation, with the pages of a folder in its place, without pages that are not there.

    A page that is there and in no entry is reported by MkDocs.
    """
    completed: list[Any] = []
    for entry in entries:
        title, below = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(below, list):
            completed.append({title: _completed(below)})
        elif below.endswith("/"):
            completed.append({title: _pages(below)})
        elif below in REPOSITORY or (ROOT / "docs" / below).is_file():
            completed.append(entry)
    return completed


def _pages(folder: str) -> list[str]:
    """Pages of a folder of the site, its index first."""
    if folder == "commands/":
        return [page_of(name) for name, _, _ in commands()]
    found = {f"{folder}{file.name}" for file in (ROOT / "docs" / folder).glob("*.md")}
    found |= {page for page in REPOSITORY if page.startswith(folder) and page.endswith(".md")}
    return sorted(found, key=lambda page: (not page.endswith("README.md"), page))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository outside of docs/, and a page for each command."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for name, command, context in commands():
        files.append(File.generated(config, page_of(name), content=command_page(name, command, context)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to pages of the site, and indent its lists."""
    path = page.file.src_uri
    if path == "command-line.md":
        markdown = _COMMAND_HEADING.sub(_with_link, markdown)
    if not path.startswith("commands/"):
        markdown = with_links(markdown, path, config.extra["repository"])
    return indented(markdown)


def _with_link(heading: re.Match[str]) -> str:
    """A heading of commands, followed by links to their pages."""
    named = re.findall(r"edgead ([\w-]+)", heading[0])
    pages = [
        f"[All options of {name}]({page_of(name)})" for name, _, _ in commands() if name.split()[0] in named
    ]
    return f"{heading[0]}\n\n{', '.join(pages)}"


def with_links(markdown: str, page: str, repository_url: str) -> str:
    """Replace the links outside of code."""
    here = REPOSITORY.get(page, f"docs/{page}")

    def target(link: re.Match[str]) -> str:
        name, mark, anchor = link[1].partition("#")
        if not name or re.match(r"[a-z]+:", name) or page.startswith("commands/"):
            return link[1]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(here), name))
        if file == "benchmarks/results":
            file += "/README.md"
        inside = OUTSIDE.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if inside is None:
            # A dead link stays as it is, and MkDocs reports it.
            kind = "tree" if (ROOT / file).is_dir() else "blob"
            return f"{repository_url}/{kind}/main/{file}" if (ROOT / file).exists() else link[1]
        return posixpath.relpath(inside, posixpath.dirname(page) or ".") + mark + anchor

    pieces, end = [], 0
    for code in _FENCE_OR_CODE.finditer(markdown):
        pieces += [_LINK.sub(target, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, _LINK.sub(target, markdown[end:])])


def indented(markdown: str) -> str:
    """Indent the contents of lists by four columns a level, and begin each list after an empty line.

    CommonMark takes the column of the text behind the mark, Python-Markdown takes steps of four columns.

    Args:
        markdown: A page in CommonMark.

    Returns:
        The page for Python-Markdown.
    """
    lines = markdown.split("\n")
    tokens = MarkdownIt("commonmark").parse(markdown)
    items = [token.map for token in tokens if token.type == "list_item_open"]
    # Python-Markdown begins a list, an item of paragraphs and an item behind an inner list after an empty line only.
    lists = {token.map[0] for token in tokens if token.type.endswith("_list_open")}
    loose = {
        item.map[0]
        for item, inside in pairwise(tokens)
        if item.type == "list_item_open" and inside.type == "paragraph_open" and not inside.hidden
    }
    written: list[str] = []
    depth = 0
    for number, line in enumerate(lines):
        around = [first for first, end in items if first <= number < end]
        begins = number in lists | loose or (number in around and len(around) < depth)
        if begins and written and written[-1].strip():
            written.append("")
        depth = len(around)
        if not around or not line.strip():
            written.append(line)
        elif number == around[-1]:
            written.append(" " * 4 * (len(around) - 1) + line.lstrip())
        else:
            mark = re.match(r" *(?:[-*+]|\d+[.)]) +", lines[around[-1]])
            column = len(mark[0]) if mark else 0
            written.append(" " * 4 * len(around) + line[min(column, len(line) - len(line.lstrip())) :])
    return "\n".join(written)


def differences(html: str, markdown: str) -> dict[str, int]:
    """Count the lists, tables and images that a page has more than GitHub shows, by tag; fewer are negative.

    Args:
        html: The page of the site.
        markdown: Its source, in CommonMark with tables.
    """
    shown, meant = (
        Counter(_STRUCTURE.findall(text))
        for text in (html, MarkdownIt("commonmark").enable("table").render(markdown))
    )
    return {tag: shown[tag] - meant[tag] for tag in {*shown, *meant} if shown[tag] != meant[tag]}


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Warn, which ends the build, if a page differs from the one that GitHub shows."""
    if found := differences(html, page.file.content_string):
        _log.warning("%s has other lists or tables than on GitHub: %s", page.file.src_uri, found)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a page or a style that loads something from elsewhere.

    Raises:
        PluginError: An image, a script, a style, a frame or a font has an address of another machine.
    """
    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix in (".html", ".css") and (loaded := LOADED.search(file.read_text(encoding="utf-8"))):
            raise PluginError(f"{file.name} loads from elsewhere: {loaded[0]}")
