"""The training revision, and the file that says what it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparcl_lib.writing import write_text

TRAINING_REVISION = 1
"""Raised by one whenever the same configuration and data train other numbers, and only then. A
changed default of a setting is such a case, for keys leave out what stands at its default."""

RECORD = Path(__file__).with_name("recorded.json")

Values = dict[str, dict[str, list[float]]]
"""Name of a run -> what was measured (`step 1 kd`) -> its values, one an iteration."""


@dataclass(frozen=True)
class CodeRecord:
    """One file as it was recorded."""

    text: str
    """Checksum of its bytes: where it agrees, nothing has to be parsed."""
    statements: str
    """Digest of its statements: see code.statements_digest."""


@dataclass(frozen=True)
class Record:
    """Contents of recorded.json."""

    revision: int = 0
    code: dict[str, CodeRecord] = field(default_factory=dict)
    """File, by its path in the package -> what it said."""
    values: Values = field(default_factory=dict)
    """See golden.golden_values."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Setting -> its default."""


def read_record(path: Path = RECORD) -> Record:
    """The record, or an empty one of revision 0 if there is none."""
    if not path.is_file():
        return Record()
    plain = json.loads(path.read_text("utf-8"))
    code = {name: CodeRecord(*row) for name, row in plain["code"].items()}
    return Record(plain["revision"], code, plain["values"], plain["defaults"])


def write_record(record: Record, path: Path = RECORD) -> None:
    """A line for every file and for every series of values, so that a change is one line, too."""
    code = {name: [row.text, row.statements] for name, row in sorted(record.code.items())}
    runs = [f"{json.dumps(run)}: {_lines(rows)}" for run, rows in record.values.items()]
    values = "{\n" + ",\n".join(runs) + "\n}"
    parts = {"code": _lines(code), "defaults": _lines(record.defaults), "values": values}
    rest = ",\n".join(f'"{name}": {text}' for name, text in parts.items())
    write_text(path, f'{{"revision": {record.revision},\n{rest}}}\n')


def _lines(rows: Mapping[str, Any]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "}"
