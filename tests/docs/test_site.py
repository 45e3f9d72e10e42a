"""What `.ci/site.py` makes of pages: lists, links and pages of commands; `make docs` builds the whole site."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from markdown import markdown

from tests.helpers.documents import ROOT

_SPEC = importlib.util.spec_from_file_location("site_hooks", ROOT / ".ci" / "site.py")
assert _SPEC is not None
assert _SPEC.loader is not None
site = importlib.util.module_from_spec(_SPEC)
sys.modules["site_hooks"] = site
_SPEC.loader.exec_module(site)

URL = "https://example.org/edgead"


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("stream.md", "[a](page.md#set)", "[a](page.md#set)"),
        ("stream.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("stream.md", "[a](../benchmarks/results/speed.md#x)", "[a](results/speed.md#x)"),
        ("stream.md", "[a](../edgead/cli/main.py)", f"[a]({URL}/blob/main/edgead/cli/main.py)"),
        ("targets.md", "[a](../engines/targets/)", f"[a]({URL}/tree/main/engines/targets)"),
        ("contributing.md", "[a](docs/decisions/README.md)", "[a](decisions/README.md)"),
        ("results/speed.md", "[a](../../docs/stream.md)", "[a](../stream.md)"),
        ("results/speed.md", "[a](int8.md)", "[a](int8.md)"),
        ("stream.md", "[a](../no-such-file.md)", "[a](../no-such-file.md)"),
        ("stream.md", "[a](https://example.org/b) [b](#c)", "[a](https://example.org/b) [b](#c)"),
        ("stream.md", "`[a](../SECURITY.md)`", "`[a](../SECURITY.md)`"),
    ],
)
def test_a_link_leads_to_a_page_or_to_the_source(page: str, text: str, expected: str) -> None:
    assert site.with_links(text, page, URL) == expected


def test_lists_are_read_as_on_github() -> None:
    text = (
        "A line:\n- one\n  goes on\n\n  second paragraph\n  - below\n    - deeper\n- two\n\n"
        "1. first\n\n   inside\n2. second\n   - below\n3. third\n"
    )
    html = markdown(site.indented(text), extensions=["sane_lists"])
    assert html.count("<ul>") == 4
    assert html.count("<ol>") == 1
    assert html.count("<li>") == 8
    assert "<p>A line:</p>" in html
    assert "<p>inside</p>" in html


def test_a_page_that_is_read_otherwise_than_on_github_is_found() -> None:
    text = "- one\n  - below\n"
    assert site.differences("<ul>\n<li>one<ul>\n<li>below</li></ul></li></ul>", text) == {}
    assert site.differences(markdown(text), text) == {"ul": -1}


def test_a_page_of_a_command_has_all_of_its_options() -> None:
    pages = {name: site.command_page(name, command, context) for name, command, context in site.commands()}
    assert {"train", "stream", "plugin build"} <= set(pages)
    for option in ("--source", "--serve", "--trigger", "--config", "--max-age"):
        assert f"`{option}" in pages["stream"]
    assert site.page_of("plugin build") == "commands/plugin-build.md"


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/a.js">',
        "<img alt='' src=//cdn.example/a.png>",
        '<link href="https://fonts.example/a.css" rel="stylesheet">',
        "body { background: url(https://cdn.example/a.png) }",
        '@import "https://cdn.example/a.css";',
    ],
)
def test_a_page_that_loads_something_from_elsewhere_is_found(text: str) -> None:
    assert site.LOADED.search(text)


@pytest.mark.parametrize(
    "text",
    [
        '<a href="https://example.org/">',
        '<script src="assets/a.js">',
        '<link rel="canonical" href="https://a.org/">',
    ],
)
def test_a_link_that_a_reader_follows_is_none(text: str) -> None:
    assert not site.LOADED.search(text)
