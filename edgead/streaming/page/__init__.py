"""The page of a stream: its state, its images and its controls in a browser, beside the loop."""

from edgead.streaming.page.address import PageAddress, read_page_address
from edgead.streaming.page.camera import PageCamera
from edgead.streaming.page.page import Page

__all__ = ["Page", "PageAddress", "PageCamera", "read_page_address"]
