"""Datasets of pictures: known folder layouts, the hold-out, reading pictures and masks.

`edgead.data.synthetic.dataset` draws parts with defects for the demo and the tests.
`edgead.data.pseudo_anomalies.draem` puts something wrong on good pictures, for methods that train on it, and
`edgead.data.pseudo_anomalies.contact_sheet` shows it.
"""

from edgead.data.images import LoadedPictures, load_pictures, read_mask
from edgead.data.layouts import LAYOUTS, open_dataset
from edgead.data.samples import GOOD, Dataset, Sample, split_holdout, spread_over

__all__ = [
    "GOOD",
    "LAYOUTS",
    "Dataset",
    "LoadedPictures",
    "Sample",
    "load_pictures",
    "open_dataset",
    "read_mask",
    "split_holdout",
    "spread_over",
]
