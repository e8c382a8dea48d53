"""Where the photographs, masks and id lists of a data set are. Reads no pixels."""

from sparcl_lib.data.sources.source import Source, Split, ade20k_source, voc_source

__all__ = ["Source", "Split", "ade20k_source", "voc_source"]
