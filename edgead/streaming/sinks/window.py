"""A window that shows the stream."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2

from edgead.errors import SinkError
from edgead.streaming.annotate import annotate, no_verdict_image
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.state import StateChange
from edgead.types import Float32Array, Frame, UInt8Array, Verdict

_TITLE = "edgead"
_ESCAPE = 27


class Window(Sink):
    """A window with the annotated frames; Esc, q or closing the window ends the stream.

    Raises:
        SinkError: No window can be shown.
    """

    def __init__(self) -> None:
        _check_display()
        self._height_width = (480, 640)
        self._is_open = False

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Show the frame.

        Args:
            frame: Frame that was scored.
            verdict: Decision on the frame.
            anomaly_map: Anomaly map, (h, w) float32.

        Raises:
            StopStream: The user has closed the window.
        """
        image = annotate(frame.image, verdict, anomaly_map)
        self._height_width = (frame.image.shape[0], frame.image.shape[1])
        self._show(image)

    def withheld(self, frame: Frame, reason: str) -> None:
        """Show that the frame gets no verdict. See `write` for StopStream."""
        height_px, width_px = frame.image.shape[:2]
        self._show(no_verdict_image(height_px, width_px, f"NO VERDICT: {reason}"))

    def state(self, change: StateChange) -> None:
        """Show a lost signal and a pause, because the last frame on the screen would look current."""
        if change.state in ("no_signal", "paused"):
            state = change.state.replace("_", " ").upper()
            self._show(no_verdict_image(*self._height_width, f"{state}: {change.reason}"))

    def tick(self) -> None:
        """Process the events of the window. See `write` for StopStream."""
        self._open()
        self._answer()

    def close(self) -> None:
        """Close the window."""
        if self._is_open:
            cv2.destroyAllWindows()
            self._is_open = False

    def _open(self) -> None:
        """Open the window in the thread that uses it, because window libraries allow no other."""
        if not self._is_open:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            self._is_open = True

    def _show(self, rgb: UInt8Array) -> None:
        self._open()
        cv2.imshow(_TITLE, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        self._answer()

    def _answer(self) -> None:
        key = cv2.waitKey(1) & 0xFF
        if key in (_ESCAPE, ord("q")) or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise StopStream


def _check_display() -> None:
    """Try a window in another process, because without a display the window library ends its process."""
    attempt = "import cv2; cv2.namedWindow('edgead'); cv2.waitKey(1)"
    if (
        any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
        and not subprocess.run([sys.executable, "-c", attempt], capture_output=True, check=False).returncode
    ):
        return
    raise SinkError(
        "window: cannot be shown (there is no display, or OpenCV has no window support)",
        hint="use video:FILE or status: here, or install opencv-python instead of opencv-python-headless",
    )
