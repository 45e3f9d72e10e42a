"""Datasets of pictures: known folder layouts, the hold-out, reading pictures and masks.

`edgead.data.synthetic` draws parts with defects for the demo and the tests. `edgead.data.pseudo_anomalies` puts
something wrong on good pictures, for methods that train on it, and `edgead.data.contact_sheet` shows it.
"""

from edgead.data.layouts import LAYOUTS, open_dataset
from edgead.data.pictures import LoadedPictures, load_pictures, read_mask
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
