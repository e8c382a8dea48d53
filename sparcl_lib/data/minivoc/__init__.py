"""MiniVOC: the data set that is generated, small and the same everywhere."""

from sparcl_lib.data.minivoc.editions import EDITIONS, MINIVOC, MINIVOC20, Edition
from sparcl_lib.data.minivoc.generation import (
    checksum,
    default_root,
    ensure_minivoc,
    generate,
    verify,
)

__all__ = [
    "EDITIONS",
    "MINIVOC",
    "MINIVOC20",
    "Edition",
    "checksum",
    "default_root",
    "ensure_minivoc",
    "generate",
    "verify",
]
