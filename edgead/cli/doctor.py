"""`edgead doctor`: what this machine can do, and how to get the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgead.doctor import Diagnosis, Finding


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what this machine can do.

    Lists backends, GPUs, cameras and teachers, and how to get what is not here.
    """
    from json import dumps

    from edgead.doctor import diagnose

    diagnosis = diagnose()
    typer.echo(dumps(diagnosis.to_json(), indent=2) if json else _text(diagnosis))


def _text(diagnosis: Diagnosis) -> str:
    lines = [f"edgead {diagnosis.edgead}, Python {diagnosis.python}, {diagnosis.machine}"]
    lines += ["", "Answers depend on", f"  {diagnosis.environment}"]
    for title, findings, none in (
        ("Backends", diagnosis.backends, ""),
        ("GPUs", diagnosis.gpus, "none that NVIDIA's driver knows; edgead runs on the CPU"),
        ("Cameras", diagnosis.cameras, "none at /dev/video*; a file, a folder or rtsp:// can be the source"),
        ("Video", diagnosis.video, ""),
        ("Training and report packages", diagnosis.packages, ""),
        ("Teachers", diagnosis.teachers, ""),
    ):
        lines += ["", title, *(_lines(findings) if findings else [f"  {none}"])]
    return "\n".join(lines)


def _lines(findings: tuple[Finding, ...]) -> list[str]:
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        text = finding.found or "not here"
        lines.append(f"  {finding.name:<{width}}  {text}{f' -> {finding.hint}' if finding.hint else ''}")
    return lines
