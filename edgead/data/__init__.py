"""Datasets of images: known folder layouts, the hold-out, reading images and masks.

`edgead.data.synthetic.dataset` draws parts with defects for the demo and the tests.
`edgead.data.pseudo_anomalies.draem` puts something wrong on good images, for methods that train on it, and
`edgead.data.pseudo_anomalies.contact_sheet` shows it.
"""

from edgead.data.images import LoadedImages, load_images, read_mask
from edgead.data.layouts import LAYOUTS, open_dataset
from edgead.data.samples import GOOD, Dataset, Sample, split_holdout, spread_over

__all__ = [
    "GOOD",
    "LAYOUTS",
    "Dataset",
    "LoadedImages",
    "Sample",
    "load_images",
    "open_dataset",
    "read_mask",
    "split_holdout",
    "spread_over",
]
