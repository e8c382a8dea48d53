"""One GPU for an hour: is it right, what does the paper's scale cost, do real runs come out.

    python benchmarks/studies/gpu/gpu.py --out DIR [--budget 400] [--data-root DIR --weights FILE]
    python benchmarks/studies/gpu/gpu.py --tables RESULTS.json [--into DIR]
    python benchmarks/studies/gpu/gpu.py --home RUN [--data-root DIR]

The first form measures and writes a file per item into --out at once; called again it goes on
where it stopped, items that failed are tried again. Parts run in the order of what they are worth,
and none begins that would not end within the budget. The second form makes the CSV files beside
this script, or in DIR, from `results.json`, which the first one packs; the third takes a run that
it packed, unpacked again, evaluates it on a CPU and goes on with it there.
"""

import argparse
import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SETUPS = ("disjoint", "overlapped", "sequential")
# What runs side by side, each (part, share of it); and the share of the budget that is kept for it
# while what stands before it runs. Nothing runs beside what is timed.
PLAN: tuple[tuple[tuple[tuple[str, str], ...], float], ...] = (
    ((*(("correct", setup) for setup in SETUPS), ("real", "beside")), 0.4),
    ((("resume", "deterministic"), ("resume", "default")), 0.25),
    ((("speed", ""),), 0.28),
    ((("loader", ""),), 0.07),
    ((("real", ""),), 0.25),
    ((("tests", ""),), 0.0),
)
TESTS = ("losses", "prototypes", "methods/test_methods.py", "methods/test_mechanism.py", "models",
         "training/test_fake_cuda.py")  # fmt: skip
RESULTS = "results.json"
RESUMED = ("a second time", "killed and resumed")
"""What is compared with the first run: another one of the same, and one that was killed."""
# Seconds of the budget that are kept for ending parts and for packing.
ENDING = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs", "gpu"), help="result files")
    parser.add_argument("--work", type=Path, help="runs and data; a folder in --out if not given")
    parser.add_argument("--pack", type=Path, help="where to put what is taken home; --out if not")
    parser.add_argument("--budget", type=float, default=400, help="seconds")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data-root", type=Path, help="a VOC2012 tree with photographs")
    parser.add_argument("--weights", type=Path, help="an ImageNet MobileNetV2")
    parser.add_argument("--parts", default="correct,resume,speed,loader,real,tests")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to see it run")
    parser.add_argument("--tables", type=Path, help="results.json from which to write CSV files")
    parser.add_argument("--into", type=Path, default=HERE, help="where the CSV files go")
    parser.add_argument("--home", type=Path, help="a run of the GPU, to be tried on the CPU")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of a process that this one starts
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tables:
        arguments.into.mkdir(parents=True, exist_ok=True)
        write_tables(json.loads(arguments.tables.read_text("utf-8")), arguments.into)
    elif arguments.home:
        sys.path.insert(0, str(HERE))
        from parts.home import check

        print(json.dumps(check(arguments.home, arguments.data_root), indent=1))
    elif arguments.part:
        measure(arguments)
    else:
        measure_all(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """One part, in this process."""
    sys.path.insert(0, str(HERE))
    import importlib

    from parts.items import Job

    job = Job(
        out=arguments.out, work=arguments.work, device=arguments.device, until=arguments.until,
        tiny=arguments.tiny, only=arguments.only, data_root=arguments.data_root,
        weights=arguments.weights,
    )  # fmt: skip
    importlib.import_module(f"parts.{arguments.part}").measure(job)


def measure_all(arguments: argparse.Namespace) -> None:
    began = time.time()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    arguments.out, arguments.work = out, (arguments.work or out / "work").resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in ("data_root", "weights"):
        if getattr(arguments, name) is not None:
            setattr(arguments, name, getattr(arguments, name).resolve())
    for file in out.glob("*.json"):
        if "error" in json.loads(file.read_text("utf-8")):
            file.replace(file.with_suffix(".failed"))
    until = began + arguments.budget - (0 if arguments.tiny else ENDING)
    usable = prepare(arguments, until)
    groups = groups_of(arguments)
    for n, (group, _) in enumerate(groups):
        kept = sum(share for _, share in groups[n + 1 :]) * arguments.budget
        if usable and (arguments.tiny or time.time() < until - kept - 5):
            side_by_side(arguments, group, until if arguments.tiny else until - kept)
    found = pack(arguments)
    print(summary(found))
    if not usable:
        sys.exit(1)


def groups_of(arguments: argparse.Namespace) -> list[tuple[list[tuple[str, str]], float]]:
    """What of PLAN was asked for and can be done; of each group one part alone, if tiny."""
    asked = set(arguments.parts.split(","))
    if arguments.data_root is None:
        asked -= {"loader", "real"}
    groups = []
    for group, share in PLAN:
        chosen = [(part, only) for part, only in group if part in asked]
        if arguments.tiny or "correct" not in asked:
            chosen = [(part, only) for part, only in chosen if only != "beside"]
        if chosen:
            groups.append((chosen[:1] if arguments.tiny else chosen, share))
    return groups


def prepare(arguments: argparse.Namespace, until: float) -> bool:
    """MiniVOC, made before parts that would make it side by side, and what this is run on.

    Returns whether there is a point in going on.
    """
    code = (
        "import json, os, platform, sys, lightning_fabric, torch, torchvision\n"
        "from sparcl_lib.data import open_source, scan\n"
        "cuda = torch.cuda.is_available()\n"
        "found = {'device': torch.cuda.get_device_name() if cuda else 'CPU',"
        " 'memory GiB': torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,"
        " 'cores': len(os.sched_getaffinity(0)), 'python': platform.python_version(),"
        " 'torch': torch.__version__, 'torchvision': torchvision.__version__,"
        " 'lightning-fabric': lightning_fabric.__version__,"
        " 'cudnn': torch.backends.cudnn.version(), 'cuda': torch.version.cuda}\n"
        "source = open_source('minivoc', None, False)\n"
        "print([len(scan(source, split, progress=False).ids) for split in ('train', 'val')])\n"
        "print(json.dumps({'result': found}))\n"
    )
    file = arguments.out / "device.json"
    if not file.exists():
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(arguments), capture_output=True,
            text=True, timeout=max(60, until - time.time()), check=False,
        )  # fmt: skip
        text = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else ""
        file.write_text(text or json.dumps({"error": done.stderr[-3000:]}), "utf-8")
    found = json.loads(file.read_text("utf-8"))
    say(json.dumps(found))
    return "result" in found and (arguments.device == "cpu" or found["result"]["device"] != "CPU")


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """One cache for all, and cuBLAS as deterministic algorithms want it."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "XDG_CACHE_HOME": str(arguments.work / "cache"),
        "SPARCL_STORE": str(arguments.work / "store"),
    }


def side_by_side(
    arguments: argparse.Namespace, chosen: Sequence[tuple[str, str]], until: float
) -> None:
    """Each part in a process group of its own, which ends with the time at the latest."""
    say(f"{', '.join(' '.join(c).strip() for c in chosen)}: {until - time.time():.0f} s")
    running = []
    for part, only in chosen:
        log = arguments.out / f"{'-'.join(filter(None, (part, only)))}.log"
        with log.open("a", encoding="utf-8") as errors:
            running.append(
                subprocess.Popen(
                    command_of(arguments, part, only, until),
                    cwd=ROOT,
                    env=environment(arguments),
                    stderr=errors,
                    start_new_session=True,
                )
            )
    for process in running:
        try:
            process.wait(max(1.0, until + 5 - time.time()) if not arguments.tiny else None)
        except subprocess.TimeoutExpired:
            say("the time is up")
        end_group(process.pid)
        if process.wait():
            say(f"a part ended with {process.returncode}: see its log")


def end_group(group: int) -> None:
    """Loader processes outlive a run that was killed, and with them the output stays open.

    Whoever reads it, `tee` or ssh, waits for them.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def command_of(arguments: argparse.Namespace, part: str, only: str, until: float) -> list[str]:
    if part == "tests":
        tests = [str(ROOT / "tests" / name) for name in TESTS]
        seconds = str(max(5, round(until - time.time())))
        report = f"--junitxml={arguments.out / 'tests.xml'}"
        return ["timeout", seconds, sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow",
                "-p", "no:cacheprovider", report, *tests]  # fmt: skip
    options = {
        "--part": part, "--only": only, "--until": str(until), "--out": arguments.out,
        "--work": arguments.work, "--device": arguments.device,
        "--data-root": arguments.data_root, "--weights": arguments.weights,
    }  # fmt: skip
    given = [str(x) for name, value in options.items() if value for x in (name, value)]
    return [sys.executable, str(Path(__file__).resolve()), *given,
            *(["--tiny"] if arguments.tiny else [])]  # fmt: skip


def pack(arguments: argparse.Namespace) -> dict[str, Any]:
    """All items in one file; logs and failures in a second; runs for a CPU to go on with."""
    target = (arguments.pack or arguments.out).resolve()
    target.mkdir(parents=True, exist_ok=True)
    found = {
        file.stem: json.loads(file.read_text("utf-8"))
        for file in sorted(arguments.out.glob("*.json"))
        if file.name != RESULTS
    }
    (target / RESULTS).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    logs = [*arguments.out.glob("*.log"), *arguments.out.glob("*.failed"),
            *arguments.out.glob("*.xml")]  # fmt: skip
    _tar(target / "logs.tar.gz", logs)
    for run in sorted(arguments.work.glob("*run*")):
        if (run / "metrics.json").exists():
            _tar(target / f"{run.name}.tar.gz", [run])
    return found


def _tar(file: Path, paths: Iterable[Path]) -> None:
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        for path in paths:
            tar.add(path, path.name)


def summary(found: dict[str, Any]) -> str:
    """A page for a terminal: what failed, then a line an item."""
    lines = [f"FAILED {name}: {item['error']}" for name, item in found.items() if "error" in item]
    for name, item in found.items():
        result = item.get("result", {})
        if name.startswith("correct-"):
            for step, row in result.items():
                losses = max(row["losses, relative difference"].values())
                lines.append(
                    f"{name} {step}: losses {losses:.1e}, weights "
                    f"{row['weights, difference relative to it']:.1e}, prototypes "
                    f"{row['prototypes, relative difference']:.1e}, counts "
                    f"{row['counts are equal']}, again {row['a second time the same']}"
                )
        elif name.startswith("speed-") and result:
            lines.append(
                f"{name}: {1000 * result['seconds']:.1f} ms, {result.get('peak GiB', 0):.1f} GiB, "
                f"{result.get('over the floor', 0):.3f} of its floor"
            )
        elif name.startswith("real-") and result:
            last = result["steps"][-1]
            lines.append(f"{name}: {last['miou_all']} mIoU, seconds {result['seconds']}")
        elif name.startswith("resume-") and result:
            for pair in RESUMED:
                lines.append(f"{name}, {pair}: {json.dumps(result[pair])}")
        elif name.startswith("latent-") and result:
            lines.append(f"{name}: {result['all four']}")
        elif result:
            lines.append(f"{name}: {json.dumps(result)[:300]}")
    return "\n".join(lines)


def write_tables(found: dict[str, Any], folder: Path) -> None:
    """device.json, and the CSV files of the page."""
    results = {name: item["result"] for name, item in found.items() if "result" in item}
    device = results.get("device", {})
    (folder / "device.json").write_text(json.dumps(device, indent=1) + "\n", "utf-8")
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("correct", "resume", "speed", "latent", "loader", "real", "syncs")
    }
    for name, result in results.items():
        kind, _, rest = name.partition("-")
        if kind == "correct":
            tables[kind] += [_correct_row(rest, *step) for step in result.items()]
        elif kind == "speed":
            row = {k: v for k, v in result.items() if k != "losses"}
            tables[kind].append({**row, "item": rest})
        elif kind == "resume":
            tables[kind] += [_resume_row(result, pair) for pair in RESUMED]
        elif kind == "latent":
            tables[kind] += [{"classes": result["classes"], "loss": loss, **row}
                             for loss, row in result.items() if loss != "classes"]  # fmt: skip
        elif kind == "loader":
            tables[kind].append(result)
        elif kind == "real":
            rows = zip(result["steps"], result["seconds"], strict=False)
            tables[kind] += [
                {"stage": result["stage"], "method": result["method"], "seed": result["seed"],
                 **{k: v for k, v in row.items() if k != "class_iou"}, "seconds": seconds}
                for row, seconds in rows
            ]  # fmt: skip
        elif kind == "syncs":
            tables[kind] += [
                {"method": method, "place": ":".join(place.split(":")[:2]), "in 3 iterations": x}
                for method, places in result.items()
                for place, x in places.items() if "prototype feature" not in place
            ]  # fmt: skip
    for name, rows in tables.items():
        if rows:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)


def _correct_row(name: str, step: str, row: dict[str, Any]) -> dict[str, Any]:
    """One step of a method in a setup: largest differences from the CPU."""
    setup, _, method = name.partition("-")
    mixed = {
        short: max(row[key].values())
        for short, precision in (("losses in bf16", "bf16-mixed"), ("losses in fp16", "16-mixed"))
        if (key := f"losses in {precision}, relative difference") in row
    }
    return {
        "method": method, "setup": setup, "step": step.split()[-1],
        "losses": max(row["losses, relative difference"].values()),
        "weights": row["weights, difference relative to it"],
        "worst tensor": row["worst tensor, difference relative to its change"],
        "prototypes": row["prototypes, relative difference"],
        "counts equal": row["counts are equal"],
        "repeats": row["a second time the same"],
        "not deterministic": "; ".join(row["not deterministic"]),
        **mixed,
    }  # fmt: skip


def _resume_row(result: dict[str, Any], pair: str) -> dict[str, Any]:
    """How far one run is from the first of its method."""
    found = result[pair]
    first, other = found["mIoU"]
    return {
        "method": result["method"], "algorithms": result["mode"], "run": pair,
        "killed after": "; ".join(result["killed after"]) if pair == RESUMED[1] else "",
        "the same bits": found["the same bits"],
        "difference of a weight": found["largest difference of a weight"],
        "largest weight": found["largest weight"],
        "mIoU, first run": first, "mIoU": other,
    }  # fmt: skip


def _short(value: object) -> object:
    """Six digits."""
    return f"{value:.6g}" if isinstance(value, float) else value


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
