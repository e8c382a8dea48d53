"""Commands on a disk that is full, then given again on one that is not: the result is the same.

    python tests/full_disks.py        40 full disks and the table of docs/reliability.md

The folder that a command writes is a disk of its own (tmpfs, in a mount namespace of this process),
with room for less than it writes, drawn in pages of 4 KiB. It must end in one line that says `No
space left on device`, and what was there before must still be there. Then the disk is enlarged, and
the same command must end in status 0 with what an undisturbed one leaves. The index of a data set
is kept in a cache: a command that cannot keep it says so and goes on. Linux alone, and where a
process may have a mount namespace.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, as a script

from kills import COMMANDS, Done, Place, begin, left, make_place, run
from tally import Tally

SEED = 16
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
PAGE = 4096
ROOMY = "512m"
COUNTS = {"training": 12, "evaluation": 4, "index": 3, "generation": 6, "report": 3,
          "store (compare)": 6, "sweep": 6}  # fmt: skip
"""What meets a full disk -> how often."""


def can_mount() -> bool:
    """Whether this system lets a process mount a disk of its own."""
    if shutil.which(NAMESPACE[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", folder]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Disk:
    """A tmpfs at a folder."""

    folder: Path

    def mount(self, size: str) -> None:
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder))

    def resize(self, size: str) -> None:
        _mount("-o", f"remount,size={size}", str(self.folder))

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)

    def used(self) -> int:
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def files(folder: Path) -> dict[str, os.stat_result]:
    """By their paths in the folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat() for path in paths}


def room_needed(before: dict[str, os.stat_result], after: dict[str, os.stat_result]) -> int:
    """Bytes that must be free for all to be written; a file is whole before it replaces another."""
    written = {n: f for n, f in after.items() if n not in before or f.st_ino != before[n].st_ino}
    grown = sum(f.st_blocks for f in after.values()) - sum(f.st_blocks for f in before.values())
    return 512 * max([grown, *(f.st_blocks for f in written.values())])


def fault_of_the_full(done: Done, needless: bool) -> str:
    """needless: the command does without what it could not write, and says so for each file."""
    lines = [line for line in done.errors.replace("\r", "\n").splitlines() if "sparcl:" in line]
    told = all("No space left on device" in line for line in lines)
    as_expected = done.status == 0 and lines if needless else done.status == 2 and len(lines) == 1
    fine = told and as_expected and "Traceback" not in done.errors
    return "" if fine else f"status {done.status}: {done.errors[-900:]}"


def try_all(place: Place, name: str, numbers: range, cache: Path) -> Tally:
    """Run a command on disks of these sizes, drawn from their numbers."""
    command = COMMANDS[name][1]
    disk = Disk(cache if name == "index" else place.own)

    def prepared(size: str) -> list[str]:
        """Empty folders, one of them a disk, and what must lie there before."""
        begin(place, cache)
        disk.mount(ROOMY)
        arguments = command(place)
        disk.resize(size)
        return arguments

    arguments = prepared(ROOMY)
    before, there = disk.used(), files(disk.folder)
    whole = run(place, arguments)
    wanted, needed = left(disk.folder), room_needed(there, files(disk.folder))
    disk.unmount()
    if whole.status or not needed:
        raise RuntimeError(f"{name} fails undisturbed, or writes nothing: {whole.errors}")
    tally = Tally()
    for number in numbers:
        draw = random.Random(f"{SEED} {name} {number}")
        free = PAGE * draw.randrange(max(1, needed // PAGE))
        arguments = prepared(str(before + PAGE + free))  # a tmpfs of size 0 has no limit
        filler = disk.folder / "filler"
        filler.write_bytes(bytes(PAGE))
        full = run(place, arguments)
        filler.unlink()
        fault, lost = (
            fault_of_the_full(full, name == "index"),
            sorted(set(there) - set(files(disk.folder))),
        )
        disk.resize(ROOMY)
        again = run(place, command(place))
        if lost:
            fault = fault or f"lost: {lost}"
        if again.status != 0:
            fault = fault or f"again: status {again.status}: {again.errors[-900:]}"
        elif left(disk.folder) != wanted:
            fault = fault or "another result"
        disk.unmount()
        line = f"{name} {number}, {free} bytes free: {fault}"
        tally.add("another" if fault else "same", fault=line if fault else "")
    return tally


def run_from_shell() -> int:
    parser = argparse.ArgumentParser(description="Commands on a disk that is full.")
    parser.add_argument("--only", choices=COUNTS)
    parser.add_argument("--count", type=int, help="how many disks for each command")
    parser.add_argument("--mounted", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.mounted:
        return subprocess.call([*NAMESPACE, sys.executable, *sys.argv, "--mounted"])
    faults: list[str] = []
    print("| what | full disks | one line, and the same result after | faults |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder).resolve() / "cache"
        os.environ["XDG_CACHE_HOME"] = str(cache)
        place = make_place(Path(folder).resolve() / "place")
        for name in [chosen.only] if chosen.only else COUNTS:
            t = try_all(place, name, range(chosen.count or COUNTS[name]), cache)
            print(f"| {name} | {t.cases} | {t.outcomes['same']} | {len(t.faults)} |", flush=True)
            print(*t.faults, sep="\n", file=sys.stderr)
            faults += t.faults
    return bool(faults)


if __name__ == "__main__":
    sys.exit(run_from_shell())
