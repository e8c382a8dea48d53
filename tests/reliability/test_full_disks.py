"""A few of the full disks of tests/full_disks.py, which tries 40."""

import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("mount namespaces", allow_module_level=True)
pytest.importorskip("optuna")

from full_disks import COUNTS, NAMESPACE, can_mount, fault_of_the_full
from kills import COMMANDS, Done

SCRIPT = Path(__file__).parents[1] / "full_disks.py"
SAID = "sparcl: /out/a: No space left on device: free space"


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this system mounts no disk for a process")
@pytest.mark.parametrize("name", ["training", "report"])
def test_a_command_on_a_full_disk_says_so_and_can_be_given_again(name):
    command = [*NAMESPACE, sys.executable, str(SCRIPT), "--only", name, "--count", "1"]
    done = subprocess.run([*command, "--mounted"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"| {name} | 1 | 1 | 0 |"


def test_every_command_meets_a_full_disk():
    assert set(COUNTS) == set(COMMANDS)


@pytest.mark.parametrize(
    ("done", "needless", "fine"),
    [
        (Done(2, "", SAID, 1), False, True),
        (Done(1, "", SAID, 1), False, False),
        (Done(2, "", "sparcl: a fault", 1), False, False),
        (Done(2, "", f"{SAID}\n{SAID}", 1), False, False),
        (Done(2, "", f"Traceback\n{SAID}", 1), False, False),
        (Done(0, "", "", 1), False, False),
        (Done(0, "", f"{SAID}\n{SAID}", 1), True, True),
        (Done(0, "", "", 1), True, False),
    ],
)
def test_what_is_said_on_a_full_disk_is_looked_at(done, needless, fine):
    assert bool(fault_of_the_full(done, needless)) != fine
