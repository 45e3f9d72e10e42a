"""Receivers of a stream's records in a process of their own, so that they take neither its memory nor its threads.

python soak_receiver.py TOPIC PIPE MQTT_PORT

A web server, a subscriber of an MQTT topic and a reader of a named pipe. It prints the port of the web server and obeys
lines from standard input: "hook 200", "hook 500", "hook hang", "hook drop", "pipe pause", "pipe go", "count", which
prints the number of records of each receiver, and "report", which prints what each got as a line of JSON, and ends it.
"""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
from typing import Any


class Received:
    """What one receiver got.

    Attributes:
        numbers: Numbers of the records in the order of their arrival; those that came again are left out.
        repeated: Number of records that came again.
        frames: Frame indices of the verdicts, in the same order.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.frames: list[int] = []
        self.repeated = 0
        self._seen: set[int] = set()
        self.changed = threading.Condition()

    def take(self, record: dict[str, Any]) -> None:
        number = record.get("number", len(self.numbers) + 1)
        with self.changed:
            if number in self._seen:
                self.repeated += 1
                return
            self._seen.add(number)
            self.numbers.append(number)
            if record["event"] == "verdict":
                self.frames.append(record["frame_index"])

    def report(self) -> dict[str, Any]:
        with self.changed:
            return {
                "records": len(self.numbers),
                "in_order": self.numbers == sorted(self.numbers),
                "repeated": self.repeated,
                "frames": self.frames,
            }


def serve(received: Received, mode: list[str], goes_on: threading.Event) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = mode[0]
            if answer == "hang":
                goes_on.wait()
            if answer in ("hang", "drop"):
                self.close_connection = True
                return
            if answer == "200":
                received.take(record)
            self.send_response(int(answer))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def subscribe(received: Received, topic: str, port: int) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    ready = threading.Event()
    client: Any = Client(CallbackAPIVersion.VERSION2, "soak", clean_session=False)
    client.on_message = lambda client, data, message: received.take(json.loads(message.payload))
    client.on_connect = lambda client, *_: client.subscribe(f"{topic}/events", 1)
    client.on_subscribe = lambda *_: ready.set()
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(30)


def read_pipe(received: Received, path: str, may_read: threading.Event) -> None:
    with open(path, "rb") as pipe:
        for line in pipe:
            may_read.wait()
            received.take(json.loads(line))


def main() -> None:
    topic, path, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    hook, mqtt, pipe = Received(), Received(), Received()
    mode, goes_on, may_read = ["200"], threading.Event(), threading.Event()
    may_read.set()
    server = serve(hook, mode, goes_on)
    subscribe(mqtt, topic, port)
    reader = threading.Thread(target=read_pipe, args=(pipe, path, may_read), daemon=True)
    reader.start()
    print(server.server_address[1], flush=True)
    for line in sys.stdin:
        what, _, value = line.strip().partition(" ")
        if what == "hook":
            mode[0] = value
            goes_on.set() if value != "hang" else goes_on.clear()
        elif what == "pipe":
            may_read.set() if value == "go" else may_read.clear()
        elif what == "count":
            print(json.dumps([len(each.numbers) for each in (hook, mqtt, pipe)]), flush=True)
        else:
            reader.join(10)
            answer = {"hook": hook.report(), "mqtt": mqtt.report(), "pipe": pipe.report()}
            print(json.dumps(answer), flush=True)
            os._exit(0)


if __name__ == "__main__":
    main()
