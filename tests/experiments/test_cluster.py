"""Runs on a cluster of loopback: the same tables as the pool's, whoever is killed in the middle."""

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import pandas as pd
import pytest
from conftest import PATIENCE, sparcl

from sparcl_lib.config import parse_settings
from sparcl_lib.course import runs
from sparcl_lib.data import minivoc
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.cluster import CLUSTER_VARIABLE, bring_home, open_cluster
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.space import Range
from sparcl_lib.experiments.store import RunKeys, run_keys
from sparcl_lib.experiments.sweep import Sweep, sweep
from sparcl_lib.experiments.worker import Job, _check_keys, _check_worker, _scratch, read_files
from sparcl_lib.methods import TERMS
from sparcl_lib.models import BACKBONES
from sparcl_lib.plain import nest
from sparcl_lib.plugins import load_plugins
from sparcl_lib.revision import trained_by
from sparcl_lib.training.run_directory import RunDirectory

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed: dask")

ROOT = Path(__file__).parents[2]

QUICK = ("optim.iterations=2", "data.size=32", "data.batch_size=4", "tensorboard=false")


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test defines goes with it: another one would hear that it takes no part."""
    with patch.dict(TERMS), patch.dict(BACKBONES):
        yield


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A scheduler and a worker in this process."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
        protocol="inproc://", local_directory=tmp_path_factory.mktemp("machine") / "dask",
    ) as started:  # fmt: skip
        yield started.scheduler_address


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> RunBase:
    data = tmp_path_factory.mktemp("minivoc") / "data"
    minivoc.generate(data, train=60, val=12, size=32, progress=False)
    settings = (parse_settings(QUICK),)
    return RunBase(dataset="minivoc", task="6-4", data_root=str(data), overrides=settings)


def scratch_of(cluster) -> Path:
    return cluster.client.submit(lambda: _scratch(distributed.get_worker()), pure=False).result()


def test_runs_of_a_worker_are_those_of_here(address, base, tmp_path, capsys):
    """The second store has step 0 and the worker does not; of a run nothing is left there."""
    configs = [base.config("FT", 0), base.config("MiB", 0)]
    here, errors = run_all(configs, open_store(tmp_path / "here"), jobs=1)
    stores = [tmp_path / "there", tmp_path / "first"]
    first = run_keys(configs[0]).first
    shutil.copytree(tmp_path / "here" / first, stores[1] / first)
    for folder in stores:
        with open_cluster(address) as cluster:
            there, more = run_all(configs, open_store(folder, cluster=cluster))
            scratch = scratch_of(cluster)
            shutil.rmtree(scratch / first)
        assert errors == more == [] and list(scratch.glob("*-*")) == []
        for one, other in zip(here, there):
            assert one.metrics["steps"] == other.metrics["steps"]
            assert other.complete(checkpoints=True) and other.log(1).equals(one.log(1))
            assert read_files(one.folder).keys() == read_files(other.folder).keys()
            state = other.model().state_dict()
            assert all(v.equal(state[name]) for name, v in one.model().state_dict().items())
            assert other.directory.content() == one.directory.content()
            assert other.directory._record_folder() == str(other.folder)
    said = capsys.readouterr().err
    assert "workers so far: 1; dashboard: http://" in said and "2/2" in said


def test_a_worker_goes_on_with_what_there_is_of_a_run(address, base, tmp_path):
    config = dataclasses.replace(base, task="6-2").config("FT", 1)
    keys = run_keys(config)
    store = open_store(tmp_path / "runs")
    first = store.train_first(config, keys)
    store.fit(config, tmp_path / "runs" / keys.run, steps=[0, 1], start_from=first)
    done = RunDirectory(tmp_path / "runs" / keys.run).checkpoint_file(1).read_bytes()
    with open_cluster(address) as cluster:
        (run,), errors = run_all([config], open_store(tmp_path / "runs", cluster=cluster))
    assert errors == [] and run.steps == [0, 1, 2]
    assert run.directory.checkpoint_file(1).read_bytes() == done


def test_the_runs_of_a_notebook_go_to_the_cluster_that_is_named(
    address, base, tmp_path, monkeypatch
):
    def here(*_: object, **__: object) -> None:
        raise AssertionError("trained in the notebook")

    monkeypatch.setattr(runs, "train", here)
    monkeypatch.setenv(runs.CACHE_VARIABLE, str(tmp_path / "kept"))
    configs = {name: base.config(name, 0) for name in ("FT", "MiB")}
    with pytest.raises(AssertionError, match="trained in the notebook"):
        runs.run_or_load(configs["FT"])
    monkeypatch.setenv(CLUSTER_VARIABLE, address)
    found = runs.run_or_load_all(configs, checkpoints=configs)
    assert {name: run.steps for name, run in found.items()} == {"FT": [0, 1], "MiB": [0, 1]}
    assert all(run.folder.is_relative_to(tmp_path / "kept") for run in found.values())


def test_a_sweep_claims_here_and_trains_there(address, base, tmp_path):
    space = {"optim.lr": Range(low=0.01, high=0.1, log=True)}
    tables = []
    for name in ("here", "there"):
        plan = Sweep(base, {"FT": space}, 3, [7], tmp_path / f"{name}.journal")
        with open_cluster(address if name == "there" else None) as cluster:
            tables.append(sweep(plan, open_store(tmp_path / name, cluster=cluster), jobs=1))
    here, there = (table.drop(columns="seconds") for table in tables)
    pd.testing.assert_frame_equal(here, there)


def test_what_a_file_defines_travels_and_a_failure_is_one_line(address, base, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import sparcl_lib\n"
        "@sparcl_lib.term\n"
        "def pull_to_zero(context):\n"
        "    return context.output.logits.square().mean()\n"
        "from sparcl_lib.models.backbones import Backbone, mini\n"
        "@sparcl_lib.backbone(strides=(4,))\n"
        "def mine(output_stride, weights):\n"
        "    return Backbone([mini(output_stride, weights)], dim=64, stride=4)\n",
        "utf-8",
    )
    load_plugins([plugin])
    own = {"method.terms.pull_to_zero.weight": 0.1, "model.backbone": "mine"}
    configs = [base.config("FT", 0, nest(own)), base.config("FT", 0, {"optim": {"lr": 1e30}})]
    with open_cluster(address) as cluster:
        runs, errors = run_all(configs, open_store(tmp_path / "there", cluster=cluster))
        (sent,) = scratch_of(cluster).glob("plugins/*/mine.py")
    assert sent.read_bytes() == plugin.read_bytes()
    (kept,), _ = run_all(configs[:1], open_store(tmp_path / "here"), jobs=1)
    assert runs[0].metrics["steps"] == kept.metrics["steps"] and runs[1] is None
    (error,) = errors
    assert "\n" not in error and "loss" in error


STOPPED = threading.Event()


def interrupt(job: Job) -> None:
    """What the worker does in the next test, in a thread of this process: Ctrl-C, and no end."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    STOPPED.wait(PATIENCE)


def test_an_interrupt_leaves_nothing_waiting(address, base, tmp_path, monkeypatch):
    monkeypatch.setattr("sparcl_lib.experiments.cluster.train_job", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup has it ignored
    try:
        _interrupt_a_run(address, base, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_a_run(address, base, tmp_path):
    with open_cluster(address) as cluster:
        store = open_store(tmp_path / "runs", cluster=cluster)
        with pytest.raises(KeyboardInterrupt):
            run_all([base.config("FT", 0)], store)
        STOPPED.set()
        assert cluster._futures == set() and not list((tmp_path / "runs").glob("first-*"))


def test_what_came_home_damaged_is_refused_and_leaves_nothing(base, tmp_path):
    config = base.config("FT", 0)
    files = read_files(open_store(tmp_path / "here").train_first(config, run_keys(config)))
    name = "step-0/checkpoint.pt"
    damaged = bytearray(files[name])
    damaged[len(damaged) // 2] ^= 1
    for changed in ({name: bytes(damaged)}, {"metrics.json": files["metrics.json"][:-9] + b"}"}):
        with pytest.raises(UserError, match=r"^what a worker sent as run is not whole: "):
            bring_home({**files, **changed}, tmp_path / "there" / "run", config)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("threads", "loaders", "daemon", "line"),
    [(4, 0, False, "4 threads"), (1, 2, True, "--no-nanny"), (1, 0, True, ""), (1, 2, False, "")],
)
def test_a_worker_that_cannot_do_the_job_says_how_to_start_it(
    base, monkeypatch, threads, loaders, daemon, line
):
    worker = SimpleNamespace(name="one", state=SimpleNamespace(nthreads=threads))
    process = SimpleNamespace(daemon=daemon)
    monkeypatch.setattr("multiprocessing.current_process", lambda: process)
    job = Job(base.config("FT", 0, {"data": {"workers": loaders}}), "first", "run", {}, {})
    with pytest.raises(UserError, match=line) if line else nullcontext():
        _check_worker(worker, job)


def test_a_worker_with_other_code_or_data_refuses_the_job(base):
    worker, keys = SimpleNamespace(name="one"), RunKeys("run", "first")
    config = base.config("FT", 0)
    _check_keys(worker, Job(config, "first", "run", {}, {}), keys)
    _check_keys(worker, Job(config, "first", None, {}, {}), keys)
    other = Job(config, "other", "run", {}, {"revision": 0})
    with pytest.raises(UserError, match=r"worker one trains with another sparcl_lib .*\(0\)"):
        _check_keys(worker, other, keys)
    with pytest.raises(UserError, match="worker one has other data than this machine"):
        _check_keys(worker, other._replace(code=trained_by()), keys)


def test_no_scheduler_and_wrong_files_are_one_line(base, tmp_path, monkeypatch):
    monkeypatch.setattr("sparcl_lib.experiments.cluster._REACHED_WITHIN", "0.2s")
    file = tmp_path / "slurm.yaml"
    lines = {
        "workers: 2": "names no system",
        "system: slum\nworkers: 2": "unknown system 'slum'",
        "system: slurm\nworkers: none": "workers is a number from 1 to",
        "system: slurm\nworkers: 2": "there is no sbatch here",
    }
    where = {"tcp://127.0.0.1:9": "no scheduler answers at tcp://127.0.0.1:9", "nowhere": "nowhere"}
    monkeypatch.setenv("PATH", "")
    for named, line in [*where.items(), *((file, line) for line in lines.values())]:
        text = next((text for text, said in lines.items() if said == line), "")
        file.write_text(text, "utf-8")
        with pytest.raises(UserError, match=line) as raised, open_cluster(named) as cluster:
            run_all([base.config("FT", 0)], open_store(tmp_path / "runs", cluster=cluster))
        assert "\n" not in str(raised.value)


def test_a_setting_of_jobs_that_nobody_knows_is_named_alone(tmp_path):
    """dask-jobqueue lists all its arguments behind it."""
    file, commands = tmp_path / "slurm.yaml", tmp_path / "bin"
    commands.mkdir()
    (commands / "sbatch").write_text("#!/bin/sh\n", "utf-8")
    (commands / "sbatch").chmod(0o755)
    file.write_text("system: slurm\nworkers: 2\nmemory: 1GB\nwalltim: '1:00'\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sparcl_lib", "compare", "--dataset", "minivoc", "--tasks", "6-4",
         "--methods", "FT", "--out", str(tmp_path / "out"), "--cluster", str(file)],
        env=os.environ | {"PATH": str(commands)}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    refused = "dask-jobqueue refuses it: Got unexpected keyword argument 'walltim'"
    assert (done.returncode, done.stderr) == (2, f"sparcl: {file}: {refused}\n")


def test_that_no_worker_comes_is_said_once(base, tmp_path, monkeypatch):
    """The bar stood still without a word. A worker comes here when that is said."""
    monkeypatch.setattr("sparcl_lib.experiments.cluster._ALONE", 0.2)
    monkeypatch.setattr("sparcl_lib.experiments.cluster._POLL", 0.05)
    said: list[str] = []
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None,
        protocol="inproc://", local_directory=tmp_path / "dask",
    ) as started:  # fmt: skip
        monkeypatch.setattr(
            "sparcl_lib.experiments.cluster.tell",
            lambda line: (said.append(line), started.scale(1)),
        )
        with open_cluster(started.scheduler_address) as cluster:
            store = open_store(tmp_path / "runs", cluster=cluster)
            runs, errors = run_all([base.config("FT", seed) for seed in (0, 1)], store)
    assert errors == [] and len(runs) == 2
    assert said == ["sparcl: no worker for 0 s: its scheduler has none: start one"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "http://127.0.0.1:8787"])
def test_a_mistyped_address_is_one_line_of_the_command_and_of_a_notebook(address, tmp_path):
    """A client that reached nobody waited 40 s for its end, and said so in a traceback."""
    command = ["compare", "--dataset", "minivoc", "--tasks", "6-4", "--methods", "FT", "--seeds",
               "0", "--out", str(tmp_path / "out"), "--cluster", address]  # fmt: skip
    code = (
        "import asyncio, sys; from sparcl_lib.cli.program import run\n"
        "async def cell(): return run(sys.argv[1:])\n"
        "sys.exit(asyncio.run(cell()))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True,
                          timeout=PATIENCE)  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"sparcl: no scheduler answers at {address}")


def test_what_answers_in_http_is_no_scheduler(base, tmp_path, monkeypatch):
    """The eight bytes "HTTP/1.1" are the length of 3 EiB to dask."""
    monkeypatch.setattr("sparcl_lib.experiments.cluster._REACHED_WITHIN", "2s")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):  # closed
                while True:
                    peer, _ = server.accept()
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    peers.append(peer)

        peers: list[socket.socket] = []
        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError) as raised, open_cluster(address) as cluster:
            run_all([base.config("FT", 0)], open_store(tmp_path / "runs", cluster=cluster))
        assert peers and str(raised.value).startswith(f"no scheduler answers at {address}")
        server.shutdown(socket.SHUT_RDWR)
        for peer in peers:
            peer.close()
    assert "\n" not in str(raised.value)


def test_ctrl_c_stays_what_it_is(tmp_path, monkeypatch):
    """dask-jobqueue takes it as it is imported, and would end the command in status 0."""
    file = tmp_path / "slurm.yaml"
    file.write_text("system: slurm\nworkers: 2", "utf-8")
    for name in [name for name in sys.modules if name.startswith("dask_jobqueue")]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.getsignal(signal.SIGINT)
    with open_cluster(file):
        assert "dask_jobqueue.runner" in sys.modules
        assert signal.getsignal(signal.SIGINT) is before


def test_jobs_and_a_cluster_exclude_each_other(capsys, tmp_path):
    command = "compare --dataset minivoc --tasks 6-4 --methods FT --jobs 2 --cluster tcp://x:1"
    status, _, errors = sparcl(capsys, *command.split(), "--out", tmp_path / "out")
    assert status == 2 and errors == "sparcl: --jobs counts processes of this machine: leave it " \
        "out beside --cluster"  # fmt: skip


class Cluster:
    """A scheduler, and workers that know nothing but their own folder and the network."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, {}
        minivoc.generate(folder / "data", train=60, val=12, size=32, progress=False)
        file = folder / "scheduler.json"
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0",
                    "--no-dashboard", "--scheduler-file", str(file))  # fmt: skip
        wait_until(lambda: file.exists() and b"tcp" in file.read_bytes())
        self.address = f"tcp://{file.read_text('utf-8').split('tcp://')[1].split(chr(34))[0]}"

    def start_worker(self, name: str) -> None:
        """A worker whose data, cache and scratch are in a folder of its own."""
        self._start(name, "worker", self.address, "--name", name, "--nthreads", "1", "--no-nanny",
                    "--no-dashboard", "--memory-limit", "0", "--local-directory", "scratch",
                    "--death-timeout", "60")  # fmt: skip

    def home(self, name: str) -> dict[str, str]:
        """A machine's folder with its copy of the data, as environment variables."""
        place = self.folder / name
        if not place.exists():
            shutil.copytree(self.folder / "data", place / "data" / "sparcl" / "minivoc")
        return os.environ | {
            "XDG_DATA_HOME": str(place / "data"),
            "XDG_CACHE_HOME": str(place / "cache"),
            "PYTHONPATH": str(ROOT),
        }

    def _start(self, name: str, *command: str) -> None:
        environment = self.home(name)
        with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command], cwd=self.folder / name,
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    here = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield here
    finally:
        for name in list(here.running):
            here.kill(name)


def wait_until(holds) -> None:
    for _ in range(10 * PATIENCE):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


SETTINGS = ("optim.iterations=5", *QUICK[1:])
COMPARE = [
    "compare", "--dataset", "minivoc", "--tasks", "6-4", "--setups", "disjoint,overlapped",
    "--methods", "FT,MiB,SDR", "--seeds", "0,1", *(p for s in SETTINGS for p in ("--set", s)),
]  # fmt: skip


def start_client(cluster: Cluster, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sparcl_lib", *COMPARE, "--out", str(out), *options]
    return subprocess.Popen(
        command, env=cluster.home("client"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def at_home(out: Path) -> dict[str, int]:
    """Run -> when its numbers were written."""
    files = (out / "runs").glob("*-*/metrics.json")
    return {f.parent.name: f.stat().st_mtime_ns for f in files if "first" not in f.parent.name}


@pytest.mark.slow
def test_twelve_runs_are_those_of_the_pool_whoever_is_killed(cluster, tmp_path):
    for number in range(4):
        cluster.start_worker(f"worker{number}")
    client = start_client(cluster, tmp_path / "far", "--cluster", cluster.address)
    wait_until(lambda: len(at_home(tmp_path / "far")) >= 1 or client.poll() is not None)
    cluster.kill("worker0")
    wait_until(lambda: len(at_home(tmp_path / "far")) >= 4 or client.poll() is not None)
    assert client.poll() is None, client.stderr.read()
    client.kill()
    client.communicate()
    before = at_home(tmp_path / "far")
    assert len(before) < 12
    cluster.start_worker("worker0")
    again = start_client(cluster, tmp_path / "far", "--cluster", cluster.address)
    _, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert "dashboard: http://" in errors
    after = at_home(tmp_path / "far")
    assert len(after) == 12 and {name: after[name] for name in before} == before
    here = start_client(cluster, tmp_path / "near", "--jobs", "2")
    _, errors = here.communicate(timeout=PATIENCE)
    assert here.returncode == 0, errors
    far, near = (pd.read_csv(tmp_path / name / "results.csv") for name in ("far", "near"))
    pd.testing.assert_frame_equal(far.drop(columns="seconds"), near.drop(columns="seconds"))
    assert len(far) == 24


class Queue(NamedTuple):
    """A queueing system, as far as a stand-in for it goes."""

    hand_in: str
    """Its command for a job, which is a file or comes in on standard input."""
    end: str
    says: str
    """What it says of a job, whose number is $!."""
    options: str
    """Of the file for `--cluster`: four cores, a GPU, two GB, an hour."""
    header: tuple[str, ...]
    """What a job's file must say then."""


QUEUES = {
    "slurm": Queue(
        "sbatch", "scancel", "Submitted batch job $!",
        "job_cpu: 4\nmemory: 2GB\nwalltime: '1:00:00'\njob_extra_directives: ['--gpus=1']\n",
        ("#SBATCH --cpus-per-task=4", "#SBATCH --gpus=1", "#SBATCH -t 1:00:00"),
    ),
    "pbs": Queue(
        "qsub", "qdel", "$!.head",
        "memory: 2GB\nwalltime: '1:00:00'\nresource_spec: 'select=1:ncpus=4:ngpus=1:mem=2gb'\n",
        ("#PBS -l select=1:ncpus=4:ngpus=1:mem=2gb", "#PBS -l walltime=1:00:00"),
    ),
    "lsf": Queue(
        "bsub", "bkill", "Job <$!> is submitted to queue <normal>.",
        "ncpus: 4\nmemory: 2GB\nwalltime: '1:00'\njob_extra_directives: ['-gpu num=1']\n",
        ("#BSUB -n 4", "#BSUB -gpu num=1", "#BSUB -W 1:00"),
    ),
}  # fmt: skip
HAND_IN = """#!/bin/sh
last="$(dirname "$0")/last.sh"; cat "$@" > "$last"
script=$(mktemp); cp "$last" "$script"
setsid sh "$script" > "$script.log" 2>&1 &
echo "{says}"
"""
# As SLURM does it: SIGTERM, and SIGKILL some seconds later for what is still there, as a worker of
# dask may be that was stopped in the middle of its own end.
END = """#!/bin/sh
echo "$1" > "$(dirname "$0")/ended"
kill -- "-$1"
setsid sh -c "sleep 5; kill -s KILL -- -$1" > /dev/null 2>&1 &
"""


def is_running(group: int) -> bool:
    """Whether a process of this group is alive; a dead one may wait for somebody to ask for it."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, its_group = file.read_text("utf-8").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def add_commands(queue: Queue, folder: Path) -> Path:
    """A folder with stand-ins, which run a job on this machine at once."""
    commands = folder / "bin"
    commands.mkdir()
    for name, text in ((queue.hand_in, HAND_IN.format(says=queue.says)), (queue.end, END)):
        (commands / name).write_text(text, "utf-8")
        (commands / name).chmod(0o755)
    return commands


def ask_for(monkeypatch, commands: Path, system: str, workers: int) -> Path:
    """The file for `--cluster`, which hands jobs in by these commands."""
    folder = commands.parent
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(folder))
    file = folder / "jobs.yaml"
    file.write_text(
        f"system: {system}\nworkers: {workers}\n{QUEUES[system].options}"
        "scheduler_options: {host: 127.0.0.1, dashboard_address: ':0'}\n"
        f"local_directory: {folder / 'scratch'}\n",
        "utf-8",
    )
    return file


@pytest.mark.slow
def test_a_job_that_ignores_sigterm_is_killed(tmp_path):
    commands, job = add_commands(QUEUES["slurm"], tmp_path), tmp_path / "job.sh"
    begun = tmp_path / "begun"
    job.write_text(f"trap '' TERM\ntouch {begun}\nsleep 1000\n", "utf-8")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    answer = subprocess.check_output([commands / "sbatch", job], env=environment, text=True)
    group = int(answer.split()[-1])
    wait_until(begun.exists)
    subprocess.run([commands / "scancel", str(group)], check=True)
    wait_until(lambda: not is_running(group))


@pytest.mark.slow
def test_a_job_that_is_refused_is_one_line(base, tmp_path, monkeypatch, capfd):
    """dask wrote a traceback, and the command waited for a worker for ever."""
    commands = add_commands(QUEUES["slurm"], tmp_path)
    (commands / "sbatch").write_text("#!/bin/sh\necho 'no such partition' >&2\nexit 1\n", "utf-8")
    file = ask_for(monkeypatch, commands, "slurm", workers=2)
    with open_cluster(file) as cluster, pytest.raises(UserError) as refusal:
        run_all([base.config("FT", 0)], open_store(tmp_path / "runs", cluster=cluster))
    assert str(refusal.value) == "sbatch refuses the job: no such partition"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_where_a_job_of_several_is_refused_the_others_train(base, tmp_path, monkeypatch, capfd):
    """As by a limit of jobs for each user: what was taken is no worse for it."""
    commands = add_commands(QUEUES["slurm"], tmp_path)
    (commands / "sbatch").rename(commands / "take")
    (commands / "sbatch").write_text(
        f"#!/bin/sh\nmkdir {tmp_path}/taken 2>/dev/null && exec {commands}/take \"$@\"\n"
        "echo 'too many jobs' >&2\nexit 1\n", "utf-8",
    )  # fmt: skip
    (commands / "sbatch").chmod(0o755)
    file = ask_for(monkeypatch, commands, "slurm", workers=2)
    with open_cluster(file) as cluster:
        store = open_store(tmp_path / "runs", cluster=cluster)
        runs, errors = run_all([base.config("FT", seed) for seed in (0, 1)], store)
    assert errors == [] and all(run.complete(checkpoints=True) for run in runs)
    said = capfd.readouterr().err
    line = "sparcl: sbatch refuses the job: too many jobs; goes on with the 1 job that it took"
    assert said.count(line) == 1 and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("system", QUEUES)
def test_jobs_are_handed_in_and_ended(base, tmp_path, monkeypatch, system):
    queue = QUEUES[system]
    commands = add_commands(queue, tmp_path)
    file = ask_for(monkeypatch, commands, system, workers=3)
    with open_cluster(file) as cluster:
        store = open_store(tmp_path / "runs", cluster=cluster)
        (run,), errors = run_all([base.config("FT", 0)], store)
        assert len(cluster._jobs.worker_spec) == 1, "as many as there are runs"
    assert errors == [] and run.complete(checkpoints=True)
    script = (commands / "last.sh").read_text("utf-8")
    for line in (*queue.header, "--nthreads 1", "--no-nanny", "--memory-limit 0"):
        assert line in script
    job = int((commands / "ended").read_text("utf-8"))
    wait_until(lambda: not is_running(job))
