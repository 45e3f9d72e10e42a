"""Images of a web camera, as the camera sends them and as they are decoded."""

from edgead.imaging.decode import image_from_bytes
from tests.helpers import web_camera as web
from tests.helpers.stream_parts import textured

IMAGES = [textured(level, 48, 64) for level in range(10, 130, 10)]
JPEGS = [web.jpeg(image) for image in IMAGES]
DECODED = [image_from_bytes(data, "expected") for data in JPEGS]
MULTIPART = "multipart/x-mixed-replace; boundary="


def cut(handler: web.Handler) -> None:
    """Promise a whole image and close the connection in its middle."""
    web.send(handler, 200, "image/jpeg", JPEGS[1][:500], len(JPEGS[1]))
