"""MiniVOC: the data set that is generated, small and the same everywhere."""

from sparcl_lib.data.minivoc.generation import (
    checksum,
    default_root,
    ensure_minivoc,
    generate,
    verify,
)

__all__ = ["checksum", "default_root", "ensure_minivoc", "generate", "verify"]
