"""The editions of MiniVOC: which classes there are, which are seen together, how many images."""

from collections.abc import Mapping
from dataclasses import dataclass

from sparcl_lib.data.minivoc.shapes import TEN, TEN_MORE, Shape

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One MiniVOC; drawing anything of it differently needs a new VERSION and a new sum."""

    name: str
    shapes: Mapping[str, Shape]
    """Class name -> outline; class i is the i-th, from 1."""
    often_together: Mapping[int, tuple[int, int]]
    """Class -> two classes that it is often seen with."""
    train: int
    val: int
    checksum: str
    """Of the default settings: `train` and `val` images of 64 pixels, seed 0."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.shapes)


MINIVOC = Edition(
    name="minivoc",
    shapes=TEN,
    # Many pairs lie across the split of 6-4.
    often_together={
        1: (3, 7), 2: (5, 8), 3: (1, 9), 4: (6, 10), 5: (2, 7),
        6: (4, 9), 7: (1, 5), 8: (2, 10), 9: (3, 6), 10: (4, 8),
    },
    train=2500,
    val=400,
    checksum="147363218cd522f0cb9f8131dbf499dbf08ac4c2eb0cf4a8ae62d173de538725",
)  # fmt: skip
"""Ten classes: a run takes about a minute."""

MINIVOC20 = Edition(
    name="minivoc20",
    # Class 10 + i looks like class 5 + i, and 15 + i like i, with hues around the same centre.
    shapes={**TEN, **TEN_MORE},
    # The last five are mostly seen with classes of the first fifteen, as on VOC.
    often_together={
        1: (3, 17), 2: (11, 16), 3: (1, 19), 4: (6, 20), 5: (12, 18),
        6: (4, 9), 7: (1, 16), 8: (2, 14), 9: (6, 20), 10: (13, 18),
        11: (2, 15), 12: (5, 17), 13: (10, 19), 14: (8, 16), 15: (11, 20),
        16: (2, 7), 17: (1, 12), 18: (5, 10), 19: (3, 13), 20: (4, 9),
    },
    train=5000,
    val=800,
    checksum="28cc915dbc5423ea6614f1852c898f3ebeec6e7df936707d15855d7940bef37f",
)  # fmt: skip
"""Twenty classes, as many as VOC has and with its tasks: a scale model of the published tables."""

EDITIONS = {edition.name: edition for edition in (MINIVOC, MINIVOC20)}
