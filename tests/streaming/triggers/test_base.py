"""What all triggers share."""

import pytest

from edgead.errors import TriggerError
from edgead.streaming import LineControl, open_trigger
from edgead.streaming.triggers.base import ThreadTrigger
from tests.helpers.trigger_parts import Announced, wait_until


class Failing(ThreadTrigger):
    name = "failing"

    def _run(self, line: LineControl) -> None:
        raise RuntimeError("a fault of the library")


def test_a_trigger_that_fails_is_a_trouble() -> None:
    line = Announced()
    with Failing() as trigger:
        trigger.start(line)
        wait_until(lambda: line.trouble)
        assert "a fault of the library" in str(line.trouble)


@pytest.mark.parametrize(
    "uri",
    [
        f"exec:{'a' * 20_000}",
        f"file:{'a' * 5000}",
        "file:a\0b",
        f"http:{'a' * 300}:80",
        "http:a\udc80b:80",
        "mqtt://us\udc80er:secret@host/topic",
    ],
)
def test_an_address_that_nothing_can_have_is_refused(uri: str) -> None:
    with pytest.raises(TriggerError):
        open_trigger(uri)


@pytest.mark.parametrize("uri", ["", "lamp:1", "http://user:secret@host/", "7", "file:"])
def test_an_unknown_trigger_is_refused(uri: str) -> None:
    with pytest.raises(TriggerError) as caught:
        open_trigger(uri)
    assert "secret" not in str(caught.value)
