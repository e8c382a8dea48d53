"""`sparcl` as a user meets it: what it prints, and one line with status 2 for every mistake."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
import yaml
from conftest import make_voc_tree, save_mask, sparcl
from PIL import Image

from sparcl_lib.cli import main
from sparcl_lib.cli.options import given, numbers
from sparcl_lib.cli.program import app
from sparcl_lib.course import copies, lab
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import UserError
from sparcl_lib.methods import METHODS
from sparcl_lib.plain import flatten
from sparcl_lib.tasks import MINIVOC_CLASSES

LONG = "a" * 300
QUICK = ["--set", "optim.iterations=2", "--set", "data.batch_size=4"]
# What Fabric's launcher would take for a process group that is already there.
LONE = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
# Two classes learned first, then one; classes by VOC's raw ids.
COMMANDS = [
    *[
        "",
        "demo",
        "train",
        "predict",
        "export",
        "recipes",
        "reproduce",
        "evaluate",
        "report",
        "split",
        "env",
        "methods",
        "settings",
        "ablate",
        "sweep",
        "compare",
        "data",
    ]
]
COMMANDS += ["data check"]
TASK = "steps: [[aeroplane, bicycle], [bird]]\n"
MASKS = {f"a{i}": {0, 1 + i % 3, 255} for i in range(9)}


@pytest.fixture(scope="session")
def mini(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mini") / "minivoc"
    generate(root, train=80, val=16, progress=False)
    return root


@pytest.fixture
def train_mini(mini, tmp_path, capsys):
    def run(*arguments: object, out: Path = tmp_path / "run", method: str = "MiB"):
        base = ["--dataset", "minivoc", "--data-root", mini, "--task", "6-4", "--method", method]
        return sparcl(capsys, "train", *base, "--out", out, *QUICK, *arguments)

    return run


@pytest.fixture
def voc(tmp_path) -> Path:
    """A devkit tree of nine 40 x 30 photographs, and a task file beside it."""
    (tmp_path / "task.yaml").write_text(TASK, "utf-8")
    masks = {name: _mask(values) for name, values in MASKS.items()}
    make_voc_tree(tmp_path / "voc", masks, val=["a0", "a1", "a2"])
    return tmp_path / "voc"


def _mask(values: set[int]) -> np.ndarray:
    mask = np.zeros((30, 40), dtype=np.uint8)
    for i, value in enumerate(sorted(values)):
        mask[10 * i : 10 * i + 10] = value
    return mask


@pytest.fixture
def train_voc(voc, tmp_path, capsys):
    def run(*arguments: object):
        base = ["--dataset", "voc", "--data-root", voc, "--task", tmp_path / "task.yaml"]
        small = ["--set", "model.backbone=mini", "--set", "model.output_stride=4"]
        small += ["--set", "model.head=conv", "--set", "data.size=32", "--set", "data.workers=0"]
        small += ["--backbone-weights", "none", "--method", "FT", "--out", tmp_path / "run"]
        return sparcl(capsys, "train", *base, *small, *QUICK, *arguments)

    return run


def test_help_and_docs_name_every_method():
    page = (Path(__file__).parents[2] / "docs" / "using.md").read_text("utf-8")
    command = typer.main.get_command(app).commands["train"]
    shown = next(option.help for option in command.params if option.name == "method")
    assert shown == f"One of {', '.join(METHODS)}."
    assert all(re.search(rf"[` ]{re.escape(name)}[` ]", page) for name in METHODS)


def test_help_is_shown_whole():
    """What stands in square brackets is taken for markup, and left out."""
    waiting, seen = [typer.main.get_command(app)], 0
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        texts = [command.help, *(getattr(option, "help", None) for option in command.params)]
        seen += len(texts)
        assert not [text for text in texts if "[" in (text or "")], command.name
    assert seen > 100


def test_train_then_evaluate_then_report(train_mini, tmp_path, capsys):
    status, out, errors = train_mini()
    assert (status, errors) == (0, "")
    assert out.splitlines()[-1].split()[0] == "1"
    run = tmp_path / "run"
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert [s["step"] for s in metrics["steps"]] == [0, 1]
    assert metrics["steps"][0]["miou_old"] is None
    assert set(metrics["steps"][1]["class_iou"]) >= {"background", "disc", "moon"}
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    for step in ("step-0", "step-1"):
        assert {f"{step}/checkpoint.pt", f"{step}/predictions.npz"} <= names
        assert f"logs/{step}/metrics.csv" in names
        assert any(n.startswith(f"logs/{step}/events.out") for n in names)
    before = (run / "metrics.json").read_text("utf-8")
    (run / "metrics.json").unlink()
    assert sparcl(capsys, "evaluate", run)[0] == 0
    assert (run / "metrics.json").read_text("utf-8") == before
    assert "MiB" in sparcl(capsys, "report", run)[1]
    assert sparcl(capsys, "report", run, "--format", "html", "--out", tmp_path / "r.html")[0] == 0
    assert "<html" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize("method", ["MiB", "PLOP", "EWC", "RW", "PI", "SSUL-like", "MiB+EWF"])
def test_step_by_step_and_resumed_equal_one_run(train_mini, tmp_path, method):
    for out, steps in (("whole", "all"), ("parts", "0"), ("parts", "1")):
        assert train_mini("--steps", steps, out=tmp_path / out, method=method)[0] == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "step-1")
    assert train_mini("--resume", out=tmp_path / "resumed", method=method)[0] == 0
    weights = {
        name: torch.load(tmp_path / name / "step-1" / "checkpoint.pt", weights_only=True)
        for name in ("whole", "parts", "resumed")
    }
    for other in ("parts", "resumed"):
        for part in ("model", "bank"):
            for key, value in weights["whole"][part].items():
                assert torch.equal(value, weights[other][part][key]), (other, part, key)
        states = [flatten(weights[name]["mechanisms"]) for name in ("whole", other)]
        assert states[0].keys() == states[1].keys()
        assert all(map(torch.equal, states[0].values(), states[1].values()))


def step_0(run: Path) -> dict:
    return torch.load(run / "step-0" / "checkpoint.pt", weights_only=True)


def test_step_0_of_a_regulariser_is_that_of_ft_and_its_importances(train_mini, tmp_path):
    ft, ewc = tmp_path / "ft", tmp_path / "ewc"
    assert train_mini("--steps", "0", method="FT", out=ft)[0] == 0
    assert train_mini("--steps", "0", method="EWC", out=ewc)[0] == 0
    plain, observed = step_0(ft), step_0(ewc)
    assert all(torch.equal(v, observed["model"][k]) for k, v in plain["model"].items())
    assert plain["mechanisms"] == {}
    assert set(observed["mechanisms"]["regulariser"]) == {"fisher"}
    status, _, errors = train_mini("--start-from", ewc, method="FT", out=tmp_path / "a")
    assert status == 2 and "differs in method.regulariser.name (ewc there, None here)" in errors
    status, _, errors = train_mini("--start-from", ft, method="EWC", out=tmp_path / "b")
    assert status == 2 and "differs in method.regulariser.name (None there, ewc here)" in errors
    torch.save({**observed, "mechanisms": {}}, ewc / "step-0" / "checkpoint.pt")
    status, _, errors = train_mini("--steps", "1", method="EWC", out=ewc)
    assert (
        status == 2
        and "step 0 knows no importances of ewc: train it with this method too" in errors
    )


def test_a_regulariser_cannot_read_scaled_gradients(train_mini):
    status, _, errors = train_mini("--set", "precision=16-mixed", method="PI")
    assert status == 2 and "set precision=bf16-mixed or 32-true" in errors


def test_plop_shares_step_0_with_ft(train_mini, tmp_path):
    assert train_mini("--steps", "0", method="FT", out=tmp_path / "ft")[0] == 0
    for rule in ("exact", "released"):
        setting = ("--set", f"method.terms.ce.pseudo={rule}")
        out = tmp_path / rule
        assert train_mini("--start-from", tmp_path / "ft", *setting, method="PLOP", out=out)[0] == 0


def test_a_checkpoint_holds_all_that_a_step_needs(train_mini, tmp_path):
    assert train_mini("--steps", "0", "--set", "seed=3")[0] == 0
    state = torch.load(tmp_path / "run" / "step-0" / "checkpoint.pt", weights_only=True)
    assert state["config"]["seed"] == 3
    assert state["network"]["classes"] == (7,)
    assert state["bank"]["counts"].dtype == torch.int64 and state["bank"]["counts"][1:].sum() > 0
    assert state["optimizer"]["state"]
    assert state["rng"]["torch"].numel() > 0


@pytest.mark.parametrize("setup", ["sequential", "overlapped"])
def test_the_released_form_of_sdr_trains(train_mini, tmp_path, setup):
    """As a user gets it, without a floor."""
    released = ("--setup", setup, "--set", "method.variant=released")
    assert train_mini(*released, method="SDR")[0] == 0
    terms = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))["method"]["terms"]
    assert terms["released_sparsification"]["floor"] == 0 and terms["ce"]["fold_labels"]
    log = pd.read_csv(tmp_path / "run" / "logs" / "step-1" / "metrics.csv")
    active = [name for name, row in terms.items() if row["weight"] > 0]
    assert len(active) == 6 and np.isfinite(log[[*active, "total"]]).all(axis=None)


def test_joint_learns_all_classes_in_one_step_and_is_reported_at_the_last(train_mini, tmp_path):
    assert train_mini(method="joint")[0] == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert [s["step"] for s in metrics["steps"]] == [1]
    assert metrics["steps"][0]["miou_old"] is not None


def test_start_from_shares_step_0(train_mini, tmp_path):
    assert train_mini("--steps", "0", method="FT", out=tmp_path / "ft")[0] == 0
    assert train_mini("--start-from", tmp_path / "ft", out=tmp_path / "mib")[0] == 0
    first = [tmp_path / name / "step-0" / "checkpoint.pt" for name in ("ft", "mib")]
    assert first[0].read_bytes() == first[1].read_bytes()
    status, _, errors = train_mini(
        "--start-from", tmp_path / "ft", "--set", "seed=1", out=tmp_path / "other"
    )
    assert status == 2 and "differs in seed" in errors


def test_mixed_precision_trains_and_keeps_its_weights_in_full(train_mini, tmp_path):
    assert train_mini("--set", "precision=bf16-mixed", method="SDR")[0] == 0
    model = torch.load(tmp_path / "run/step-1/checkpoint.pt", weights_only=True)["model"]
    weights = [value for value in model.values() if value.is_floating_point()]
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights)


def test_another_class_order_is_learned_in_that_order(train_mini, tmp_path):
    order = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert train_mini("--set", f"class_order={order}")[0] == 0
    classes = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["classes"]
    names = MINIVOC_CLASSES[:0:-1]
    assert classes == [list(names[:6]), list(names[6:])]


@pytest.mark.slow
def test_two_processes_share_the_batches_and_add_up_their_prototypes(mini, tmp_path, capsys):
    base = ["--dataset", "minivoc", "--data-root", mini, "--task", "6-4", "--method", "SDR"]
    both = [*base, "--out", tmp_path / "run", *QUICK, "--accelerator", "cpu", "--devices", "2"]
    command = [sys.executable, "-m", "sparcl_lib", "train", *map(str, both)]
    done = subprocess.run(command, capture_output=True, text=True, env=LONE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("minivoc 6-4 disjoint SDR seed 0") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert len(metrics["steps"]) == 2
    state = torch.load(tmp_path / "run/step-0/checkpoint.pt", weights_only=True)
    locations = 2 * 2 * 4 * 16 * 16  # iterations, processes, images, locations of 64 x 64 pixels
    assert state["bank"]["counts"].sum() == locations  # everything is labelled at step 0
    pixels = state["confusion"].sum().item()
    assert 0 < pixels <= 16 * 64 * 64  # each test image once, borders and future classes left out
    assert state["devices"] == 2
    shutil.rmtree(tmp_path / "run" / "step-1")
    alone = [*both[:-1], "1", "--resume"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *map(str, alone)])
    assert not stop.value.code
    told = "step 0 was trained on 2 devices, what follows is on 1 device, each with data.batch_size"
    assert told in capsys.readouterr().err


def test_split_prints_json_csv_txt_and_counts(voc, tmp_path, capsys):
    shutil.rmtree(voc / "JPEGImages", ignore_errors=True)
    base = ["split", "--dataset", "voc", "--data-root", voc, "--task", tmp_path / "task.yaml"]
    status, out, _ = sparcl(capsys, *base, "--setup", "overlapped")
    assert status == 0
    assert json.loads(out) == {"0": ["a3", "a4", "a6", "a7"], "1": ["a5", "a8"]}
    assert sparcl(capsys, *base, "--format", "csv")[1].splitlines()[:2] == ["step,id", "0,a3"]
    assert sparcl(capsys, *base, "--format", "txt")[1].splitlines()[-1] == "1 a8"
    assert "step 1: 2 images" in sparcl(capsys, *base, "--format", "counts")[1]


def test_env_lists_what_is_there(capsys):
    status, out, _ = sparcl(capsys, "env")
    lines = out.splitlines()
    assert all(line.startswith(("OK  ", "FAIL")) for line in lines)
    assert status == (1 if any(line.startswith("FAIL") for line in lines) else 0)
    assert any(line.startswith("OK   torch ") for line in lines)


def test_an_interruption_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("sparcl_lib.environment.check_environment", interrupt)
    status, out, errors = sparcl(capsys, "env")
    assert (status, out) == (130, "") and errors.startswith("sparcl: interrupted; the same")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1)],
)
@pytest.mark.parametrize("error", [RuntimeError, OSError(2, "gone", "x.lock"), UserError("full")])
@pytest.mark.parametrize("traced", [True, False])
def test_what_an_interruption_broke_is_no_error_of_its_own(
    capsys, monkeypatch, number, status, error, traced
):
    """A class body ended in a RuntimeError, a journal in a lock that was gone, and a reader of
    tables in C in an error without a trace of it."""

    def interrupt():
        try:
            signal.raise_signal(number)
        except BaseException as stop:
            if traced:
                raise error from stop
        raise error

    monkeypatch.setattr("sparcl_lib.environment.check_environment", interrupt)
    found, out, errors = sparcl(capsys, "env")
    assert (found, out) == (status, "")
    assert errors.endswith("goes on from here") and "\n" not in errors


TRAIN = [
    sys.executable, "-m", "sparcl_lib", "train", "--dataset", "minivoc", "--task", "6-4",
    "--method", "FT", "--accelerator", "cpu", "--set", "optim.iterations=2",
    "--set", "data.batch_size=4", "--set", "data.size=32",
]  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("shell", ["2>/dev/full", "2>&-", "2> >(exec true)"])
def test_a_log_that_cannot_be_written_ends_no_training(mini, tmp_path, shell):
    """A full disk, no stderr at all, and a reader that is gone: a bar ended it, with all it had."""
    out = tmp_path / "run"
    command = [*TRAIN, "--data-root", str(mini), "--out", str(out)]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", *command], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("minivoc 6-4 disjoint FT"), done.stderr
    assert (out / "step-1" / "checkpoint.pt").is_file()


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE"])
def test_a_variable_of_a_launcher_that_is_no_number(capsys, monkeypatch, name):
    monkeypatch.setenv(name, "abc")
    status, out, errors = sparcl(capsys, "env")
    assert (status, out) == (2, "")
    assert errors.startswith(f"sparcl: the variable {name} is 'abc': torchrun and SLURM set it")


INTERRUPTED_IMPORT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(name, *_):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder)
from sparcl_lib.cli import main
main(["course", "check", "nowhere"])
"""


@pytest.mark.parametrize(
    "module", ["typer", "sparcl_lib.cli.data", "sparcl_lib.course", "sparcl_lib.course.marking"]
)
def test_an_interruption_during_the_imports_is_the_same_line(module):
    """The first half second of every command, before its function is called, had a traceback."""
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == ""
    assert done.stderr.startswith("sparcl: interrupted; the same") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "sparcl: No space left on device: free"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/log"), "sparcl: /a/log: No space"),
        (
            PermissionError(errno.EACCES, "Permission denied", "b\x1b"),
            r"sparcl: b\x1b: Permission d",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, monkeypatch, error, message):
    def fail():
        raise error

    monkeypatch.setattr("sparcl_lib.environment.check_environment", fail)
    status, out, errors = sparcl(capsys, "env")
    assert (status, out) == (2, "") and errors.startswith(message)
    assert errors.endswith(", then run the same command again") and "\n" not in errors


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    status, out, _ = sparcl(capsys, *command.split(), "--help")
    assert status == 0 and "Usage" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "7-3"], "unknown task of minivoc '7-3'.*6-4"),
        (
            ["--setup", "joint"],
            "setup must be one of sequential, disjoint, .*got 'joint'",
        ),
        (["--method", "SRD"], "unknown method 'SRD'.*FT, Joint, .*MiB, .*SDR"),
        (["--dataset", "cityscapes"], "unknown data set 'cityscapes'.*minivoc"),
        (["--data-root", "nowhere", "--dataset", "voc"], "nowhere is not a folder.*VOCdevkit"),
        (["--set", "optim.lrr=1"], "unknown setting 'optim.lrr': did you mean optim.lr"),
        (["--set", "method.terms.ce.wieght=1"], "did you mean method.terms.ce.weight"),
        (["--set", "method.terms.kdd.weight=1"], "did you mean method.terms.kd.weight"),
        (["--set", "optim.lr"], "expected key=value"),
        (["--set", "optim.lr=fast"], "optim.lr must be a number, got 'fast'"),
        (["--set", "optim.iterations=0"], "optim.iterations must be at least 1"),
        (["--set", "method.terms.kd.weight=-1"], "must be at least 0"),
        (["--set", "model.output_stride=16"], "output stride 4, not 16"),
        (
            ["--set", "model.backbone=vgg"],
            "unknown backbone 'vgg': model.backbone is one of",
        ),
        (
            ["--backbone-weights", "no.pth"],
            "weights file .*no.pth does not exist: .* --set model.weights=null starts from random",
        ),
        (["--config", "no.yaml"], "cannot read no.yaml"),
        (["--steps", "1,0"], "in order"),
        (["--steps", "0,2"], "no step 2"),
        (["--steps", "two"], "expected numbers"),
        (["--steps", "1"], "no checkpoint of step 0"),
        (["--start-from", "nowhere"], "nowhere is no run directory"),
        (["--lr", "1"], "No such option"),
        (["--set", "setup=overlapped"], "give it by the option --setup "),
        (["--set", "task=6-1"], "give it by the option --task "),
        (["--set", "dataset=voc"], "give it by the option --dataset "),
        (["--set", "data_root=elsewhere"], "give it by the option --data-root "),
        (["--set", "seed=-1"], "seed must be at least 0 and at most 2147483647, got -1"),
        (["--set", "model.weights=a", "--backbone-weights", "b"], "differ: give one of them"),
        (["--set", "model=3", "--backbone-weights", "none"], "model is a group of settings, not 3"),
        (["--accelerator", "gpu"], "accelerator gpu: PyTorch sees no such device here"),
        (["--accelerator", "cuda"], "accelerator cuda: PyTorch sees no such device here"),
        (["--accelerator", "foo"], "unknown accelerator 'foo'.*auto, cpu, gpu"),
        (["--devices", "0"], "devices is 0: give how many"),
        (["--devices", "-3"], "devices is '-3': give how many"),
        (["--devices", "abc"], "devices is 'abc': give how many"),
        (["--devices", "100000"], "100000 devices are asked for, and there are"),
        (["--out", LONG], "File name too long"),
        (["--data-root", LONG], "is no path .File name too long.: name another"),
        (["--task", f"{LONG}.yaml"], "is no path|File name too long"),
        (["--dataset", f"{LONG}.yaml"], "is no path|File name too long"),
        (["--config", LONG], "cannot read .*File name too long"),
        (["--start-from", LONG], "File name too long|is no run directory"),
        (["--backbone-weights", LONG], "is no path .File name too long.: name another"),
    ],
)
def test_a_mistake_gets_one_line_and_status_2(
    train_mini, tmp_path, arguments, message, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    status, _, errors = train_mini(*arguments)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors), errors
    assert not list(tmp_path.glob("run/step-*")), "nothing half-written"


@pytest.mark.parametrize("command", [[], ["data"]])
def test_a_command_alone_shows_its_help_and_nothing_more(command, capsys):
    """A line without a word followed: `sparcl: (see sparcl --help)`."""
    status, out, errors = sparcl(capsys, *command)
    assert (status, errors) == (2, "") and "Usage" in out


@pytest.mark.parametrize("command", ["demo", "data minivoc"])
def test_a_mistyped_option_leads_to_the_help_of_its_command(command, capsys):
    status, _, errors = sparcl(capsys, *command.split(), "--nonsense")
    assert status == 2 and errors.endswith(f" (see sparcl {command} --help)"), errors


def test_options_of_jupyter_may_be_empty(capsys, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(lab, "open_lab", lambda folder, options: opened.append(options) or 0)
    monkeypatch.setattr(copies, "start", lambda folder: None)
    status, _, errors = sparcl(capsys, "course", "lab", tmp_path, "--ServerApp.token=", "--port=1")
    assert (status, errors) == (0, "") and opened == [["--ServerApp.token=", "--port=1"]]
    assert sparcl(capsys, "demo", "--out=")[::2] == (
        2,
        "sparcl: --out is empty: give a value",
    )


@pytest.mark.parametrize(
    "arguments, value",
    [(["data", "minivoc", "--size", "big"], "'big'"), (["predict", "run", "--step", "x"], "'x'")],
)
def test_a_value_that_is_no_number_is_shown(arguments, value, capsys):
    status, _, errors = sparcl(capsys, *arguments)
    assert status == 2 and value in errors and arguments[-2] in errors


def test_two_values_for_one_setting_are_told(capsys):
    """The first of two --set for one key vanished silently."""
    settings = ["optim.lr=0.1", "optim={lr: 0.2}", "optim.lr=0.2", "seed=1", "seed=1"]
    assert given(settings) == {"optim": {"lr": 0.2}, "seed": 1}
    assert capsys.readouterr().err == "--set optim.lr is 0.1 and 0.2: the last one holds\n"


def test_a_run_is_not_overwritten_nor_mixed_with_another(train_mini, tmp_path):
    assert train_mini("--steps", "0")[0] == 0
    status, _, errors = train_mini("--steps", "0")
    assert status == 2 and "already has step 0: add --resume" in errors
    status, _, errors = train_mini("--resume", "--setup", "overlapped")
    assert status == 2 and "holds a run with setup=disjoint, not overlapped" in errors
    # A checkpoint moved in from a run of another setup.
    assert train_mini("--setup", "overlapped", "--steps", "0", out=tmp_path / "other")[0] == 0
    target = tmp_path / "run" / "step-0" / "checkpoint.pt"
    shutil.copy(tmp_path / "other" / "step-0" / "checkpoint.pt", target)
    status, _, errors = train_mini("--resume")
    assert status == 2 and "belongs to setup overlapped, not disjoint" in errors


def test_an_output_that_cannot_be_written(train_mini, tmp_path):
    (tmp_path / "file").write_text("in the way", "utf-8")
    status, _, errors = train_mini(out=tmp_path / "file" / "run")
    assert status == 2 and "cannot write" in errors and len(errors.splitlines()) == 1


def test_a_loss_that_is_not_a_number_stops_before_the_update(train_mini, tmp_path):
    assert train_mini("--steps", "0")[0] == 0
    state = torch.load(tmp_path / "run" / "step-0" / "checkpoint.pt", weights_only=True)
    state["model"]["backbone.0.0.weight"].fill_(1e38)
    torch.save(state, tmp_path / "run" / "step-0" / "checkpoint.pt")
    before = (tmp_path / "run" / "step-0" / "checkpoint.pt").read_bytes()
    status, _, errors = train_mini("--steps", "1")
    assert status == 2 and "not a number at MiB step 1, iteration 0 (ce=nan" in errors
    assert not (tmp_path / "run" / "step-1" / "checkpoint.pt").exists()
    assert (tmp_path / "run" / "step-0" / "checkpoint.pt").read_bytes() == before


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_tail(path: Path) -> None:
    """The header stays whole: the damage shows only when the pixels are decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "JPEGImages" / "a3.jpg").unlink(), "photograph.*a3"),
        (lambda r: (r / "SegmentationClassAug" / "a3.png").unlink(), "mask .*a3.png.*missing"),
        (lambda r: _truncate(r / "JPEGImages" / "a3.jpg"), "photograph .*a3.jpg cannot be read"),
        (
            lambda r: _cut_tail(r / "JPEGImages" / "a3.jpg"),
            "a3.jpg cannot be read .*truncated",
        ),
        (lambda r: _truncate(r / "SegmentationClassAug" / "a3.png"), "mask .*a3.png cannot be"),
        (
            lambda r: (r / "ImageSets/Segmentation/train_aug.txt").write_text("", "utf-8"),
            "empty split",
        ),
    ],
)
def test_damaged_data_is_named(voc, train_voc, damage, message):
    damage(voc)
    status, _, errors = train_voc("--set", "optim.iterations=5")
    assert status == 2 and len(errors.splitlines()) == 1
    assert re.search(message, errors), errors


def test_a_loader_process_says_it_in_one_line_too(voc, train_voc):
    """Its traceback of thirty lines came in one, and what was wrong stood at its end."""
    _cut_tail(voc / "JPEGImages" / "a3.jpg")
    status, _, errors = train_voc("--set", "optim.iterations=5", "--set", "data.workers=1")
    assert status == 2 and "Traceback" not in errors, errors
    said = r"sparcl: photograph \S*a3.jpg cannot be read .*truncated.*"
    assert re.fullmatch(said, errors.strip()), errors


def test_a_plugin_that_takes_no_part_is_said(tmp_path, train_mini):
    """Whoever forgot the weight had trained the method as it is."""
    file = tmp_path / "forgotten_weight.py"
    file.write_text(
        "from sparcl_lib import term\n\n@term\ndef forgotten(context):\n"
        "    return context.output.logits.square().mean()\n", "utf-8",
    )  # fmt: skip
    status, _, errors = train_mini("--plugin", file)
    assert status == 0 and f"the term forgotten of {file} takes no part: --set method.t" in errors
    file = tmp_path / "empty.py"
    file.write_text("x = 1\n", "utf-8")
    status, _, errors = train_mini("--plugin", file)
    assert (
        status == 2 and "empty.py: it defines nothing: put @term or @backbone above a f" in errors
    )


def test_a_mask_of_another_size_or_with_a_value_outside_the_classes(voc, train_voc):
    save_mask(voc / "SegmentationClassAug" / "a3.png", np.zeros((10, 10), dtype=np.uint8))
    status, _, errors = train_voc()
    assert status == 2 and "a3.jpg is 40x30" in errors
    save_mask(voc / "SegmentationClassAug" / "a3.png", np.full((30, 40), 77, dtype=np.uint8))
    status, _, errors = train_voc()
    assert status == 2 and "a3.png holds value 77" in errors


def test_a_tree_of_real_layout_trains(train_voc):
    status, out, errors = train_voc()
    assert (status, errors) == (0, "")
    assert out.splitlines()[-1].split()[0] == "1"


@pytest.mark.parametrize(
    "text, found",
    [("3", [3]), ("0,1", [0, 1]), ("0-2", [0, 1, 2]), (" 0-1, 7", [0, 1, 7]), ("5-5", [5])],
)
def test_numbers_may_be_ranges(text, found):
    assert numbers(text, "--seeds") == found


@pytest.mark.parametrize("text", ["2-0", "0-", "1-2-3", "0-1000", "", "0,,1", "a-b"])
def test_what_is_no_numbers_is_refused(text):
    with pytest.raises(UserError, match="^--seeds .*: expected numbers, as in 0,1 or 0-4$"):
        numbers(text, "--seeds")
