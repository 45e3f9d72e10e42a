"""The page of a stream: its state, its images and its controls in a browser, beside the loop."""

from edgead.streaming.page.address import PageAddress, read_page_address
from edgead.streaming.page.page import Page

__all__ = ["Page", "PageAddress", "read_page_address"]
