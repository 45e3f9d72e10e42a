"""Requests of the server without Ray: who may ask, IDs, bounded bodies, and the counts of the replicas."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgead.bundle import open_bundle, write_bundle
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.serving import requests
from edgead.serving.desk import BUCKETS_S, Counts, Desk
from edgead.serving.plan import ServedModel, check_models, read_address
from edgead.serving.requests import Gate, RefusalError, body_of, id_of
from edgead.serving.start import _gpu_share
from edgead.streaming.page.address import PageAddress
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main, the_error
from tests.helpers.comparison_cells import LEVEL
from tests.helpers.ray_cluster import needs_ray

LOCAL = PageAddress("127.0.0.1", 8000)
TOKEN = "0123456789abcdef"


class Asked:
    """What the code asks of a request of Starlette."""

    def __init__(self, method: str = "POST", body: tuple[bytes, ...] = (b"x",), **headers: str) -> None:
        self.method, self._body = method, body
        given = {"host": "127.0.0.1:8000", "content-type": "image/png"}
        self.headers: Any = given | {name.replace("_", "-"): value for name, value in headers.items()}

    async def stream(self) -> Any:
        for piece in self._body:
            yield piece


def status_of(call: Any) -> int:
    async def called() -> None:
        result = call()
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(RefusalError) as caught:
        asyncio.run(called())
    return int(caught.value.status)


@pytest.mark.parametrize(
    ("address", "request_", "status"),
    [
        (LOCAL, Asked("GET"), 405),
        (LOCAL, Asked(host="elsewhere.example"), 421),
        (LOCAL, Asked(origin="http://elsewhere.example"), 403),
        (LOCAL, Asked(sec_fetch_site="cross-site"), 403),
        (PageAddress("0.0.0.0", 8000, TOKEN), Asked(), 401),
        (PageAddress("0.0.0.0", 8000, TOKEN), Asked(authorization="Bearer x"), 401),
        (PageAddress("0.0.0.0", 8000, TOKEN), Asked(authorization=f"Basic {TOKEN}"), 401),
    ],
)
def test_who_may_not_ask(address, request_, status):
    assert status_of(lambda: Gate(address).check(request_, "POST")) == status


def test_who_may_ask():
    Gate(LOCAL).check(Asked(), "POST")
    Gate(PageAddress("0.0.0.0", 8000, TOKEN)).check(Asked(authorization=f"Bearer {TOKEN}"), "POST")


def test_ids():
    assert id_of(Asked(x_request_id="line-4:00017")) == "line-4:00017"
    assert id_of(Asked()) != id_of(Asked())
    for wrong in ("", "a b", "ü", "-a", "x" * 101, 'a"'):
        assert status_of(lambda wrong=wrong: id_of(Asked(x_request_id=wrong))) == 400


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Asked(body=(b"12345", b"67890", b"1")), 413),
        (Asked(content_length="11"), 413),
        (Asked(content_length="-1"), 413),
        (Asked(body=()), 400),
        (Asked(content_type="text/plain"), 415),
        (Asked(content_type="application/json"), 415),
    ],
)
def test_a_body_is_bounded(request_, status, monkeypatch):
    monkeypatch.setattr(requests, "MAX_BODY_BYTES", 10)
    assert status_of(lambda: body_of(request_)) == status
    assert asyncio.run(body_of(Asked(body=(b"12345", b"67890")))) == b"1234567890"


def test_counts_of_replicas_that_are_gone_stay():
    desk, first, second = Desk({"washer": ["chunk"]}), Counts(), Counts()
    first.outcomes["good"], second.outcomes["good"], second.outcomes["refused"] = 2, 3, 1
    first.add_time(BUCKETS_S[0])
    second.add_time(BUCKETS_S[0] * 1.5)
    second.add_time(BUCKETS_S[-1] + 1.0)
    desk.report("washer", "a", first)
    desk.report("washer", "b", second)
    assert desk.bundle("washer") == ["chunk"]
    lines = desk.metrics().splitlines()
    assert 'edgead_requests_total{model="washer",outcome="good"} 5' in lines
    assert 'edgead_requests_total{model="washer",outcome="refused"} 1' in lines
    buckets = [int(line.rpartition(" ")[2]) for line in lines if "_bucket" in line]
    assert buckets == [1, 2, *[2] * 9, 3]
    assert 'edgead_verdict_seconds_count{model="washer"} 3' in lines


def test_models_that_cannot_be_served(tmp_path):
    for folder in ("a/washer", "b/washer", "a b"):
        write_brightness_bundle(tmp_path / folder, ModelSize(32, 32), LEVEL)
    assert [model.name for model in check_models([tmp_path / "a" / "washer"], 1)] == ["washer"]
    for bundles in ([tmp_path / "a/washer", tmp_path / "b/washer"], [tmp_path / "a b"]):
        with pytest.raises(InputError):
            check_models(bundles, 1)


@needs_ray
def test_a_bundle_without_its_golden_answers_is_refused(tmp_path, capfd):
    good = write_brightness_bundle(tmp_path / "washer", ModelSize(32, 32), LEVEL)
    other = write_brightness_bundle(tmp_path / "other", ModelSize(32, 32), LEVEL, gain=0.5)
    files = {"model.onnx": other / "model.onnx", "golden.npz": good / "golden.npz"}
    wrong = tmp_path / "wrong"
    content = {name: file.read_bytes() for name, file in files.items()}
    write_bundle(wrong, open_bundle(good).manifest, content)
    assert run_main("serve", str(wrong), "--listen", "127.0.0.1:8000") == 3
    assert str(wrong) in the_error(capfd.readouterr().err)


@pytest.mark.parametrize("text", ["0.0.0.0:8000", "0", "127.0.0.1:0", "somewhere", "8000?cert=x"])
def test_no_address_to_listen_on(text, tmp_path, capfd):
    bundle = write_brightness_bundle(tmp_path / "washer", ModelSize(32, 32), LEVEL)
    assert run_main("serve", str(bundle), "--listen", text) == 1
    the_error(capfd.readouterr().err)


def test_an_address_with_a_token(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    assert read_address(f"0.0.0.0:8000?token={tmp_path}/token") == PageAddress("0.0.0.0", 8000, TOKEN)


@pytest.mark.parametrize(
    ("replicas", "gpus", "share"), [(2, 2.0, 1.0), (3, 2.0, 0.5), (5, 2.0, 0.333), (3, 1.0, 0.333)]
)
def test_each_gpu_has_room_for_whole_replicas(replicas: int, gpus: float, share: float) -> None:
    # 0.666 of a GPU for each of three replicas is room for two of them on two GPUs.
    models = [ServedModel("part", Path("part"), needs_gpu=True, on_cpu=False)]
    assert _gpu_share(models, replicas, gpus) == share


@needs_ray
@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/nothing"])
def test_without_the_token_no_path_tells_the_models(path: str) -> None:
    from edgead.serving.front import Front

    # The desk is an actor of Ray, which no refused request asks.
    front = object.__new__(Front)
    front._models, front._gate = ["washer"], Gate(PageAddress("0.0.0.0", 8000, TOKEN))
    asked = Asked("GET")
    asked.url = SimpleNamespace(path=path)  # type: ignore[attr-defined]
    answer = asyncio.run(front(asked))  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert b"washer" not in answer.body
