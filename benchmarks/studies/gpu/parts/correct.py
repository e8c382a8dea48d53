"""Is the GPU right? One step of every method on the CPU and on the GPU, from the same start."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from parts.items import Job, say
from sparcl_lib.config import RunConfig, parse_settings
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.experiments.base import RunBase, Variant
from sparcl_lib.experiments.store import RunStore, run_keys
from sparcl_lib.methods import METHODS
from sparcl_lib.seeding import seed_everything
from sparcl_lib.training import RunDirectory, make_fabric, open_workspace, train
from sparcl_lib.training.plan import make_plan
from sparcl_lib.training.restore import start_step
from sparcl_lib.training.step import StepTrainer

SETUPS = ("disjoint", "overlapped", "sequential")
RELEASED = Variant(name="SDR released", method="SDR", settings={"method.variant": "released"})
FIRST_ITERATIONS = 30
# One precision of every kind that Fabric scales or casts for.
MIXED = ("bf16-mixed", "16-mixed")


def measure(job: Job) -> None:
    """In full precision (no tf32) and with deterministic algorithms, where there are some."""
    torch.set_num_threads(4)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    setups = [job.only] if job.only else list(SETUPS)
    methods: list[str | Variant] = [*METHODS, RELEASED]
    if job.tiny:
        setups, methods = setups[:1], ["FT", "SDR"]
    iterations = 2 if job.tiny else FIRST_ITERATIONS
    base = RunBase(
        dataset="minivoc", task="6-4",
        overrides=(parse_settings([f"optim.iterations=[{iterations},1]"]),),
    )  # fmt: skip
    for setup in setups:
        for method in methods:
            name = method if isinstance(method, str) else method.name
            config = dataclasses.replace(base, setup=setup).config(method, 0)
            label = f"correct-{setup}-{name.replace(' ', '-')}"
            job.item(label, 6, partial(_compare, job, config))
    if not job.only or job.only == SETUPS[0]:
        job.item("kept-run", 25, partial(_kept_run, job))


def _compare(job: Job, config: RunConfig) -> dict[str, Any]:
    """Step 0 and, of a continual method, step 1."""
    fit = partial(train, accelerator=_accelerator(job), devices=1)
    keys = run_keys(config)
    folder = RunStore((job.work / "correct",), fit).train_first(config, keys)
    steps = [0] if config.method.joint else [0, 1]
    return {
        f"step {step}": _compare_step(job, config, RunDirectory(folder), step) for step in steps
    }


def _compare_step(job: Job, config: RunConfig, run: RunDirectory, step: int) -> dict[str, Any]:
    workspace = open_workspace(config, progress=False, trained=[0] if step else [])
    batches = list(workspace.training_batches(step, 2, 7, 0, 1, "cpu"))
    plan = dataclasses.replace(make_plan(workspace, step, 1), iterations=1, batches_per_pass=2)

    def one_step(device: str, precision: Any = "32-true") -> dict[str, Any]:
        seed_everything(11)
        start = start_step(workspace, run, step)
        before = _cpu(start.student.state_dict())
        fabric = make_fabric(precision, accelerator=device, devices=1)
        trainer = StepTrainer(
            fabric, plan, start.student, start.teacher, start.bank, start.mechanisms
        )
        logged: dict[str, float] = {}
        placed = [StepBatch(*(x.to(fabric.device) for x in batch)) for batch in batches]
        trainer.fit(placed, lambda values, iteration: logged.update(values))
        return {
            "before": before,
            "after": _cpu(start.student.state_dict()),
            "losses": logged,
            "prototypes": start.bank.prototypes.cpu(),
            "counts": start.bank.counts.cpu(),
        }

    cpu = one_step("cpu")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        gpu, again = one_step(_accelerator(job)), one_step(_accelerator(job))
    found = {
        "losses on the CPU": cpu["losses"],
        "losses, relative difference": _relative(cpu["losses"], gpu["losses"]),
        **_weights(cpu, gpu),
        "prototypes, relative difference": _gap(cpu["prototypes"], gpu["prototypes"]),
        "counts are equal": torch.equal(cpu["counts"], gpu["counts"]),
        "a second time the same": all(
            torch.equal(gpu["after"][name], again["after"][name]) for name in gpu["after"]
        ),
        "not deterministic": sorted(_undetermined(heard)),
    }
    if config.setup == "disjoint":
        for precision in MIXED:
            if precision == "16-mixed" and config.method.regulariser is not None:
                continue  # refused: scaled gradients
            if precision == "16-mixed" and job.device == "cpu":
                continue
            mixed = one_step(_accelerator(job), precision)
            found[f"losses in {precision}, relative difference"] = _relative(
                cpu["losses"], mixed["losses"]
            )
    return found


def _accelerator(job: Job) -> str:
    return job.device


def _cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


def _relative(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {n: abs(a[n] - b[n]) / max(abs(a[n]), 1e-12) for n in a if n != "lr"}


def _weights(cpu: Mapping[str, Any], gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Differences after the step, relative to what the step changed."""
    change, gap, worst = 0.0, 0.0, ("", 0.0)
    for name, before in cpu["before"].items():
        if not before.is_floating_point() or before.numel() == 0:
            continue
        moved = float((cpu["after"][name] - before).abs().max())
        apart = float((cpu["after"][name] - gpu["after"][name]).abs().max())
        change, gap = max(change, moved), max(gap, apart)
        if moved > 0 and apart / moved > worst[1]:
            worst = (name, apart / moved)
    return {
        "largest change of a weight": change,
        "weights, difference relative to it": gap / max(change, 1e-30),
        "worst tensor": worst[0],
        "worst tensor, difference relative to its change": worst[1],
    }


def _undetermined(heard: list[warnings.WarningMessage]) -> Counter[str]:
    texts = (str(w.message) for w in heard)
    return Counter(t.split(" does not have")[0][:120] for t in texts if "determin" in t)


def _kept_run(job: Job) -> dict[str, Any]:
    """A whole run on MiniVOC, small enough to be taken home, where a CPU goes on with it."""
    torch.use_deterministic_algorithms(False)
    iterations = "[2,2]" if job.tiny else "[300,150]"
    base = RunBase(
        dataset="minivoc", task="6-4",
        overrides=(parse_settings([f"optim.iterations={iterations}"]),),
    )  # fmt: skip
    out = job.work / "kept-run"
    try:
        metrics = train(
            base.config("SDR", 0), out, resume=True, accelerator=_accelerator(job), devices=1
        )
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
    say(f"kept run: {[s['miou_all'] for s in metrics['steps']]}")
    return {"steps": metrics["steps"], "seconds": metrics["seconds"]}
