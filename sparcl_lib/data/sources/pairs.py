"""A table of images and masks: a CSV with the columns image, mask and perhaps id.

Its first line shows whether commas, semicolons or tabs part the columns.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparcl_lib.errors import UserError
from sparcl_lib.tasks.classes import unknown_name

COLUMNS = ("image", "mask", "id")


@dataclass(frozen=True)
class PairList:
    """A split as a table of files, wherever they lie and whatever they are called."""

    listing: Path
    """The table."""
    pairs: Mapping[str, tuple[str, str]]
    """Image id -> paths of photograph and mask."""

    @property
    def place(self) -> Path:
        """What a scan of these masks is kept under."""
        return self.listing

    def ids(self) -> list[str]:
        """Image ids in the order of the table."""
        return list(self.pairs)

    def scanned_as(self, image_id: str) -> str:
        """What a mask is called among those scans, beside its size and time."""
        return self.pairs[image_id][1]

    def mask(self, image_id: str) -> str:
        """Path of a mask (it need not exist)."""
        return self.pairs[image_id][1]

    def masks_of(self, image_id: str) -> list[str]:
        """Where the mask may be: in one place."""
        return [self.pairs[image_id][1]]

    def photos_of(self, image_id: str) -> list[str]:
        """Where the photograph may be: in one place."""
        return [self.pairs[image_id][0]]


def read_pairs(path: Path, base: Path) -> PairList:
    """The split that a table describes, in its order.

    The first line names the columns. Without a column ``id`` the id is the name of the image file.

    Args:
        path: the CSV.
        base: where relative paths in it start.

    Raises:
        UserError: naming the line that is wrong.
    """
    lines: dict[str, int] = {}
    pairs: dict[str, tuple[str, str]] = {}
    for number, row in _rows(path):
        cells = {column: cell or "" for column, cell in row.items()}  # a short line has None
        for column in COLUMNS:
            if column in cells and not (cells[column].strip() and cells[column].isprintable()):
                raise UserError(
                    f"{path} line {number}: no {column}; fill it in, or remove the line"
                )
        image, mask = (str(base / os.path.expanduser(cells[c].strip())) for c in COLUMNS[:2])
        image_id = cells["id"].strip() if "id" in cells else Path(image).stem
        if image_id in pairs:
            raise UserError(
                f"{path} line {number}: id {image_id!r} is that of line {lines[image_id]} too; "
                "give each line its own in a column 'id'"
            )
        pairs[image_id], lines[image_id] = (image, mask), number
    return PairList(path, pairs)


def _rows(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write the mark
            header = file.readline()
            file.seek(0)  # which reads the mark again: the decoder starts anew
            # Spreadsheets write semicolons where the comma is the decimal mark, or tabs.
            table = csv.DictReader(file, strict=True, delimiter=max(",;\t", key=header.count))
            _check_header(path, table.fieldnames or [])
            rows = [(table.line_num, row) for row in table]
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}; correct the path"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no CSV in UTF-8; save it as such") from None
    except csv.Error as error:
        raise UserError(
            f"{path} is no CSV ({error}); save it as UTF-8 with commas, semicolons or tabs"
        ) from None
    for number, row in rows:
        if None in row:
            raise UserError(
                f"{path} line {number}: more values than columns; quote what holds such a mark"
            )
    return rows


def _check_header(path: Path, header: Sequence[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            raise unknown_name(f"column in {path} line 1:", name, COLUMNS)
    for name in COLUMNS[:2]:
        if header.count(name) != 1:
            raise UserError(f"{path} line 1: must name the columns image,mask or image,mask,id")
