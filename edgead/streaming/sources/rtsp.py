"""RTSP cameras, read with PyAV.

OpenCV scales images of a new size to the first size, and gives a damaged image as if it were whole. PyAV shows the size
of each image, the errors that FFmpeg's decoder has concealed, and the packets that were lost on the way. An image that
refers to a damaged one is damaged too, up to the next key image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2

from edgead.errors import ImageError, needs_extra
from edgead.imaging.decode import image_from_bytes
from edgead.types import UInt8Array

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

# Three images are enough to find out the frame rate. They are kept, since they may begin with the only key image for
# seconds, and dropped as a backlog when they are decoded.
_OPTIONS = {"fpsprobesize": "3"}
# Packets come in order, so the reader waits for no missing one; a queue of two is the shortest that reports a gap.
_TCP_OPTIONS = {"reorder_queue_size": "2"}
# Data that do not end with the last pixel are an error.
_DECODER_OPTIONS = {"err_detect": "aggressive"}
# FFmpeg's message about missing packets.
_GAP = "missed"
# An image is complete when the next one begins, so a gap may belong to the present image or to the next.
_IMAGES_OF_A_GAP = 2


class RtspCamera:
    """One session with a camera. See `edgead.streaming.sources.live.Device`.

    Args:
        address: Address with user and password, percent-encoded.
        shown: Address in errors, without secrets.
        transport: "tcp" or "udp".
        timeout_s: Time limit of the opening and of each read, in seconds.

    Attributes:
        codec: Name of the codec in FFmpeg, such as "h264"; empty if the camera is not opened.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, address: str, shown: str, transport: str, timeout_s: float) -> None:
        # After OpenCV: its windows hang if they use the copy of libxcb that comes with PyAV.
        with needs_extra("rtsp", "a camera over RTSP"):
            import av
        self._shown, self._log, self._av_error = shown, av.logging.Capture, av.FFmpegError
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._images: deque[tuple[VideoFrame, bool]] = deque()
        self._suspects, self._is_damaged, self._stamp_ms, self._fps = 0, False, 0.0, 0.0
        self.codec = ""
        # Messages can only be captured after PyAV has a level for them.
        if (level := av.logging.get_level()) is None or level < av.logging.WARNING:
            av.logging.set_level(av.logging.WARNING)
        av.logging.set_skip_repeated(False)
        options = {"rtsp_transport": transport, **_OPTIONS, **(_TCP_OPTIONS if transport == "tcp" else {})}
        self._container: InputContainer | None = None
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        try:
            with self._log():
                self._container = av.open(address, options=options, timeout=timeout_s)
        except self._av_error:
            return
        if not self._container.streams.video:
            self.release()
            return
        stream = self._container.streams.video[0]
        decoder = stream.codec_context
        # One thread is enough for small images, and the inference needs the cores. Each more holds an image back.
        decoder.thread_count = 1
        decoder.flags |= av.codec.context.Flags.low_delay
        decoder.options = _DECODER_OPTIONS
        self.codec, self._fps = decoder.name, float(stream.average_rate or 0)
        self._packets = self._container.demux(stream)

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Return True if the camera is opened."""
        return self._container is not None

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Read the next image.

        Returns:
            Whether there is one, and the image, (H, W, 3) uint8 BGR. There is none after the camera has ended or has
            sent nothing for the time limit.

        Raises:
            ImageError: The image is damaged, or refers to a damaged one; the next read goes on with the next one.
        """
        while not self._images:
            with self._log() as messages:
                packet = self._next_packet()
                if packet is None:
                    return False, None
                if any(_GAP in message for _, _, message in messages):
                    self._suspects = _IMAGES_OF_A_GAP
                if self.codec == "mjpeg":
                    return True, self._jpeg(packet)
                self._decode(packet)
        frame, is_damaged = self._images.popleft()
        if is_damaged:
            raise self._damage()
        self._stamp_ms = 1e3 * (frame.time or 0.0)
        bgr: UInt8Array = self._reformatter.reformat(frame, format="bgr24").to_ndarray()  # type: ignore[assignment]
        return True, bgr

    def _next_packet(self) -> Packet[VideoStream] | None:
        """Return the next packet; None after the camera has ended."""
        try:
            packet = next(self._packets)
        except (self._av_error, StopIteration):
            return None
        # The end is an empty packet, with which the decoder would give old images.
        return packet if packet.size else None

    def _decode(self, packet: Packet[VideoStream]) -> None:
        """Decode a packet, and find out which of its images are damaged.

        Raises:
            ImageError: It gives no image because its data are damaged.
        """
        incomplete = self._suspects > 0
        self._suspects -= incomplete
        try:
            frames = packet.decode()
        except self._av_error:
            frames, incomplete = [], True
        self._is_damaged |= incomplete
        for frame in frames:
            if frame.is_corrupt:
                self._is_damaged = True
            elif frame.key_frame and not incomplete:
                self._is_damaged = False
            self._images.append((frame, self._is_damaged))
        if self._is_damaged and not frames:
            raise self._damage()

    def _jpeg(self, packet: Packet[VideoStream]) -> UInt8Array:
        """Decode a JPEG image as an image file, which finds damage that FFmpeg fills with grey."""
        self._stamp_ms = 1e3 * float((packet.pts or 0) * packet.time_base)
        rgb = image_from_bytes(bytes(packet), f"an image of {self._shown}")
        bgr: UInt8Array = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return bgr

    def _damage(self) -> ImageError:
        return ImageError(f"an image of {self._shown} is damaged", hint="check the network and the camera")

    def get(self, property_id: int, /) -> float:
        """Return the timestamp of the image in milliseconds, or the frame rate, as OpenCV's properties."""
        return {cv2.CAP_PROP_POS_MSEC: self._stamp_ms, cv2.CAP_PROP_FPS: self._fps}.get(property_id, 0.0)

    def release(self) -> None:
        """Close the connection."""
        if self._container is not None:
            with self._log():
                self._container.close()
        self._container, self._packets = None, iter(())
