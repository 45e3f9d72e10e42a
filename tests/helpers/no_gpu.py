"""The error of a machine without a usable GPU, for tests that run on such a machine."""

from __future__ import annotations

import pytest

from edgead.errors import BackendError
from edgead.runtime.tensorrt.cuda import Gpu


def gpu_error() -> BackendError:
    """The error that says why no GPU can be used on this machine."""
    with pytest.raises(BackendError) as caught:
        Gpu()
    return caught.value
