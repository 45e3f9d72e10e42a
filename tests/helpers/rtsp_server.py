"""A real RTSP server with a moving image, for the tests: GStreamer's, run by the system's Python.

python3 rtsp_server.py PORT      serves rtsp://127.0.0.1:PORT/line and prints "ready" when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

# "ball" moves, so no two frames are the same; zerolatency sends each as it is made.
PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=128,framerate=20/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 )"
)


def main() -> None:
    Gst.init(None)
    for name in ("videotestsrc", "x264enc", "rtph264pay"):
        if Gst.ElementFactory.find(name) is None:
            sys.exit(f"GStreamer lacks {name}")
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    server.get_mount_points().add_factory("/line", factory)
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
