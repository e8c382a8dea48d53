"""What 151 classes cost beside 21: seconds and peak memory of an iteration.

    python benchmarks/studies/many_classes/many_classes.py    # five minutes on one idle core

MobileNetV2, four images of 512 pixels, one thread: student and teacher forward, the losses,
backward; no optimiser and no loader. Each row of many_classes.csv is measured in a process of its
own: the median of a few iterations, and the most memory that the process held. `plain` holds the
upsampled logits in one piece, `strips` as SPARCL does, which also keeps freed memory
(sparcl_lib/methods/strips.py, sparcl_lib/training/memory.py).
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from sparcl_lib.config import resolve
from sparcl_lib.methods import StepContext
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze, grow, segmenter, train_mode
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.memory import keep_freed_memory
from sparcl_lib.writing import write_atomically

TABLE = Path(__file__).with_suffix(".csv")
TASKS = {21: ("voc", "19-1", 20), 151: ("ade", "100-50", 101)}
"""Classes -> data set, task, and how many of the classes are old, background included."""
METHODS, BATCH, SIZE = ("FT", "MiB", "SDR"), 4, 512
FORMS = ("plain", "strips")


def measure(classes: int, name: str, form: str, iterations: int) -> dict[str, object]:
    """In this process: a row of the table."""
    if form == "plain":
        segmenter.MAX_LOGITS_PER_IMAGE = 2**62
    else:
        keep_freed_memory()  # as a training does
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset, task, old = TASKS[classes]
    method = resolve(dataset, name, [], task=task, setup="disjoint").method
    before = build_segmenter(NetworkSpec("mobilenet_v2", (old,)))
    student = train_mode(grow(before, classes - old, method.classifier_init), "frozen")
    student.to(memory_format=torch.channels_last)
    teacher = freeze(before).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    target = torch.randint(old, classes, (BATCH, SIZE // 32, SIZE // 32))
    target[:, ::2] = 0
    target = target.repeat_interleave(32, 1).repeat_interleave(32, 2)
    bank = PrototypeBank(classes, before.backbone.dim)
    bank.add(torch.rand(classes, before.backbone.dim), torch.full((classes,), 9))

    def iteration() -> float:
        begun = time.process_time()
        with torch.no_grad():
            guess = teacher(images) if method.needs_teacher(1) else None
        context = StepContext(
            output=student(images), target=target, teacher=guess, bank=bank, num_old=old,
            old_labelled=False, step=1, both_unbiased=method.both_unbiased(1),
        )  # fmt: skip
        method.losses(context).total.backward()
        student.zero_grad()
        return time.process_time() - begun

    seconds = statistics.median([iteration() for _ in range(1 + iterations)][1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "classes": classes, "method": name, "form": form,
        "seconds": round(seconds, 2), "peak_gib": round(peak, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        classes, name, form = json.loads(arguments.row)
        print(json.dumps(measure(classes, name, form, arguments.iterations)))
        return
    rows = []
    for form in FORMS:
        for classes in TASKS:
            for name in METHODS:
                row = json.dumps([classes, name, form])
                command = [sys.executable, __file__, "--row", row]
                command += ["--iterations", str(arguments.iterations)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append(json.loads(done.stdout))
                print(done.stdout, end="", flush=True)
    table = pd.DataFrame(rows).assign(torch=torch.__version__, machine=platform.machine())
    write_atomically(arguments.out, partial(table.to_csv, index=False))


if __name__ == "__main__":
    main()
