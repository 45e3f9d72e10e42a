"""`edgead doctor`: shows which parts of edgead work on this machine, and how to install the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgead.cli.diagnosis import Diagnosis, Finding


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what works on this machine.

    Lists backends, GPUs, cameras and teachers, and the commands that install missing ones.
    """
    from edgead.cli.diagnosis import diagnose
    from edgead.cli.progress import echo
    from edgead.files.parsing import json_text

    diagnosis = diagnose()
    echo(json_text(diagnosis.to_json()) if json else _text(diagnosis), nl=not json)


def _text(diagnosis: Diagnosis) -> str:
    """Format a diagnosis for a terminal."""
    lines = [f"edgead {diagnosis.edgead}, Python {diagnosis.python}, {diagnosis.machine}"]
    lines += ["", "Results depend on", f"  {diagnosis.environment}"]
    for title, findings, none in (
        ("Backends", diagnosis.backends, ""),
        ("GPUs", diagnosis.gpus, "NVIDIA's driver lists no GPU; edgead runs on the CPU"),
        ("Cameras", diagnosis.cameras, "no /dev/video*; a file, a folder or rtsp:// can be the source"),
        ("Video", diagnosis.video, ""),
        ("Training and report packages", diagnosis.packages, ""),
        ("Teachers", diagnosis.teachers, ""),
    ):
        lines += ["", title, *(_lines(findings) if findings else [f"  {none}"])]
    return "\n".join(lines)


def _lines(findings: tuple[Finding, ...]) -> list[str]:
    """Format findings as aligned lines."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        text = finding.found or "missing"
        lines.append(f"  {finding.name:<{width}}  {text}{f' -> {finding.hint}' if finding.hint else ''}")
    return lines
