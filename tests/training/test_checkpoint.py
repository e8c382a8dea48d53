"""A checkpoint is verified before anything is made of it: a flipped bit was trained on."""

import io
import os
import pickle
import random
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from states import SPEC, make_state

from sparcl_lib.course.runs import SHIPPED
from sparcl_lib.errors import UserError
from sparcl_lib.models import build_segmenter
from sparcl_lib.training.checkpoint import (
    CheckpointProblem,
    read_checkpoint,
    verify_state,
    write_checkpoint,
)
from sparcl_lib.training.run_directory import RunDirectory


@pytest.fixture
def file(tmp_path) -> Path:
    write_checkpoint(make_state(), tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def flipped(whole: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(whole)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_a_state_comes_back(tmp_path):
    state, file = make_state(2), tmp_path / "c.pt"
    write_checkpoint(state, file)
    found = read_checkpoint(file, 2)
    assert found.keys() == state.keys() and found["network"]["classes"] == (3, 1, 1)
    for group in ("model", "bank"):
        assert all(torch.equal(value, found[group][name]) for name, value in state[group].items())
    assert torch.load(file, weights_only=True).keys() == state.keys(), "torch.load reads it as well"
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None


class Stopping(io.BufferedRandom):
    """A file at whose write of a number something comes."""

    writes = 0

    def __init__(self, file: Path, at: int, what: OSError | signal.Signals) -> None:
        super().__init__(io.FileIO(file, "w+"))
        self.at, self.what = at, what

    def write(self, data):
        self.writes += 1
        if self.writes == self.at:
            if isinstance(self.what, OSError):
                raise self.what
            signal.raise_signal(self.what)
        return super().write(data)


@pytest.mark.parametrize("what", [signal.SIGINT, OSError(28, "no space")])
def test_what_ends_the_writing_comes_out_as_it_is(tmp_path, monkeypatch, what):
    """torch closes its archive then, and hides Ctrl-C behind `unexpected pos`: a full disk."""
    file = tmp_path / "c.pt"
    whole = Stopping(file, at=0, what=what)
    monkeypatch.setattr(Path, "open", lambda *_: whole)
    write_checkpoint(make_state(), file)
    for at in range(1, whole.writes + 1, 7):
        stopping = Stopping(file, at, what)
        monkeypatch.setattr(Path, "open", lambda *_, stopping=stopping: stopping)
        ended = type(what) if isinstance(what, OSError) else KeyboardInterrupt
        with pytest.raises(ended):
            write_checkpoint(make_state(), file)


def test_ctrl_c_that_the_reading_broke_on_is_no_damaged_file(file, monkeypatch):
    """A save would be removed, and the one before it taken."""

    def load(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise RuntimeError("Error calling __set_name__")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(KeyboardInterrupt):
        read_checkpoint(file, 0)


def test_every_flipped_bit_is_refused(file):
    """Nine of twenty gave another step 1, silently."""
    whole, draw = file.read_bytes(), random.Random(16)
    places = [draw.randrange(len(whole)) for _ in range(200)]
    places += range(len(whole) - 120, len(whole))  # the end of the archive, and the checksum
    for place in places:
        file.write_bytes(flipped(whole, place, draw.randrange(8)))
        with pytest.raises(CheckpointProblem, match="damaged"):
            read_checkpoint(file, 0)


def test_a_cut_file_is_refused(file):
    whole = file.read_bytes()
    for end in (0, 1, 77, 100, len(whole) // 2, len(whole) - 78, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(CheckpointProblem, match="damaged"):
            read_checkpoint(file, 0)
    file.write_bytes(whole + b"x")
    with pytest.raises(CheckpointProblem, match="damaged"):
        read_checkpoint(file, 0)


def test_a_file_of_an_earlier_version_is_verified_by_the_checksums_of_its_archive(tmp_path):
    """A bit that pads is all that may change, and it changes nothing."""
    state, file = make_state(), tmp_path / "c.pt"
    torch.save(state, file)
    whole, draw, refused = file.read_bytes(), random.Random(3), 0
    assert read_checkpoint(file, 0).keys() == state.keys()
    for _ in range(100):
        file.write_bytes(flipped(whole, draw.randrange(len(whole)), draw.randrange(8)))
        try:
            found = read_checkpoint(file, 0)
        except CheckpointProblem:
            refused += 1
        else:
            assert all(torch.equal(v, found["model"][k]) for k, v in state["model"].items())
    assert refused > 90


def test_shipped_checkpoints_are_read():
    files = sorted(SHIPPED.glob("*/step-*/checkpoint.pt"))
    assert len(files) > 10
    for file in files:
        step = int(file.parent.name.removeprefix("step-"))
        assert read_checkpoint(file, step)["step"] == step


def with_model(name: str, value: torch.Tensor | None) -> dict:
    model = {**make_state()["model"], name: value}
    return make_state(model={k: v for k, v in model.items() if v is not None})


WEIGHT = "classifier.steps.0.weight"
WRONG = {
    "another step": (lambda: make_state(1), "it is the checkpoint of step 1"),
    "no step": (lambda: {**make_state(), "step": torch.zeros(2)}, "it is the checkpoint of step t"),
    "a number": (lambda: 3, "it holds 'int', no state of a step"),
    "weights alone": (lambda: make_state()["model"], "it holds weights alone, not the state"),
    "nothing": (dict, "it has no 'config'"),
    "no bank": (lambda: make_state(bank=None), "it has no 'bank'"),
    "NaN": (lambda: with_model("head.0.weight", torch.full((8, 64, 1, 1), torch.nan)),
            "model.head.0.weight holds NaN"),
    "infinity": (lambda: make_state(bank={"sums": torch.full((3, 64), torch.inf),
                                          "counts": torch.ones(3)}), "bank.sums holds NaN or inf"),
    "another shape": (lambda: with_model("head.0.weight", torch.zeros(9, 64, 1, 1)),
                      r"model.head.0.weight has the shape \(9, 64, 1, 1\), not \(8, 64, 1, 1\)"),
    "a weight too few": (lambda: with_model("head.0.weight", None), "model.head.0.weight is miss"),
    "a weight too many": (lambda: with_model("more", torch.zeros(1)), "model.more is none of its"),
    "text": (lambda: with_model("head.0.weight", "x"), "model.head.0.weight is missing"),
    "another bank": (lambda: make_state(bank={"sums": torch.ones(4, 64), "counts": torch.ones(4)}),
                     r"bank.sums has the shape \(4, 64\), not \(3, 64\)"),
    "another test": (lambda: make_state(confusion=torch.eye(5)), r"confusion has the shape \(5, 5"),
    "no config": (lambda: make_state(config=[1]), "its 'config' is none of a run"),
    "no setup": (lambda: make_state(config={"seed": 3}), "its 'config' is none of a run"),
    "no seconds": (lambda: make_state(seconds="1"), "its 'seconds' are '1'"),
    "no images": (lambda: make_state(images=["a"]), "its 'images' are no names of images"),
    "images of numbers": (lambda: make_state(evaluated={"a": 3}), "its 'evaluated' are no names"),
    "no content": (lambda: make_state(content={"steps": 3}), "its 'content' is none of a run"),
    "content of text": (lambda: make_state(content="x"), "its 'content' is 'x'"),
    "no mechanisms": (lambda: make_state(mechanisms=3), "its 'mechanisms' is 3"),
    "no counts": (lambda: make_state(confusion=torch.eye(3)), "confusion holds no counts"),
    "negative": (lambda: make_state(confusion=-torch.eye(3, dtype=torch.int64)), "no counts"),
    "no network": (lambda: make_state(network={"backbone": "mini"}), "it describes no network"),
    "a network of none": (lambda: make_state(network=3), "it describes no network"),
    "a huge network": (lambda: make_state(network={"backbone": "mini", "classes": [3],
                                                   "output_stride": 4, "head_channels": 2**40}),
                       "it describes no network"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_what_is_in_itself_wrong_is_refused(tmp_path, make, message):
    with pytest.raises(CheckpointProblem, match=message):
        verify_state(make(), 0)
    torch.save(make(), tmp_path / "c.pt")
    with pytest.raises(CheckpointProblem, match=message):
        read_checkpoint(tmp_path / "c.pt", 0)


class Hostile:
    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def test_code_in_a_checkpoint_does_not_run_and_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**make_state(), "config": Hostile()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointProblem, match=r"it holds (posix|nt).system, .* could run code"):
        read_checkpoint(tmp_path / "c.pt", 0)
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointProblem, match="damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "c.pt", 0)
    assert not (tmp_path / "ran").exists()


def test_reading_leaves_the_generator_as_it_is(file):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    read_checkpoint(file, 0)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    assert torch.equal(before, torch.get_rng_state()) and build_segmenter(SPEC).spec == SPEC


def test_a_run_names_the_file_and_says_how_to_mend_it(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.save_checkpoint(1, make_state(1))
    shutil.copytree(run.path / "step-1", run.path / "step-7")
    assert run.steps_done() == [1, 7] and run.load_checkpoint(1)["step"] == 1
    with pytest.raises(UserError, match="step-7.checkpoint.pt: it is the checkpoint of step 1: de"):
        run.load_checkpoint(7)
