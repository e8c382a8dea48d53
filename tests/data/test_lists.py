"""Lists of training images: written, read back, checked, compared with the rule, trained on."""

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_voc_tree
from hypothesis import given
from hypothesis import strategies as st

from sparcl_lib.cli import main
from sparcl_lib.config import resolve
from sparcl_lib.data import Presence, lists, read_lists, split_checksum, write_lists
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.store import run_keys
from sparcl_lib.tasks import Task
from sparcl_lib.training import evaluate, train
from sparcl_lib.training.identity import read_identity
from sparcl_lib.training.run_directory import RunDirectory

TASK = Task("t", "d", ("background", "a", "b", "c"), ((1,), (2, 3)))
SHOWN = {"x_1": {1}, "x_2": {1, 2}, "x_3": {2}, "x_4": {3, 1}, "x_5": {0}}
PRESENCE = Presence.from_sets(SHOWN)
STEPS = {0: ["x_1"], 1: ["x_2", "x_3", "x_4"]}


def folder_of(path: Path, **files: str | list[int] | np.ndarray) -> Path:
    """A folder of lists: text, or positions; ``train_0`` is written as train-0."""
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        name = name.replace("_", "-")
        if isinstance(content, str):
            (path / f"{name}.txt").write_text(content, "utf-8")
        else:
            np.save(path / f"{name}.npy", np.asarray(content))
    return path


@pytest.mark.parametrize("form", lists.FORMS)
def test_what_is_written_is_read_back(tmp_path, form):
    files = write_lists(STEPS, PRESENCE.ids, tmp_path / "new" / "lists", form)
    assert [f.name for f in files] == [f"train-0.{form}", f"train-1.{form}"]
    assert read_lists(tmp_path / "new" / "lists", PRESENCE, TASK) == STEPS
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["lists"], "no draft is left"


ids = st.lists(st.text("ab01_ .-", min_size=1).map(str.strip).filter(bool), unique=True, min_size=1)


@given(ids, st.data())
def test_any_ids_in_any_order_come_back_sorted(tmp_path_factory, names, data):
    folder = tmp_path_factory.mktemp("lists") / "lists"
    presence = Presence.from_sets({i: {1, 2} for i in names})
    chosen = st.lists(st.sampled_from(names), unique=True, min_size=1)
    steps = {0: data.draw(chosen), 1: data.draw(chosen)}
    write_lists(steps, names, folder, data.draw(st.sampled_from(lists.FORMS)))
    read = read_lists(folder, presence, TASK)
    assert read == {step: sorted(of_step) for step, of_step in steps.items()}
    assert split_checksum(read) == split_checksum(steps)


def test_the_checksum_tells_images_and_steps_apart_and_nothing_else():
    known = split_checksum(STEPS)
    assert known == hashlib.sha256(b"0 x_1\n1 x_2\n1 x_3\n1 x_4\n").hexdigest()
    assert split_checksum({1: ["x_4", "x_3", "x_2"], 0: ["x_1"]}) == known
    others = [{0: ["x_1"], 1: ["x_2", "x_3"]}, {0: STEPS[1], 1: STEPS[0]}, {0: ["x_1"]}]
    assert len({known, *map(split_checksum, others)}) == 4


@pytest.mark.parametrize(
    "files",
    [
        {"train_0": [0], "train_1": [1, 2, 3]},
        {"train_0": "x_1\n", "train_1": [3, 1, 2]},
        {"0": "x_1", "1": "x_4\n\n x_3 \nx_2\n"},
        {"step0": "x_1\n", "step1": "x_2\nx_3\nx_4\n", "notes": "read me", "val_0": "v", "test_1": "v"},  # noqa: E501
        {
            "train_0": "/JPEGImages/x_1.jpg /SegmentationClassAug/x_1.png\n",
            "train_1": "JPEGImages/x_2.jpg SegmentationClassAug/x_2.png\nx_3.png\nx_4\n",
        },
        {"train_0": np.array([0], np.uint8), "train_1": np.array([[1, 2, 3]], ">i4")},
    ],
)  # fmt: skip
def test_published_forms(tmp_path, files):
    assert read_lists(folder_of(tmp_path, **files), PRESENCE, TASK) == STEPS


def test_steps_are_read_by_number_not_by_name(tmp_path):
    folder = folder_of(tmp_path, **{f"train_{k}": f"i{k}" for k in range(11)})
    classes = ("background", *map(str, range(11)))
    task = Task("t", "d", classes, tuple((c,) for c in range(1, 12)))
    presence = Presence.from_sets({f"i{k}": {k + 1} for k in range(11)})
    assert read_lists(folder, presence, task) == {k: [f"i{k}"] for k in range(11)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no list; its files must be named as train-0.txt"),
        ({"train_0": "x_1"}, "lists of steps 0, but task 't' has steps 0 to 1"),
        ({"train_0": "x_1", "train_2": "x_2"}, "lists of steps 0, 2, but task"),
        ({"train_0": "x_1", "train_1": "x_2", "train_2": "x_3"}, "steps 0, 1, 2, but task"),
        ({"train_0": "x_1", "step0": "x_1", "train_1": "x_2"}, "both for step 0: keep one"),
        ({"train_0": "x_1\nx_9\ny", "train_1": "x_2"}, "names 2 images .* of 5 .*have: x_9, y; "),
        ({"train_0": "x_1\nx_9", "train_1": "x_2"}, "names 1 image that .* of 5 .*have: x_9; "),
        ({"train_0": "x_1\nx_1.jpg", "train_1": "x_2"}, "names x_1 more than once"),
        ({"train_0": [0, 0], "train_1": [1]}, "train-0.npy names x_1 more than once"),
        ({"train_0": [0], "train_1": [1, 5, -1]}, "2 positions outside 0 to 4: 5, -1"),
        ({"train_0": " \n", "train_1": "x_2"}, "train-0.txt names no image"),
        ({"train_0": [0.0], "train_1": [1]}, "holds float64 and not integer positions"),
        ({"train_0": np.array(["x_1"]), "train_1": [1]}, "holds <U3 and not integer positions"),
        ({"train_0": [True], "train_1": [1]}, "holds bool and not integer positions"),
        ({"train_0": [], "train_1": [1]}, "holds float64 and not"),
        ({"train_0": "x_1", "train_1": "x_1"}, r"none of 1 images shows a class of step 1 \(b, c\)"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_one_line(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        read_lists(folder_of(tmp_path / "lists", **files), PRESENCE, TASK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00", b"PK\x03\x04rest"])
def test_a_damaged_array_is_named(tmp_path, content):
    (folder_of(tmp_path, train_1=[1]) / "train-0.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*train-0.npy"):
        read_lists(tmp_path, PRESENCE, TASK)


def test_a_missing_folder_and_a_list_that_is_no_text(tmp_path):
    with pytest.raises(UserError, match="no is no folder; name one with a list per step"):
        read_lists(tmp_path / "no", PRESENCE, TASK)
    (folder_of(tmp_path, train_1=[1]) / "train-0.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="train-0.txt is not text"):
        read_lists(tmp_path, PRESENCE, TASK)


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("it-ran"),)


def test_nothing_that_is_pickled_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "lists", train_1=[1])
    for content in (pickle.dumps(Bomb()), None):
        if content is None:
            np.save("lists/train-0.npy", np.array([Bomb()], object), allow_pickle=True)
        else:
            Path("lists/train-0.npy").write_bytes(content)
        with pytest.raises(UserError, match="cannot read"):
            read_lists("lists", PRESENCE, TASK)
    assert not Path("it-ran").exists()


def test_lists_are_compared_with_the_rule():
    assert lists.describe(STEPS, PRESENCE, TASK, "disjoint") == [
        "step 0: 1 images, as by rule (disjoint)",
        "step 1: 3 images, as by rule (disjoint)",
    ]
    other = {0: ["x_1", "x_2", "x_3", "x_5"], 1: ["x_3"]}
    assert lists.describe(other, PRESENCE, TASK, "overlapped") == [
        "step 0: 4 images, 2 more, 1 fewer than by rule (overlapped); 2 show no class of the step",
        "step 1: 1 images, 0 more, 2 fewer than by rule (overlapped)",
    ]


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(UserError, match="is not empty: name another --export"):
        write_lists(STEPS, PRESENCE.ids, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="cannot write .*lists: .*; name another --export"):
        write_lists(STEPS, PRESENCE.ids, tmp_path / "mine.txt" / "lists")


def test_lists_of_another_form_or_of_other_images_are_refused(tmp_path):
    """The file was another than the one that was returned, and a stranger a bare KeyError."""
    with pytest.raises(UserError, match="lists are txt or npy, not 'csv': choose one"):
        write_lists(STEPS, PRESENCE.ids, tmp_path / "lists", "csv")
    with pytest.raises(UserError, match="train-0.npy: no position in the training list: strange"):
        write_lists({0: ["strange"]}, PRESENCE.ids, tmp_path / "lists", "npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_of_lists_is_whole_or_not_there(tmp_path, monkeypatch, error):
    saved = np.save

    def full_at_step_1(file, *arguments, **options):
        if "train-1" in str(file):
            raise error
        saved(file, *arguments, **options)

    monkeypatch.setattr(lists.np, "save", full_at_step_1)
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_lists(STEPS, PRESENCE.ids, tmp_path / "lists", "npy")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def voc(tmp_path) -> list[str]:
    """Arguments that name a tree of masks without photographs, and a task of two steps."""
    root, task = tmp_path / "voc", tmp_path / "task.yaml"
    shown = {f"a{n}": {1 + n % 3} for n in range(9)} | {"v": {1}}
    make_voc_tree(root, shown, val=["v"], photos=False)
    task.write_text("steps: [[aeroplane, bicycle], [bird]]\n", "utf-8")
    return ["split", "--dataset", "voc", "--data-root", str(root), "--task", str(task)]


def sparcl(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def test_export_prints_checksums_that_anybody_can_compute(voc, tmp_path, capsys):
    status, out, _ = sparcl(capsys, *voc, "--export", tmp_path / "out")
    assert status == 0
    for step, content in (("0", b"a0\na1\na3\na4\na6\na7\n"), ("1", b"a2\na5\na8\n")):
        file = tmp_path / "out" / f"train-{step}.txt"
        assert file.read_bytes() == content
        assert f"{file}: sha256 {hashlib.sha256(content).hexdigest()}\n" in out
    _, printed, _ = sparcl(capsys, *voc, "--format", "txt")
    total = hashlib.sha256(printed.encode()).hexdigest()
    assert out.splitlines()[-1] == f"all steps: sha256 {total}"


def test_import_says_what_it_found_and_can_convert(voc, tmp_path, capsys):
    mine = folder_of(tmp_path / "mine", train_0=[0, 1, 2], train_1=[5, 8])
    text = tmp_path / "text"
    status, out, _ = sparcl(capsys, *voc, "--import", mine, "--export", text)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].endswith(
        "3 images, 1 more, 4 fewer than by rule (disjoint); 1 show no class of the step"
    )
    assert lines[1] == "step 1: 2 images, 0 more, 1 fewer than by rule (disjoint)"
    assert (text / "train-1.txt").read_text("utf-8") == "a5\na8\n"
    again = sparcl(capsys, *voc, "--import", text, "--export", tmp_path / "npy", "--as", "npy")[1]
    assert again.splitlines()[-1] == lines[-1], "the same images, whatever the form"
    assert np.load(tmp_path / "npy" / "train-0.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as", "csv"], "unknown list format 'csv'"),
        (["--import", "nowhere"], "nowhere is no folder"),
        (["--export", "FULL"], "is not empty: name another --export"),
    ],
)
def test_mistakes_are_one_line_and_status_2(voc, tmp_path, capsys, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    arguments = [tmp_path / "full" if a == "FULL" else a for a in arguments]
    status, out, errors = sparcl(capsys, *voc, *arguments)
    (line,) = (line for line in errors.splitlines() if line.startswith("sparcl:"))
    assert status == 2 and message in line and not out


def test_lists_need_no_torch(voc, tmp_path):
    code = (
        "import sys; from sparcl_lib.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: sys.exit(stop.code or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *voc, "--export", tmp_path / "out"]
    assert subprocess.run(command, check=False).returncode == 0
    command = [sys.executable, "-c", code, *voc, "--import", tmp_path / "out"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mini") / "minivoc"
    generate(root, train=60, val=8, progress=False)
    return root


def config_of(mini: Path, splits: Path | None = None, method: str = "FT", task: str = "6-4"):
    settings = {"optim": {"iterations": 2}, "data": {"batch_size": 4}}
    settings["data"] |= {"splits": str(splits)} if splits else {}
    return resolve("minivoc", method, [settings], task=task, data_root=str(mini))


def export(mini: Path, folder: Path, capsys, form: str = "txt") -> str:
    """The checksum that the command prints."""
    base = ["split", "--dataset", "minivoc", "--task", "6-4", "--data-root", mini]
    _, out, _ = sparcl(capsys, *base, "--export", folder, "--as", form)
    return out.split()[-1]


def test_exported_then_imported_lists_give_the_same_run(mini, tmp_path, capsys):
    printed = export(mini, tmp_path / "lists", capsys, "npy")
    ruled = train(config_of(mini), tmp_path / "ruled", accelerator="cpu")
    listed = train(config_of(mini, tmp_path / "lists"), tmp_path / "listed", accelerator="cpu")
    assert ruled["images_sha256"] == listed["images_sha256"] == printed
    for name in ("steps", "images", "forgetting"):
        assert ruled[name] == listed[name]
    first, second = (
        RunDirectory(tmp_path / name).load_checkpoint(1)["model"] for name in ("ruled", "listed")
    )
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    kept = json.loads((tmp_path / "listed" / "metrics.json").read_text("utf-8"))
    assert kept["images_sha256"] == printed


def test_training_uses_exactly_the_listed_images(mini, tmp_path, capsys):
    export(mini, tmp_path / "lists", capsys)
    file = tmp_path / "lists" / "train-1.txt"
    few = file.read_text("utf-8").split()[:4]
    file.write_text("\n".join(few), "utf-8")
    metrics = train(config_of(mini, tmp_path / "lists"), tmp_path / "run", accelerator="cpu")
    assert metrics["images"]["1"] == 4
    joint = config_of(mini, tmp_path / "lists", "Joint")
    everything = {*(tmp_path / "lists" / "train-0.txt").read_text("utf-8").split(), *few}
    metrics = train(joint, tmp_path / "joint", accelerator="cpu")
    assert metrics["images"] == {"0": len(everything)}
    assert metrics["images_sha256"] == split_checksum({0: everything})


def test_lists_that_do_not_fit_stop_a_run_before_it_starts(mini, tmp_path, capsys):
    export(mini, tmp_path / "lists", capsys)
    config = config_of(mini, tmp_path / "lists", task="6-2")
    with pytest.raises(UserError, match="lists of steps 0, 1, but task '6-2' has steps 0 to 2"):
        train(config, tmp_path / "run", accelerator="cpu")
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_images(mini, tmp_path, capsys):
    export(mini, tmp_path / "lists", capsys)
    config, run = config_of(mini, tmp_path / "lists"), tmp_path / "run"
    train(config, run, steps=[0], accelerator="cpu")
    before = (run / "metrics.json").read_bytes()
    file = tmp_path / "lists" / "train-0.txt"
    listed = file.read_text("utf-8")
    file.write_text(listed.partition("\n")[2], "utf-8")
    for go_on in (lambda: train(config, run, steps=[1], accelerator="cpu"),
                  lambda: evaluate(run, accelerator="cpu")):  # fmt: skip
        message = f"trained on something else: step 0 trains without {listed.split()[0]} now"
        with pytest.raises(UserError, match=message):
            go_on()
    assert (run / "metrics.json").read_bytes() == before
    file.write_text("\n".join(reversed(listed.split())), "utf-8")
    assert len(train(config, run, steps=[1], accelerator="cpu")["steps"]) == 2


def test_the_content_of_lists_is_part_of_a_run_s_key(mini, tmp_path, capsys):
    export(mini, tmp_path / "lists", capsys)
    ruled, listed = config_of(mini), config_of(mini, tmp_path / "lists")
    assert "lists" not in read_identity(ruled).run, "as without this option"
    files = read_identity(listed).run["lists"]
    assert list(files) == ["0", "1"]
    assert files["0"] == lists.file_checksum(tmp_path / "lists" / "train-0.txt")
    shutil.copytree(tmp_path / "lists", tmp_path / "copy")
    assert run_keys(config_of(mini, tmp_path / "copy")) == run_keys(listed)
    before = run_keys(listed)
    assert before.run != run_keys(ruled).run and before.first != run_keys(ruled).first
    with (tmp_path / "lists" / "train-1.txt").open("a") as file:
        file.write("mini_000001\n")
    assert run_keys(listed).run != before.run
    (tmp_path / "lists" / "train-1.txt").unlink()
    assert run_keys(listed) != before


def test_a_run_goes_on_and_is_started_from_where_its_data_were_moved(mini, tmp_path):
    moved, run = tmp_path / "moved", tmp_path / "run"
    train(config_of(mini), run, steps=[0], accelerator="cpu")
    shutil.copytree(mini, moved)
    config = config_of(moved)
    other = train(config, tmp_path / "other", start_from=run, accelerator="cpu")
    assert train(config, run, resume=True, accelerator="cpu")["steps"] == other["steps"]
    ids = moved / "ImageSets" / "Segmentation" / "train_aug.txt"
    gone = RunDirectory(run).trained_on(0)[0]
    ids.write_text(ids.read_text("utf-8").replace(f"{gone}\n", ""), "utf-8")
    for out, options in ((tmp_path / "third", {"start_from": run}), (run, {"resume": True})):
        message = f"run was trained on something else: step 0 trains without {gone} now"
        with pytest.raises(UserError, match=message):
            train(config, out, accelerator="cpu", **options)
    assert not (tmp_path / "third").exists()
