"""python -m sparcl_lib.revision [record]: the command of sparcl_lib.revision."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from sparcl_lib.revision.code import edited_code, record_code
from sparcl_lib.revision.golden import golden_defaults, golden_values, moved
from sparcl_lib.revision.recorded import (
    TRAINING_REVISION,
    Record,
    Values,
    read_record,
    write_record,
)

RAISE = "raise TRAINING_REVISION in sparcl_lib/revision/recorded.py and record again"
RECORD_IT = "python -m sparcl_lib.revision record"
_SHOWN = 12


def new_record(
    before: Record, values: Values, defaults: dict[str, Any], revision: int = TRAINING_REVISION
) -> Record:
    """What to write down. Values that stayed within the tolerance are left as they were recorded,
    so that many small drifts do not add up.

    Raises ValueError for what moved under the revision that is recorded.
    """
    if revision < before.revision:
        raise ValueError(f"revision {before.revision} is recorded, this is {revision}: {RAISE}")
    if revision == before.revision:
        lines = moved(before, values, defaults)
        if lines:
            raise ValueError(f"{_some(lines)}\nIf that is meant, {RAISE}.")
        values = {run: before.values.get(run, rows) for run, rows in values.items()}
    return Record(revision, record_code(), values, defaults)


def _some(lines: Sequence[str]) -> str:
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def check(record: Record, values: Values, defaults: dict[str, Any]) -> list[str]:
    """What is not as recorded, a line each; the last one says what to do."""
    if record.revision != TRAINING_REVISION:
        return [f"revision {record.revision} is recorded, not {TRAINING_REVISION}: {RECORD_IT}"]
    lines = moved(record, values, defaults)
    if lines:
        return [*_some(lines).splitlines(), f"If that is meant, {RAISE}; else mend the code."]
    keys = (record.values.keys() ^ values.keys()) | (record.defaults.keys() ^ defaults.keys())
    names = [*sorted(keys), *edited_code()]
    return [f"not recorded as it is: {', '.join(names)}; {RECORD_IT}"] if names else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("check", "record"), default="check")
    what = parser.parse_args().what
    before, values, defaults = read_record(), golden_values(), golden_defaults()
    if what == "check":
        lines = check(before, values, defaults)
        print("\n".join(lines) or f"{len(values)} runs train what revision {before.revision} did")
        sys.exit(1 if lines else 0)
    try:
        record = new_record(before, values, defaults)
    except ValueError as error:
        sys.exit(f"{error}\nNothing was recorded.")
    write_record(record)
    print(
        f"recorded revision {record.revision}: {len(record.values)} runs, {len(record.code)} files"
    )


if __name__ == "__main__":
    main()
