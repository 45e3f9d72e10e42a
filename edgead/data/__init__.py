"""Datasets of images: known folder layouts, the hold-out, reading images and masks.

`edgead.data.synthetic.dataset` writes datasets of synthetic parts with defects, for the demo and the tests.
`edgead.data.pseudo_anomalies.draem` adds pseudo-anomalies to good images, for methods that train on them.
`edgead.data.pseudo_anomalies.contact_sheet` writes an image that shows them.
"""

from edgead.data.images import LoadedImages, load_images
from edgead.data.layouts import LAYOUTS, dataset_path, open_dataset
from edgead.data.left_out import count_left_out, left_out_text
from edgead.data.masks import read_mask
from edgead.data.samples import (
    GOOD,
    Dataset,
    Sample,
    drawing_order,
    hold_out,
    split_holdout,
    spread_over,
)
from edgead.data.stored_images import cut_sample, read_sample

__all__ = [
    "GOOD",
    "LAYOUTS",
    "Dataset",
    "LoadedImages",
    "Sample",
    "count_left_out",
    "cut_sample",
    "dataset_path",
    "drawing_order",
    "hold_out",
    "left_out_text",
    "load_images",
    "open_dataset",
    "read_mask",
    "read_sample",
    "split_holdout",
    "spread_over",
]
