"""A certificate that signs itself, for servers of tests on this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    not shutil.which("openssl"), reason="no certificates can be made: apt-get install openssl"
)


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and other names, such as `URI:urn:edgead`. Returns it and its key, as files."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    of_whom = ["-subj", "/CN=127.0.0.1", "-addext", f"subjectAltName={','.join(['IP:127.0.0.1', *names])}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *of_whom]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key
