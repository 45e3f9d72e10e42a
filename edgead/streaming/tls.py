"""Settings of encrypted connections of sinks and triggers."""

from __future__ import annotations

import ssl

from edgead.errors import SinkError


def tls_context(ca: str | None, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Read the certificates of a connection.

    Args:
        ca: PEM file of the certificates to trust; None for the ones of the system.
        cert: PEM file of the certificate that this client shows; None for no certificate.
        key: PEM file of its key; None if `cert` holds it.

    Returns:
        Settings with which the certificate and the host name of the server are checked.

    Raises:
        SinkError: A file cannot be read or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError, ValueError) as error:
        # A path with a null byte is a ValueError.
        files = ", ".join(file for file in (ca, cert, key) if file is not None)
        raise SinkError(
            f"cannot read {files} ({error})", hint="give certificates and keys as PEM files"
        ) from error
    return context
