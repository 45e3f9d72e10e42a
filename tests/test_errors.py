from __future__ import annotations

import pickle

import pytest

from edgead import errors
from edgead.errors import EXIT_CODES, BackendError, EdgeadError, InputError, MissingExtraError, vendor_errors


def test_the_text_is_both_parts_in_one_line():
    error = InputError("threads is 0", hint="give 1 or more")
    assert (error.what, error.hint, str(error)) == (
        "threads is 0",
        "give 1 or more",
        "threads is 0: give 1 or more",
    )
    assert (InputError("it is so").hint, str(InputError("it is so"))) == (None, "it is so")


def test_a_long_value_from_a_file_does_not_fill_the_terminal():
    error = BackendError(f"schema {'1' * 10**6} is unknown", hint="build it again")
    assert len(str(error)) < 2000
    assert error.what.startswith("schema 1")
    assert error.what.endswith("1 is unknown")


def test_every_exit_code_is_in_the_table():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgeadError)
    ]
    assert len(kinds) > 10
    assert {kind.exit_code for kind in kinds} <= EXIT_CODES.keys()


def test_an_error_keeps_its_parts_from_one_process_to_another():
    error = pickle.loads(pickle.dumps(BackendError("the GPU is gone", hint="plug it in")))
    assert (error.what, error.hint) == ("the GPU is gone", "plug it in")


def test_an_error_of_a_library_gets_what_failed_and_the_hint():
    with pytest.raises(BackendError) as caught, vendor_errors("the engine failed", "build it again"):
        raise ValueError("bad\n value.")
    assert (caught.value.what, caught.value.hint) == ("the engine failed (bad value)", "build it again")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_of_ours_passes_as_it_is():
    ours = BackendError("no GPU", hint="plug one in")
    with pytest.raises(BackendError) as caught, vendor_errors("the engine failed", "build it again"):
        raise ours
    assert caught.value is ours


def test_a_missing_package_names_its_extra():
    error = MissingExtraError("torch", "train", "edgead train")
    assert "torch" in error.what
    assert error.hint == "pip install 'edgead[train]'"
