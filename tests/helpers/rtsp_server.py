"""A real RTSP server for the tests: GStreamer's, run by the system's Python without other packages.

python3 rtsp_server.py PORT [--fps N] [--codec h264|jpeg] [--size WIDTHxHEIGHT] [--resize WIDTHxHEIGHT]
                             [--transport udp|tcp]

It serves rtsp://127.0.0.1:PORT/line and prints "ready" when it listens. Each image shows the time at which it was made:
32 squares, in 4 rows of 8, are the bits of `time.monotonic_ns() // 1_000_000`, the lowest first. Below is noise. The
signal SIGUSR1 changes the size to that of --resize. SIGUSR2 freezes the image in front of the encoder, and the next one
lets it go on.
"""

import argparse
import os
import signal
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

# zerolatency sends each image as it is made.
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}
DARK, BRIGHT = 16, 235


def clock_image(width: int, height: int) -> bytes:
    """Draw the present time: (height, width) uint8, grey."""
    bits = (time.monotonic_ns() // 1_000_000) & 0xFFFFFFFF
    side, rows = height // 6, []
    for row in range(4):
        values = [BRIGHT if bits >> (8 * row + column) & 1 else DARK for column in range(8)]
        line = b"".join(bytes([value]) * (width // 8) for value in values)
        rows.append(line * side)
    noise = os.urandom(width * (height - 4 * side))
    return b"".join(rows) + bytes(60 + value // 4 for value in noise)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--fps", type=int, default=20)
    parser.add_argument("--codec", choices=ENCODERS, default="h264")
    parser.add_argument("--size", default="160x128")
    parser.add_argument("--resize", default="320x192")
    parser.add_argument("--transport", choices=("udp", "tcp"), help="the only one that is served")
    options = parser.parse_args()
    sizes = [options.size, options.resize]
    signal.signal(signal.SIGUSR1, lambda *_: sizes.pop(0))
    frozen: list[bytes] = []

    def image() -> bytes:
        return frozen[0] if frozen else clock_image(*map(int, sizes[0].split("x")))

    signal.signal(signal.SIGUSR2, lambda *_: frozen.clear() if frozen else frozen.append(image()))

    def caps() -> str:
        width, height = sizes[0].split("x")
        return f"video/x-raw,format=GRAY8,width={width},height={height},framerate={options.fps}/1"

    Gst.init(None)
    for name in ("appsrc", "x264enc", "rtph264pay", "jpegenc", "rtpjpegpay"):
        if Gst.ElementFactory.find(name) is None:
            sys.exit(f"GStreamer lacks {name}")

    def configure(_: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_child_by_name("source")

        def push() -> bool:
            buffer = Gst.Buffer.new_wrapped(image())
            if source.get_property("caps").to_string() != Gst.Caps.from_string(caps()).to_string():
                source.set_property("caps", Gst.Caps.from_string(caps()))
            return source.emit("push-buffer", buffer) == Gst.FlowReturn.OK

        GLib.timeout_add(1000 // options.fps, push)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( appsrc name=source is-live=true do-timestamp=true format=time caps={caps()} "
        f"! videoconvert ! video/x-raw,format=I420 ! {ENCODERS[options.codec]} )"
    )
    factory.set_shared(True)
    if options.transport:
        factory.set_protocols(getattr(GstRtsp.RTSPLowerTrans, options.transport.upper()))
    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/line", factory)
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
