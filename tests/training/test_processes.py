"""Several processes train one run: against one with all its images, and when one of them fails."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import PATIENCE
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import distributed, nn
from watched_run import free_port

from sparcl_lib.config import RunConfig, parse_settings, resolve
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import FailedElsewhere, UserError
from sparcl_lib.experiments import store
from sparcl_lib.plugins import load_plugins
from sparcl_lib.training import alike, devices, runner, train
from sparcl_lib.training.alike import _differing_part, _parts
from sparcl_lib.training.devices import make_fabric
from sparcl_lib.training.run_directory import RunDirectory
from sparcl_lib.training.step import StepTrainer
from sparcl_lib.training.workspace import open_workspace

TESTS = Path(__file__).parents[1]
IMAGES, BATCH = 41, 2
QUICK = (
    "optim.iterations=[2,2]", "optim.lr=1e-3", "data.size=32", "data.batch_size=2",
    "data.workers=0",
)  # fmt: skip
SET = [part for setting in QUICK for part in ("--set", setting)]
# What Fabric's launcher would take for processes that are there already.
LONE = {
    k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    """Seven test images: two processes have four and three."""
    root = tmp_path_factory.mktemp("processes") / "minivoc"
    generate(root, train=IMAGES, val=7, size=32, progress=False)
    return root


def config(mini: Path, *settings: str) -> RunConfig:
    layers = [parse_settings([*QUICK, *settings])]
    return resolve("minivoc", "FT", layers, task="6-4", data_root=str(mini))


def close(one: torch.Tensor, other: torch.Tensor, share: float = 1e-3) -> bool:
    """But for the order of float32 sums, through two trainings."""
    return bool((one - other).abs().max() <= share * one.abs().max())


def test_two_processes_equal_one_with_their_images(mini, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    arguments = (sys.executable, TESTS / "watched_run.py", mini, tmp_path, BATCH)
    done = subprocess.run(
        [*map(str, arguments)], env=LONE, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    whole, *halves = (
        torch.load(file, weights_only=True)
        for file in (one / "watched-0.pt", two / "watched-0.pt", two / "watched-1.pt")
    )
    assert sorted(whole["images"]) == sorted(halves[0]["images"] + halves[1]["images"])
    for half in halves:
        assert close(whole["thresholds"], half["thresholds"]) and whole["thresholds"].max() > 0
    for step in (0, 1):
        a, b = (RunDirectory(run).load_checkpoint(step) for run in (one, two))
        assert (a["iterations"], a["devices"], b["devices"]) == (b["iterations"], 1, 2)
        assert torch.equal(a["bank"]["counts"], b["bank"]["counts"]) and a["bank"]["counts"].any()
        assert close(a["bank"]["sums"], b["bank"]["sums"])
        importances = (state["mechanisms"]["regulariser"]["fisher"] for state in (a, b))
        for mine, theirs in zip(*(found.values() for found in importances)):
            # Squares of tiny differences, by other sums on each processor.
            assert close(mine, theirs, 3e-2 if step else 1e-3)
        for name, value in a["model"].items():
            assert close(value.double(), b["model"][name].double()), name
        truth = a["confusion"].sum(dim=1)
        assert torch.equal(truth, b["confusion"].sum(dim=1)) and truth.sum() > 0
        assert (a["confusion"] - b["confusion"]).abs().sum() <= 0.01 * truth.sum()
        rates = (pd.read_csv(run / f"logs/step-{step}/metrics.csv")["lr"] for run in (one, two))
        pd.testing.assert_series_equal(*rates)
    written = {file.relative_to(two) for file in two.rglob("*") if "events" not in file.name}
    assert {file.relative_to(one) for file in one.rglob("*") if "events" not in file.name} == (
        written - {Path("watched-1.pt")}
    )


@pytest.mark.parametrize(
    "processes, device, here",
    [(1, "cuda", "1 process on cuda"), (2, "cpu", "2 processes on cpu"), (2, "cuda", None)],
)
def test_batch_norm_is_synchronised_over_gpus_alone(processes, device, here):
    fabric = SimpleNamespace(world_size=processes, device=torch.device(device))
    if here is None:
        devices.check_synchronises(fabric)
        return
    with pytest.raises(UserError, match=f"needs several GPUs, and this is {here}"):
        devices.check_synchronises(fabric)


def test_a_training_that_cannot_synchronise_is_refused(mini, tmp_path):
    wanted = config(mini, "model.sync_batch_norm=true")
    with pytest.raises(UserError, match=r"model\.sync_batch_norm=true needs several GPUs"):
        train(wanted, tmp_path / "run", accelerator="cpu")
    assert not RunDirectory(tmp_path / "run").steps_done()


def test_only_the_batch_norm_of_the_student_changes(mini, tmp_path, monkeypatch):
    """Parameters stay the same ones, and a checkpoint is that of any network."""
    monkeypatch.setattr(runner, "check_synchronises", lambda fabric: None)
    wanted = config(mini, "model.sync_batch_norm=true")
    trained, setup = [], StepTrainer.__post_init__

    def note(trainer: StepTrainer) -> None:
        before = dict(trainer.student.named_parameters())
        setup(trainer)
        assert all(p is before[name] for name, p in trainer.student.named_parameters())
        trained.append(trainer)

    monkeypatch.setattr(StepTrainer, "__post_init__", note)
    train(wanted, tmp_path / "run", accelerator="cpu")
    for trainer in trained:
        kind = nn.modules.batchnorm._NormBase
        norms = [m for m in trainer.student.modules() if isinstance(m, kind)]
        assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    train(config(mini), tmp_path / "plain", accelerator="cpu")
    for step in (0, 1):  # one process: the same numbers
        a, b = (RunDirectory(tmp_path / run).load_checkpoint(step) for run in ("run", "plain"))
        assert a["model"].keys() == b["model"].keys()
        assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())


def test_what_torch_says_of_synchronised_batch_norm_on_a_cpu(tmp_path):
    """If it learns to, the setting may be allowed there."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    try:
        with pytest.raises(ValueError, match="expected input tensor to be on GPU"):
            nn.SyncBatchNorm(3)(torch.rand(2, 3, 4, 4))
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("nodes", [0, -1, True, "2"])
def test_a_number_of_machines_that_is_none(nodes):
    with pytest.raises(UserError, match="num_nodes is .*: give how many machines"):
        devices.check_devices({"accelerator": "cpu", "num_nodes": nodes})


@pytest.mark.parametrize(
    "given, taken", [({}, 1), ({"devices": 3}, 3), ({"devices": "auto"}, "auto")]
)
def test_one_device_is_used_unless_more_are_asked_for(monkeypatch, given, taken):
    """`sparcl evaluate` took all GPUs of the machine: Fabric's own default."""
    asked = []
    monkeypatch.setattr(devices, "Fabric", lambda **options: asked.append(options["devices"]))
    devices._not_launched("32-true", {"accelerator": "cpu", **given})
    assert asked == [taken]


def test_a_device_that_is_not_there_is_one_line(monkeypatch):
    """`--devices 3,` names the fourth GPU, whose lack Fabric tells with an error of its own."""

    def refuse(**options):
        raise MisconfigurationException("You requested gpu: [3]\n But your machine only has: [0]")

    monkeypatch.setattr(devices, "Fabric", refuse)
    message = "^cannot train with accelerator=cpu, devices=3,: You requested gpu: .3. But your"
    with pytest.raises(UserError, match=message):
        devices._not_launched("32-true", {"accelerator": "cpu", "devices": "3,"})


def test_the_first_of_several_processes_of_slurm_does_not_train_alone(monkeypatch):
    """The others were refused, and it trained the whole run."""
    for name in devices._RANKS:
        monkeypatch.delenv(name, raising=False)
    devices._check_alone()
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    devices._check_alone()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="each would train the whole run"):
        devices._check_alone()


def test_several_machines_need_something_that_starts_them(monkeypatch):
    """Each of them would have written as the first, and waited half an hour for the others."""
    for name in devices._RANKS:
        monkeypatch.delenv(name, raising=False)
    several = {"accelerator": "cpu", "num_nodes": 2}
    with pytest.raises(UserError, match="num_nodes is 2, and .* srun or torchrun"):
        devices.check_devices(several)
    monkeypatch.setenv("SLURM_PROCID", "1")
    devices.check_devices(several)


def test_another_process_finds_the_step_0_that_the_first_one_copied(mini, tmp_path, monkeypatch):
    """With --start-from it was refused there: "already has step 0: add --resume"."""
    for name in ("first", "copied"):
        train(config(mini), tmp_path / name, steps=[0], accelerator="cpu")
    directory = RunDirectory(tmp_path / "copied")
    workspace = runner.open_workspace(config(mini))
    with pytest.raises(UserError, match="already has step 0"):
        runner._check_steps(workspace, directory, None, resume=False)
    monkeypatch.setattr(runner, "is_first_process", lambda: False)
    assert runner._check_steps(workspace, directory, None, resume=False) == [0, 1]


def test_another_process_does_not_wait_for_the_lock_of_the_first(tmp_path, monkeypatch):
    """`sparcl_lib.train(..., devices=2)` without `out` waited for itself."""
    kept = store.RunStore((tmp_path,), lambda *_, **__: {})
    with kept._lock("key"):
        monkeypatch.setattr(store, "is_first_process", lambda: False)
        monkeypatch.setattr(store, "tell", pytest.fail)  # what is said before it waits
        with kept._lock("key"):
            pass


@pytest.mark.slow
def test_two_processes_train_a_run_that_a_store_keeps(mini, tmp_path):
    """The second one goes the same way through the store, and must leave what is there."""
    script = tmp_path / "kept.py"
    script.write_text(
        "import sys, sparcl_lib\n"
        "from sparcl_lib.config import parse_settings\n"
        'if __name__ == "__main__":\n'
        '    sparcl_lib.train("minivoc", "FT", task="6-4", data_root=sys.argv[1], '
        'settings=parse_settings(sys.argv[3:]), store=sys.argv[2], accelerator="cpu", devices=2)\n',
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, script, mini, tmp_path / "store", *QUICK], timeout=PATIENCE,
        env=LONE | {"PYTHONPATH": str(TESTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = {path.name.partition("-")[0]: path for path in (tmp_path / "store").glob("*-*")}
    assert RunDirectory(kept["first"]).steps_done() == [0] and RunDirectory(kept["first"]).config()
    assert RunDirectory(kept["FT"]).metrics()["steps"][-1]["step"] == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_lost_connection_is_one_line_of_the_first_process(monkeypatch, first):
    """Where torchrun or SLURM has started the others; it was a traceback."""
    monkeypatch.setattr(devices, "is_first_process", lambda: first)
    gloo = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection "
                        "closed by peer [127.0.0.1]:1")  # fmt: skip
    for error in (gloo, distributed.DistBackendError("NCCL error"), distributed.DistNetworkError()):
        found = devices._failed_elsewhere(error)
        assert isinstance(found, UserError) and isinstance(found, FailedElsewhere) != first
    assert devices._failed_elsewhere(RuntimeError("a fault of ours")) is None


@pytest.mark.parametrize("variables", [{"SLURM_PROCID": "1"}, {"WORLD_SIZE": "2"}])
def test_a_process_of_several_does_not_train_on_one_device(monkeypatch, variables):
    """Under torchrun without --devices each trained the whole run, into the same folder."""
    monkeypatch.setattr(devices, "is_first_process", lambda: "SLURM_PROCID" not in variables)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for name, value in {"WORLD_SIZE": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="several processes were started"):
        devices.make_fabric(accelerator="cpu", devices=1)


FAILING = """
import os
import sparcl_lib
from sparcl_lib.errors import UserError

@sparcl_lib.term
def failing(context):
    "Fails in the second process."
    if os.environ["RANK"] == "1":
        raise UserError("the disk of the second process is gone")
    return context.output.logits.square().mean()
"""


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_own_line(mini, tmp_path):
    plugin = tmp_path / "failing.py"
    plugin.write_text(FAILING, "utf-8")
    arguments = [
        "train", "--dataset", "minivoc", "--task", "6-4", "--data-root", str(mini), "--method",
        "FT", "--accelerator", "cpu", "--devices", "2", "--out", str(tmp_path / "run"), "--plugin",
        str(plugin), "--set", "method.terms.failing.weight=1", *SET,
    ]  # fmt: skip
    code = (
        "import sys; from pathlib import Path; from watched_run import together; "
        "from sparcl_lib.cli import main; "
        "print(together(lambda: main(sys.argv[2:]), 2, Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "said"), *arguments], timeout=PATIENCE,
        env=LONE | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}, capture_output=True, text=True,
    )  # fmt: skip
    errors = [(tmp_path / f"said-{rank}").read_text("utf-8") for rank in (0, 1)]
    assert done.stdout.splitlines()[-1] == "[2, 2]", (done.stderr, errors)
    ours = [[x for x in text.splitlines() if x.startswith("sparcl:")] for text in errors]
    assert "another process of this training has ended" in ours[0][0] and len(ours[0]) == 1
    assert len(ours[1]) == 1 and ours[1][0].endswith("the disk of the second process is gone")
    assert not any("Traceback" in text for text in errors)


DYING = """
import atexit, os, signal, time
import sparcl_lib
second = os.environ.get("LOCAL_RANK") == "1"
WAY = "{way}"

if WAY == "at the start" and second:
    os.kill(os.getpid(), signal.SIGKILL)
if WAY == "slow end" and not second:
    atexit.register(time.sleep, 7)  # longer than Fabric's own look at its processes

@sparcl_lib.term
def dying(context):
    "Ends the second process as the system does when memory is gone."
    if second:
        os.kill(os.getpid(), signal.SIGKILL)
    if WAY == "in a call":
        time.sleep({patience})  # as in a call of NCCL, which waits for what will never come
    return 0 * context.output.logits.sum()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["slow end", "in a call", "at the start"])
def test_a_process_that_is_killed_ends_the_first_with_a_word(mini, tmp_path, way):
    """Fabric killed it: without a word, or with one but by chance with another status."""
    plugin = tmp_path / "dying.py"
    plugin.write_text(DYING.format(way=way, patience=PATIENCE), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sparcl_lib", "train", "--dataset", "minivoc", "--task", "6-4",
         "--data-root", str(mini), "--method", "FT", "--accelerator", "cpu", "--devices", "2",
         "--out", str(tmp_path / "run"), "--plugin", str(plugin),
         "--set", "method.terms.dying.weight=1", *SET],
        timeout=PATIENCE, env=LONE, capture_output=True, text=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("sparcl: ")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1 and "status -9, perhaps for lack of memory" in said[0]
    assert "Traceback" not in done.stderr


SRUN = """
import os, subprocess, sys
assert sys.argv[1:3] == ["--cpus-per-task=1", "--kill-on-bad-exit=1"], sys.argv
tasks = []
for node in range(int(os.environ["SLURM_NNODES"])):
    numbers = {"SLURM_PROCID": node, "SLURM_NODEID": node, "SLURM_LOCALID": 0}
    env = {**os.environ, **{name: str(value) for name, value in numbers.items()}}
    tasks.append(subprocess.Popen(sys.argv[3:], env=env))
sys.exit(max(task.wait() for task in tasks))
"""
JOB = {
    "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "sparcl", "SLURM_NODELIST": "127.0.0.1",
    "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1",
}  # fmt: skip


@pytest.mark.slow
def test_two_machines_started_by_slurm_and_by_torchrun_train_the_same(tmp_path):
    """On loopback. There is one test image: the second machine has none, and waited for it."""
    data, tools = tmp_path / "minivoc", tmp_path / "bin"
    generate(data, train=IMAGES, val=1, size=32, progress=False)
    tools.mkdir()
    for name, code in (("srun", SRUN), ("sparcl", "from sparcl_lib.cli import main\nmain()")):
        (tools / name).write_text(f"#!{sys.executable}\n{code}", "utf-8")
        (tools / name).chmod(0o755)
    base = [
        "--dataset", "minivoc", "--task", "6-4", "--data-root", str(data), "--method", "SDR",
        "--accelerator", "cpu", *SET,
    ]  # fmt: skip
    script = str(TESTS.parent / "docs" / "train.slurm")
    job = LONE | JOB | {
        "PATH": f"{tools}:{os.environ['PATH']}", "MASTER_PORT": free_port(), "BATCH": "4",
    }  # fmt: skip
    slurm, torchrun = tmp_path / "slurm", tmp_path / "torchrun"
    runs = [([["bash", script, *base, "--out", str(slurm)]], job)]
    agent = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--master-addr", "127.0.0.1", "--master-port", free_port(), "--node-rank",
    ]  # fmt: skip
    command = ["-m", "sparcl_lib", "train", *base, "--num-nodes", "2", "--out", str(torchrun)]
    runs.append(([[*agent, rank, *command] for rank in "01"], LONE))
    for commands, env in runs:
        both = [
            subprocess.Popen(
                c, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) for c in commands
        ]  # fmt: skip
        try:
            said = [process.communicate(timeout=PATIENCE) for process in both]
        finally:
            for process in both:
                process.kill()
        assert not any(process.returncode for process in both), said
        assert not any("Warning: The ``compute``" in errors for _, errors in said)
        printed = "".join(output for output, _ in said)
        assert printed.count("minivoc 6-4 disjoint SDR seed 0") == 1
    for step in (0, 1):
        a, b = (RunDirectory(run).load_checkpoint(step) for run in (slurm, torchrun))
        assert a["devices"] == b["devices"] == 2
        assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
        assert torch.equal(a["confusion"], b["confusion"]) and a["confusion"].any()


TASK = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.slow
def test_machines_that_were_started_otherwise_do_not_begin(mini, tmp_path):
    """They trained a step together, with two rates, and `--resume` took it for one of the first."""
    out, port = tmp_path / "run", free_port()
    base = ["--dataset", "minivoc", "--task", "6-4", "--data-root", str(mini), "--method", "FT"]
    base += ["--accelerator", "cpu", "--num-nodes", "2", "--out", str(out), *SET]
    machines = []
    for rank, rate in enumerate(("[0.05,0.02]", "[0.05,0.5]")):
        here = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "MASTER_PORT": port}
        command = [sys.executable, "-m", "sparcl_lib", "train", *base, "--set", f"optim.lr={rate}"]
        machines.append(
            subprocess.Popen(
                command, env=LONE | JOB | TASK | here, text=True, stderr=subprocess.PIPE
            )
        )
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in machines]
    finally:
        for process in machines:
            process.kill()
    assert [process.returncode for process in machines] == [2, 2], said
    assert (
        "process 1 was not started as the first one: optim.lr=[0.05, 0.5], not [0.05, 0.02]; start"
    ) in said[0]
    assert not list(out.glob("step-*"))


PLUGIN = """from sparcl_lib import term

@term
def mine(context):
    return 0 * context.output.logits.sum()
"""


def test_what_no_setting_says_may_differ_too(mini, tmp_path, monkeypatch):
    plugin, weight = tmp_path / "mine.py", "method.terms.mine.weight=1"
    plugin.write_text(PLUGIN, "utf-8")
    load_plugins([plugin])
    here = _parts(open_workspace(config(mini, weight), progress=False), resume=False)
    assert _differing_part(here, here) is None

    other = tmp_path / "minivoc"
    generate(other, train=IMAGES + 30, val=7, size=32, progress=False)
    elsewhere = _parts(open_workspace(config(other, weight), progress=False), resume=False)
    assert _differing_part(here, elsewhere)
    lists = dict(here)
    lists["its images to {} are others"] = elsewhere["its images to {} are others"]
    assert _differing_part(here, lists).endswith(" on are others")
    resumed = _parts(open_workspace(config(mini, weight), progress=False), resume=True)
    assert _differing_part(here, resumed) == "it was started with another --resume"
    plugin.write_bytes(f"# -*- coding: latin-1 -*-\n{PLUGIN}# \u00e4\n".encode("latin-1"))
    edited = _parts(open_workspace(config(mini, weight), progress=False), resume=False)
    assert _differing_part(here, edited) == "its file with the term mine says something else"
    monkeypatch.setattr(alike, "training_code_digest", lambda: "another")
    coded = _parts(open_workspace(config(mini, weight), progress=False), resume=False)
    assert _differing_part(here, coded) == "its code of the library is another"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_waits_for_another_machine_says_so_and_can_be_stopped(mini, tmp_path, number):
    """It heard nothing for half an hour: it waits in C++."""
    here = {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "MASTER_PORT": (port := free_port())}
    command = [
        sys.executable, "-m", "sparcl_lib", "train", "--dataset", "minivoc", "--task", "6-4",
        "--data-root", str(mini), "--method", "FT", "--accelerator", "cpu", "--num-nodes", "2",
        "--out", str(tmp_path / "run"), *SET,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=LONE | JOB | TASK | here, text=True, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    late = threading.Timer(PATIENCE, process.kill)
    late.start()
    try:
        line = next((line for line in process.stderr if "waits for the others" in line), "")
        assert f"sparcl: process 0 waits for the others at 127.0.0.1:{port}: is each of" in line
        process.send_signal(number)
        assert process.wait(timeout=10) == -number
    finally:
        late.cancel()
        process.kill()
        process.communicate()


def test_tasks_that_slurm_gave_for_something_else_do_not_hinder_one_device(monkeypatch):
    """`#SBATCH --ntasks=8` for `sparcl compare --jobs 8`: Lightning refused to train at all."""
    job = {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric(accelerator="cpu")
    assert fabric.world_size == 1 and fabric.is_global_zero


def test_a_job_says_that_its_batch_cannot_be_divided(tmp_path):
    script, env = TESTS.parent / "docs" / "train.slurm", LONE | JOB | {"BATCH": "3"}
    done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "BATCH=3 is no multiple of the 2 processes\n"
