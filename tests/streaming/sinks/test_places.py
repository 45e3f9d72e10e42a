"""The places of several sinks, and their names, before and after they are opened."""

from pathlib import Path

import pytest

from edgead.errors import EdgeadError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, open_sinks, stream
from edgead.streaming.sinks import plan_sinks
from tests.helpers.mqtt_broker import free_port
from tests.helpers.stream_parts import SIZE, ScriptedSource, textured
from tests.streaming.sinks.test_prometheus import fetched


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("jsonl:out.jsonl", "jsonl:./out.jsonl?fsync_s=0"),
        ("jsonl:out.jsonl", "jsonl:link.jsonl"),
        ("jsonl:is_there.jsonl", "jsonl:hard.jsonl"),
        ("jsonl:-", "jsonl:-"),
        ("video:out.mkv", "video:linked/out.mkv?fps=3"),
        ("video:out.mkv", "jsonl:out.mkv"),
        ("rejects:rejects", "rejects:linked/rejects"),
        ("mqtt://broker/line?spool=line.spool", "webhook:http://server#spool=linked/line.spool"),
        ("prometheus:9105", "prometheus:127.0.0.1:9105"),
        ("status:", "status:"),
        ("jsonl:out.jsonl?max_mb=1&keep=3", "jsonl:linked/out.jsonl.3"),
        ("jsonl:out.jsonl.5", "jsonl:out.jsonl?max_mb=1"),
    ],
)
def test_two_sinks_on_one_place_are_refused_before_any_is_opened(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("linked").symlink_to(".")
    Path("link.jsonl").symlink_to("out.jsonl")
    Path("is_there.jsonl").touch()
    Path("hard.jsonl").hardlink_to("is_there.jsonl")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SinkError) as caught:
        open_sinks([first, "jsonl:other.jsonl", second])
    for uri in (first, second):
        assert uri.partition("?")[0].partition("#")[0] in caught.value.what
    assert sorted(tmp_path.iterdir()) == before


def test_a_log_keeps_no_more_renamed_files_than_it_has(tmp_path: Path) -> None:
    log = f"jsonl:{tmp_path}/out"
    plan_sinks([f"{log}?max_mb=1&keep=3", f"{log}.4", f"{log}.0", f"{log}.x"])
    plan_sinks([log, f"{log}.1"])


def test_an_address_with_an_error_leaves_nothing_of_the_others(tmp_path: Path) -> None:
    with pytest.raises(EdgeadError):
        open_sinks([f"jsonl:{tmp_path}/out.jsonl", f"rejects:{tmp_path}/rejects", "magic:out"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["jsonl:{}", "video:{}.mkv", "rejects:{}", "webhook:http://server#spool={}"])
@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "\ud800"])
def test_a_name_that_no_file_can_have_is_an_error(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeadError):
        open_sink(kind.format(name))
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_called_like_a_place_that_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for sink in open_sinks(["status:", "jsonl:standard error", "jsonl:./-", "jsonl:-"]):
        sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["-", "standard error"]


def test_two_webhooks_of_one_server_have_counts_of_their_own(tmp_path: Path) -> None:
    port, server = free_port(), f"http://me:secret@127.0.0.1:{free_port()}/in"
    sinks = open_sinks(
        [*(f"webhook:{server}#spool={tmp_path}/{name}" for name in "ab"), f"prometheus:{port}"]
    )
    figures: dict[tuple[str, ...], float] = {}

    def script():  # type: ignore[no-untyped-def]
        yield textured(1)
        figures.update(fetched(port))

    stream(FakeSession(SIZE), ScriptedSource(script, live=False), sinks, size=SIZE, threshold=0.5)
    names = {labels[0] for name, *labels in figures if name == "edgead_sink_written_total"}
    assert len(names) == 3
    assert "secret" not in str(names)
