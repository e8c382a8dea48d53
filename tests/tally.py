"""What became of the many cases that fuzz.py, damaged_runs.py, kills.py and full_disks.py try."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How they ended, such as refused or unharmed -> how many did."""
    seconds: float = 0.0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)
    """A line each; a case with a fault has an outcome, too."""

    @property
    def cases(self) -> int:
        return self.outcomes.total()

    def add(self, outcome: str, seconds: float = 0.0, fault: str = "") -> None:
        """Count one case; fault: what was wrong, empty where nothing was."""
        self.outcomes[outcome] += 1
        self.seconds += seconds
        self.slowest = max(self.slowest, seconds)
        if fault:
            self.faults.append(fault)
