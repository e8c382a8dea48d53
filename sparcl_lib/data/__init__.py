"""Data sets, class presence, partitions and loaders. Importing it does not import torch."""

from typing import TYPE_CHECKING

from sparcl_lib.data.checksums import fingerprint, image_checksums
from sparcl_lib.data.lists import read_lists, split_checksum, write_lists
from sparcl_lib.data.presence import Presence, check_pairs, scan
from sparcl_lib.data.sources.catalog import open_source
from sparcl_lib.data.sources.source import Source, Split, ade20k_source, voc_source
from sparcl_lib.data.splits import evaluation_ids, hold_out, partition, remap_labels
from sparcl_lib.lazy import lazy_names

if TYPE_CHECKING:
    from sparcl_lib.data.loading.dataset import ImageReader, SegmentationDataset, StepBatch
    from sparcl_lib.data.loading.transforms import evaluation_transform, training_transform

__all__ = [
    "ImageReader",
    "Presence",
    "SegmentationDataset",
    "Source",
    "Split",
    "StepBatch",
    "ade20k_source",
    "check_pairs",
    "evaluation_ids",
    "evaluation_transform",
    "fingerprint",
    "hold_out",
    "image_checksums",
    "open_source",
    "partition",
    "read_lists",
    "remap_labels",
    "scan",
    "split_checksum",
    "training_transform",
    "voc_source",
    "write_lists",
]

_HOMES = {
    "ImageReader": "sparcl_lib.data.loading.dataset",
    "SegmentationDataset": "sparcl_lib.data.loading.dataset",
    "StepBatch": "sparcl_lib.data.loading.dataset",
    "evaluation_transform": "sparcl_lib.data.loading.transforms",
    "training_transform": "sparcl_lib.data.loading.transforms",
}
"""Public name -> module that defines it; imported on first use because it needs torch."""


if not TYPE_CHECKING:  # type checkers see the imports above
    __getattr__ = lazy_names(__name__, _HOMES)
