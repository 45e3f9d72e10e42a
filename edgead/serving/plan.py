"""The models that are served, checked on this machine before a replica starts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead.bundle import open_bundle
from edgead.errors import InputError
from edgead.runtime import open_session
from edgead.streaming.page.address import PageAddress, read_page_address

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Backends that need a GPU which Ray assigns.
_OF_GPU = ("tensorrt", "tensorrt-rtx")
# Backends that take a number of CPU threads.
_OF_CPU = ("onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is served.

    Attributes:
        name: Name of the model in the address: the name of the folder.
        bundle: Absolute path of the bundle.
        needs_gpu: Whether each replica needs a GPU of Ray's, or a share of one.
        on_cpu: Whether the model takes a number of CPU threads.
    """

    name: str
    bundle: Path
    needs_gpu: bool
    on_cpu: bool


def check_models(bundles: Sequence[Path], threads: int | None) -> list[ServedModel]:
    """Open each bundle once, which compares it with its golden answers.

    Args:
        bundles: Directories of bundles.
        threads: CPU threads of one inference; None for one for each core.

    Returns:
        The models in the order of the bundles.

    Raises:
        InputError: A folder has a name that no address can have, or two have one name.
        BundleError: A bundle is missing or damaged.
        BackendError: The backend of a bundle cannot open it.
        VerificationError: A bundle does not give its golden answers on this machine.
    """
    models: dict[str, ServedModel] = {}
    for path in bundles:
        folder = Path(os.path.abspath(path))
        if _NAME.fullmatch(folder.name) is None:
            raise InputError(
                f"a model cannot be served as {folder.name!r}",
                hint="name its folder with letters, digits, dots, dashes and underscores, 64 at most",
            )
        if folder.name in models:
            raise InputError(f"two bundles are named {folder.name}", hint="rename one of the folders")
        bundle = open_bundle(folder)
        backend = bundle.manifest.backend
        on_cpu = backend in _OF_CPU
        open_session(bundle, threads=threads if on_cpu else None).close()
        models[folder.name] = ServedModel(folder.name, folder, backend in _OF_GPU, on_cpu)
    return list(models.values())


def read_address(text: str) -> PageAddress:
    """Read the option `--listen`, an address as the page of a stream has it.

    Args:
        text: Address, `PORT` or `HOST:PORT?token=FILE`.

    Raises:
        InputError: Other machines could reach the address without a token, or it has a certificate or no port.
        EdgeadError: It is no address to listen on, or the token cannot be read.
    """
    address = read_page_address(text)
    if address.tls is not None:
        raise InputError(
            "edgead serve takes no certificate",
            hint="put a server with TLS before it, and listen on 127.0.0.1",
        )
    if address.port == 0:
        raise InputError("the port is 0", hint="give --listen 127.0.0.1:8000, or another port")
    return address
