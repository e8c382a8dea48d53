"""Data sets, class presence, partitions and loaders. Importing it does not import torch."""

from importlib import import_module
from typing import Any

from sparcl_lib.data.checksums import fingerprint, image_checksums
from sparcl_lib.data.lists import read_lists, split_checksum, write_lists
from sparcl_lib.data.presence import Presence, check_pairs, scan
from sparcl_lib.data.sources.catalog import open_source
from sparcl_lib.data.sources.source import Source, Split, ade20k_source, voc_source
from sparcl_lib.data.splits import evaluation_ids, partition, remap_labels

# Public name -> module that defines it; imported on first use because it needs torch.
_LAZY = {
    "ImageReader": "sparcl_lib.data.loading.dataset",
    "SegmentationDataset": "sparcl_lib.data.loading.dataset",
    "StepBatch": "sparcl_lib.data.loading.dataset",
    "evaluation_transform": "sparcl_lib.data.loading.transforms",
    "training_transform": "sparcl_lib.data.loading.transforms",
}

__all__ = [
    "Presence",
    "Source",
    "Split",
    "ade20k_source",
    "check_pairs",
    "evaluation_ids",
    "fingerprint",
    "image_checksums",
    "open_source",
    "partition",
    "read_lists",
    "remap_labels",
    "scan",
    "split_checksum",
    "voc_source",
    "write_lists",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
