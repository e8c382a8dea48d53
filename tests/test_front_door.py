"""The names at the top of sparcl_lib: training, loading, predicting, comparing, from Python."""

import doctest
import importlib
import itertools
import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import sparcl
from PIL import Image

import sparcl_lib
from sparcl_lib import UserError, load_run, prediction, train
from sparcl_lib.api import configure
from sparcl_lib.config import resolve, to_plain
from sparcl_lib.course import runs as course_runs
from sparcl_lib.data import open_source
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.data.masks import read_values
from sparcl_lib.data.minivoc import default_root, generate
from sparcl_lib.experiments.store import STORE_VARIABLE
from sparcl_lib.label_files import write_label_maps
from sparcl_lib.methods import ADDED_MECHANISMS, TERMS
from sparcl_lib.metrics import class_iou
from sparcl_lib.models import BACKBONES, NetworkSpec, build_segmenter, predict
from sparcl_lib.plain import nest
from sparcl_lib.prediction import predict_photographs, read_photograph
from sparcl_lib.tasks import evaluation_table
from sparcl_lib.training import evaluate, open_workspace
from sparcl_lib.viz import class_palette

QUICK = {"optim.iterations": 2, "data": {"batch_size": 4}}


@pytest.fixture(scope="module", autouse=True)
def small_minivoc(tmp_path_factory):
    """MiniVOC where it is looked for, with few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        generate(default_root(), train=120, val=24, progress=False)
        yield


@pytest.fixture(scope="module")
def run(small_minivoc, tmp_path_factory):
    """Hardly trained; the background's logit is lowered until other classes are seen too."""
    out = tmp_path_factory.mktemp("run")
    settings = {"optim": {"iterations": [20, 10]}}
    made = train("minivoc", "FT", task="6-4", settings=settings, out=out)
    for step in made.steps:
        checkpoint = made.directory.load_checkpoint(step)
        checkpoint["model"]["classifier.steps.0.bias"][0] -= 2.5
        made.directory.save_checkpoint(step, checkpoint)
    evaluate(out, accelerator="cpu")
    return load_run(out)


@pytest.fixture
def photograph(tmp_path) -> Path:
    file = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


# The top of the package
def test_importing_is_cheap_and_everything_is_there():
    """Cheap: beside Python's own modules, two small ones of ours (hundredths of a second)."""
    code = (
        "import sys; before = set(sys.modules); import sparcl_lib; "
        "new = {name for name in set(sys.modules) - before "
        "if name.partition('.')[0] not in sys.stdlib_module_names}; "
        "names = [name for name in sparcl_lib.__all__ if name not in dir(sparcl_lib)]; "
        "print(sorted(new), names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['sparcl_lib', 'sparcl_lib.lazy'] []"
    assert all(getattr(sparcl_lib, name) for name in sparcl_lib.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = sparcl_lib.trian


PACKAGE = Path(sparcl_lib.__file__).parent
WITH_EXAMPLES = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in file.read_text("utf-8")
]


def test_the_names_at_the_top_have_examples():
    assert {"sparcl_lib.api", "sparcl_lib.run", "sparcl_lib.methods.registry"} < {*WITH_EXAMPLES}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(run, name, tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    module = importlib.import_module(name)
    with patch.dict(TERMS), patch.dict(ADDED_MECHANISMS), patch.dict(BACKBONES):
        outcome = doctest.testmod(module, extraglobs={"run": run})
    assert outcome.attempted > 0 and outcome.failed == 0


# Settings
def test_settings_by_dotted_and_nested_keys():
    mixed = {"optim.lr": [0.01, 0.001], "data": {"size": 32}, "method": {"terms.kd.weight": 2}}
    assert nest(mixed) == {
        "optim": {"lr": [0.01, 0.001]},
        "data": {"size": 32},
        "method": {"terms": {"kd": {"weight": 2}}},
    }


def test_numbers_of_numpy_are_numbers():
    """np.float64 was taken, np.int64 refused."""
    given = {
        "data.size": np.int64(32),
        "optim.lr": np.float32(0.5),
        "optim.momentum": np.float64(0),
    }
    given |= {
        "method.terms.kd.weight": np.int32(2),
        "method.terms.entropy_kd.weight": np.float32(1),
        "method.terms.entropy_kd.strength": np.int64(2),
    }
    plain = to_plain(configure("minivoc", "MiB", task="6-4", seed=np.int64(3), settings=given))
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["data"]["size"], plain["optim"]["lr"], plain["seed"]) == (32, [0.5], 3)
    assert type(plain["data"]["size"]) is int


WRONG = {
    "a list": (["optim.lr=0.1"], r'settings are a mapping, as in .*"optim.lr": 0.01.*, not \['),
    "text": ("optim.lr=0.1", "settings are a mapping, .* not 'optim.lr=0.1'"),
    "two values for one key": (
        {"optim.lr": 0.1, "optim": {"lr": 0.2}},
        "optim.lr is 0.1 and 0.2 among the same settings: keep one",
    ),
    "a group that is a value": (
        {"optim": 3, "optim.lr": 0.1},
        "optim has a value of its own and is the group of optim.lr among the same settings",
    ),
    "no key": ({"optim..lr": 1}, "got the key 'optim..lr'"),
    "misspelt": ({"optim.lrr": 1}, "unknown setting 'optim.lrr': did you mean optim.lr?"),
    "misspelt inside": ({"data": {"szie": 1}}, "unknown setting 'data.szie': did you mean data.si"),
    "a group": ({"optim": 3}, "optim is a group of settings"),
    "a term nobody defined": (
        {"method.terms.gap.weight": 1},
        r"'method.terms.gap.weight'.* A term of your own is known once .*: --plugin FILE.py$",
    ),
    "no option of a term": ({"method.terms.kd.wieght": 1}, "did you mean method.terms.kd.weight.$"),
    "a numpy truth value": (
        {"data.size": np.bool_(True)},
        "data.size must be a whole number, got ",
    ),
    "an argument": ({"seed": 3}, "seed is an argument, not a setting: seed=3"),
}


@pytest.mark.parametrize("settings, message", WRONG.values(), ids=WRONG)
def test_settings_that_are_none(settings, message):
    with pytest.raises(UserError, match=message) as error:
        train("minivoc", "FT", task="6-4", settings=settings)
    assert "\n" not in str(error.value)


def test_a_text_in_place_of_layers_is_shown_whole():
    with pytest.raises(UserError, match="settings are a mapping, .* not 'optim.lr=0.1'"):
        resolve("minivoc", "FT", "optim.lr=0.1", task="6-4")


OTHER_KINDS = {
    "a task file as a Path": lambda: sparcl_lib.get_task("minivoc", Path("no/such.yaml")),
    "no task": lambda: sparcl_lib.get_task("minivoc", None),
    "a number as task": lambda: sparcl_lib.get_task("voc", 15),
    "a list as task": lambda: sparcl_lib.get_task("voc", ["15-1"]),
    "a list as data set": lambda: sparcl_lib.get_task(["voc"], "15-1"),
    "a description as a Path": lambda: open_source(Path("no/such.yaml")),
    "a number as data set": lambda: open_source(3),
    "no data set": lambda: open_source(None),
    "no method": lambda: train("minivoc", None, task="6-4"),
    "a number as method": lambda: train("minivoc", 3, task="6-4"),
    "a negative seed": lambda: sparcl_lib.seed_everything(-1),
    "a large seed": lambda: sparcl_lib.seed_everything(2**40),
    "text as seed": lambda: sparcl_lib.seed_everything("a"),
    "no thread": lambda: sparcl_lib.seed_everything(0, threads=0),
}
"""Inputs that ended in a traceback of Python's or NumPy's."""
THEIR_LINES = {
    "a task file as a Path": "task file no/such.yaml.*No such file",
    "no task": "unknown task of minivoc None. Valid: offline, 6-4",
    "a number as task": "unknown task of voc 15",
    "a list as task": r"unknown task of voc \['15-1'\]",
    "a list as data set": r"unknown data set \['voc'\]",
    "a description as a Path": "no/such.yaml.*No such file",
    "a number as data set": "unknown data set 3. Valid: minivoc, .*FILE.yaml",
    "no data set": "unknown data set None",
    "no method": "unknown method None: choose from FT",
    "a number as method": "unknown method 3: choose from FT",
    "a negative seed": "seed is -1: give a whole number from 0",
    "a large seed": "seed is 1099511627776: give a whole number from 0",
    "text as seed": "seed is 'a': give a whole number from 0",
    "no thread": "threads is 0: give how many",
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_arguments_of_another_kind(name):
    with pytest.raises(UserError, match=THEIR_LINES[name]):
        OTHER_KINDS[name]()


def test_a_seed_that_is_refused_seeds_nothing():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(UserError):
        sparcl_lib.seed_everything(0, threads=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_in_place_of_a_store(photograph):
    with pytest.raises(UserError, match="cannot keep runs in .*photo.jpg: .*; name a folder"):
        train("minivoc", "FT", task="6-4", settings=QUICK, store=photograph)


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_are_one_or_more(jobs, tmp_path):
    """-1 was taken as 1; the command refuses 0."""
    with pytest.raises(UserError, match=f"jobs is {jobs}: give how many processes"):
        sparcl_lib.compare(
            "minivoc", ["FT"], tasks=["6-4"], settings=QUICK, jobs=jobs, store=tmp_path
        )


# Training
def test_a_run_of_the_store_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    ft = train("minivoc", "FT", task="6-4", settings=QUICK)
    monkeypatch.setattr("sparcl_lib.training.runner.StepTrainer", None)  # train no more
    again = train("minivoc", "FT", task="6-4", settings={"optim": {"iterations": 2}, **QUICK})
    assert again.folder == ft.folder and ft.folder.parent == tmp_path / "store"
    assert again.metrics == ft.metrics and not again.model().training
    monkeypatch.delenv(course_runs.CACHE_VARIABLE, raising=False)
    settings = ("optim.iterations=2", "data.batch_size=4")
    of_the_course = course_runs.run_or_load(course_runs.minivoc_config("FT", *settings))
    assert of_the_course.folder == ft.folder
    elsewhere = {"store": tmp_path / "other", "settings": QUICK}
    with pytest.raises(TypeError):  # what is not there is trained
        train("minivoc", "FT", task="6-4", **elsewhere)


def test_a_run_directory_is_loaded_continued_or_refused(run, tmp_path, monkeypatch):
    out = tmp_path / "run"
    made = train("minivoc", "FT", task="6-4", settings=QUICK, out=out)
    assert made.folder == out and (out / "logs" / "step-1" / "metrics.csv").is_file()
    before = (out / "metrics.json").read_bytes()
    made.directory.checkpoint_file(1).unlink()
    assert train("minivoc", "FT", task="6-4", settings=QUICK, out=out).matrix.rows.keys() == {0, 1}
    monkeypatch.setattr("sparcl_lib.training.runner.StepTrainer", None)
    loaded = train("minivoc", "FT", task="6-4", settings=QUICK, out=out)
    times = ("seconds", "sha256")  # the checksum is over the seconds too
    kept = {k: v for k, v in json.loads(before).items() if k not in times}
    assert {k: v for k, v in loaded.metrics.items() if k not in times} == kept
    with pytest.raises(UserError, match="holds a run with optim.momentum=0.9, not 0.5"):
        train("minivoc", "FT", task="6-4", settings={**QUICK, "optim.momentum": 0.5}, out=out)
    with pytest.raises(UserError, match="not both"):
        train("minivoc", "FT", task="6-4", out=out, store=tmp_path)


def test_folders_that_hold_no_run(tmp_path):
    with pytest.raises(UserError, match="none is no run directory"):
        load_run(tmp_path / "none")
    with pytest.raises(UserError, match="no run directory: it has no config.yaml"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="None is no run directory: give the out of a training"):
        load_run(None)


# A run
def test_what_a_run_holds(run):
    assert run.classes == ("background", *itertools.chain(*run.metrics["classes"]))
    assert run.steps == [0, 1] and run.config.seed == 0
    assert run.confusion(0).shape == (7, 7) and run.confusion().shape == (11, 11)
    last = run.matrix.rows[1]
    assert [last[name] for name in run.classes] == pytest.approx(
        class_iou(run.confusion(-1)).tolist(), abs=1e-4, nan_ok=True
    )
    assert run.log(0)["step"].max() == 19 and run.log()["step"].min() == 20
    assert len(run.bank(0).counts) == 7 and len(run.bank().counts) == 11
    assert run.model(0).spec.classes == (7,) and run.model(-1).spec.classes == (7, 4)
    assert load_run(str(run.folder)).metrics == run.metrics
    for step in (2, -3):
        with pytest.raises(UserError, match=f"has no step {step}: it has 0, 1"):
            run.model(step)


@pytest.mark.parametrize("step", [1.5, "1", None])
def test_a_step_is_a_whole_number(run, photograph, step):
    for call in (lambda: run.predict(photograph, step), lambda: run.model(step)):
        with pytest.raises(UserError, match="the step is a whole number, as in 1, got "):
            call()


def test_a_run_shows_itself(run):
    assert repr(run) == "Run(FT, minivoc 6-4 disjoint, seed 0, steps 0, 1)"
    shown = run._repr_html_()
    assert f"<td>{run.metrics['steps'][1]['miou_all']:.1f}</td>" in shown and "–" in shown
    figures = [run.plot_forgetting(), run.plot_steps(), run.plot_predictions()]
    titles = {axes.get_title() for axes in figures[2].axes}
    assert titles >= {"image", "truth", "step 0", "step 1"}
    assert "FT, minivoc 6-4 disjoint, seed 0" in figures[1].axes[0].get_title()
    assert len(figures[0].axes) == 2


def test_joint_training_has_one_step(tmp_path):
    joint = train("minivoc", "Joint", task="6-4", settings=QUICK, out=tmp_path)
    assert joint.steps == [0] and list(joint.matrix.rows) == [1]
    assert joint.confusion(0).shape == joint.confusion().shape == (11, 11)
    assert joint.plot_predictions() is not None and "step 1" in joint._repr_html_()


# Prediction
def test_prediction_of_the_test_images_is_that_of_evaluate(run):
    """A loaded network that was in training mode and got bytes was right on 45.5 % of the object
    pixels of a demo's test images, instead of 72.9 %."""
    workspace = open_workspace(run.config, progress=False)
    source = workspace.evaluation_reader.source
    for step in run.steps:
        ids = workspace.evaluation_ids[step]
        table = evaluation_table(workspace.learned, step, workspace.policy)
        maps = run.predict([source.photo("val", i) for i in ids], step, device="cpu")
        found = np.zeros_like(run.confusion(step))
        for image_id, labels in zip(ids, maps, strict=True):
            truth = table[read_values(source.mask("val", image_id))]
            np.add.at(found, (truth[truth < 255], labels[truth < 255]), 1)
        assert np.array_equal(found, run.confusion(step))
        assert len(np.unique(np.concatenate(maps))) > 2


def test_a_photograph_in_every_form(run, photograph):
    with Image.open(photograph) as image:
        pixels = np.array(image)
        of_file = run.predict(photograph)
        assert of_file.shape == (30, 50) and of_file.dtype == np.uint8
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        for form in (str(photograph), image, pixels, tensor, np.asfortranarray(pixels)):
            assert np.array_equal(run.predict(form), of_file)
    for several in ([photograph], (pixels,), tensor[None], pixels[None]):
        (alone,) = run.predict(several)
        assert np.array_equal(alone, of_file)
    assert [m.shape for m in run.predict(torch.stack([tensor, tensor]))] == [(30, 50)] * 2
    assert run.predict([]) == []


@pytest.mark.parametrize(
    "device, message",
    [
        (
            "cuda",
            "device cuda: PyTorch sees none of this kind here (sparcl env shows what it sees)",
        ),
        ("cuda:7", "device cuda:7: PyTorch sees none of this kind here"),
        ("meta", "device meta: PyTorch sees none of this kind here"),
        ("foo", "device 'foo' is none: give cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_device_that_is_not_there(run, photograph, device, message, monkeypatch):
    """A RuntimeError of PyTorch's, with its traceback."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError) as error:
        run.predict(photograph, device=device)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_run_holds_two_networks_and_hands_on_none(run):
    """All that had predicted stayed for good, and went with the run to other processes."""
    photograph = np.zeros((8, 8, 3), np.uint8)
    for step, device in ((0, "cpu"), (1, "cpu"), (0, "cpu:0"), (1, "cpu")):
        expected = run.predict(photograph, step=step, device=device)
    assert [*run._networks] == [(0, "cpu:0"), (1, "cpu")]
    there = pickle.dumps(run)
    assert len(there) < 20_000
    again = pickle.loads(there)
    assert again.folder == run.folder and np.array_equal(
        again.predict(photograph, device="cpu"), expected
    )


def test_photographs_are_rgb_and_upright(tmp_path):
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    image = Image.fromarray(colours)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_photograph(tmp_path / "turned.png").shape == (3, 4, 2)
    palette = image.convert("P")
    palette.info["transparency"] = bytes(16)
    for mode in (image.convert("L"), image.convert("RGBA"), palette):
        assert read_photograph(mode).shape == (3, 2, 4)
    grey = read_photograph(image.convert("L"))
    assert torch.equal(grey[0], grey[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of an array that nobody may write to
        assert np.array_equal(read_photograph(np.asarray(image)).permute(1, 2, 0), colours)


NO_PHOTOGRAPHS = {
    "floats": (np.zeros((4, 4, 3)), "a float64 ndarray of shape (4, 4, 3) is no photograph"),
    "grey": (np.zeros((4, 4), np.uint8), "shape (4, 4) is no photograph: give a file"),
    "channels last": (torch.zeros(4, 4, 3, dtype=torch.uint8), "uint8 Tensor of shape (4, 4, 3)"),
    "nothing": (np.zeros((0, 4, 3), np.uint8), "shape (0, 4, 3)"),
    "a number": (3, "3 is no photograph: give a file, a PIL image, a uint8 array"),
}


@pytest.mark.parametrize("name", NO_PHOTOGRAPHS)
def test_what_is_no_photograph(run, name):
    thing, message = NO_PHOTOGRAPHS[name]
    with pytest.raises(UserError) as error:
        run.predict(thing)
    assert message in str(error.value) and "\n" not in str(error.value)


def unknowing(unknown: bool):
    torch.manual_seed(0)
    spec = NetworkSpec(
        "mini", (4, 3), output_stride=4, head="conv", head_channels=8, unknown=unknown
    )
    return build_segmenter(spec).eval()


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("shape", [(40, 40), (23, 61), (120, 80)])
@torch.no_grad()
def test_large_and_small_photographs(unknown, shape):
    """Shorter side to 40 pixels, nothing cut off; logits brought back, the class decided there."""
    model = unknowing(unknown)
    pixels = torch.randint(256, (3, *shape), dtype=torch.uint8)
    (labels,) = predict_photographs(model, [pixels], size=40, batch_size=8)
    seen = prediction.v2.Resize(40, antialias=True)(pixels)
    assert min(seen.shape[1:]) == 40

    class Enlarged(torch.nn.Module):
        def forward(self, images):
            output = model(images)
            logits, more = (
                None if x is None else torch.nn.functional.interpolate(x, shape, mode="bilinear")
                for x in (output.logits, output.unknown)
            )
            return replace(output, low_res_logits=logits, low_res_unknown=more, upsample_to=shape)

    expected = predict(Enlarged(), normalise(seen[None]))[0]
    assert labels.shape == shape and np.array_equal(labels, expected.numpy())


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")]
)
def test_photographs_that_do_not_fit_into_the_memory(run, photograph, error, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sparcl_lib.models.Segmenter.forward", fail)
    message = r"for 2 photographs of up to \d+ x \d+ pixels, seen at \d+ x \d+: scale down"
    with pytest.raises(UserError, match=message):
        run.predict([photograph, photograph])
    monkeypatch.setattr(
        "sparcl_lib.models.Segmenter.forward", lambda *_: torch.zeros(1) @ torch.zeros(2)
    )
    with pytest.raises(RuntimeError, match="size"):  # any other fault is shown whole
        run.predict(photograph)


def test_photographs_of_many_sizes_keep_their_order(run):
    rng = np.random.default_rng(1)
    shapes = [(64, 64), (64, 64), (70, 90), (64, 64), (20, 20), (64, 64)]
    images = [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]
    together = run.predict(images)
    assert [labels.shape for labels in together] == shapes
    agree = [(run.predict(i) == labels).mean() for i, labels in zip(images, together, strict=True)]
    assert min(agree) > 0.999  # batches of another size may differ in the last digit


# Many runs
def test_compare_and_ablate(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    variants = {"one": ("MiB", {}), "two": ("MiB", {"method.classifier_init": "random"})}
    table = sparcl_lib.compare(
        "minivoc", variants, tasks=["6-4"], seeds=[0, 1], settings=QUICK, jobs=1
    )
    assert list(table.groupby(["method", "seed", "step"]).size()) == [1] * 8
    assert {"miou_all", "forgetting", "seconds", "run"} <= set(table)
    again = sparcl_lib.compare(
        "minivoc", ["MiB"], tasks=["6-4"], settings=QUICK, store=tmp_path, jobs=1
    )
    ablated = sparcl_lib.ablate("minivoc", "MiB", ["kd"], task="6-4", settings=QUICK, jobs=1)
    assert ablated["run"][0] == again["run"][0] and ablated["kd"].tolist() == [True, False]
    single = train("minivoc", "MiB", task="6-4", settings=QUICK)
    assert single.folder.name == again["run"][0]
    for call in (
        lambda: sparcl_lib.compare("minivoc", "MiB", tasks=["6-4"]),
        lambda: sparcl_lib.compare("minivoc", ["MiB"], tasks="6-4"),
        lambda: sparcl_lib.ablate("minivoc", "MiB", "kd", task="6-4"),
    ):
        with pytest.raises(UserError, match=r"are a list, as in \["):
            call()


def test_many_runs_want_at_least_one_of_each():
    """Empty lists were an IndexError, a number a TypeError."""
    compare = partial(sparcl_lib.compare, "minivoc", settings=QUICK, jobs=1)
    ablate = partial(sparcl_lib.ablate, "minivoc", "MiB", task="6-4", settings=QUICK, jobs=1)
    for what, call in (
        ("methods", lambda: compare([], tasks=["6-4"])),
        ("methods", lambda: compare({}, tasks=["6-4"])),
        ("tasks", lambda: compare(["FT"], tasks=[])),
        ("setups", lambda: compare(["FT"], tasks=["6-4"], setups=())),
        ("seeds", lambda: compare(["FT"], tasks=["6-4"], seeds=[])),
        ("orders", lambda: compare(["FT"], tasks=["6-4"], orders=[])),
        ("seeds", lambda: ablate(["kd"], seeds=[])),
        ("terms", lambda: ablate([])),
    ):
        with pytest.raises(UserError, match=f"{what} are a list of at least one, got an empty one"):
            call()
    for call in (lambda: compare(["FT"], tasks=["6-4"], seeds=0), lambda: ablate(["kd"], seeds=0)):
        with pytest.raises(UserError, match=r"seeds are a list, as in \[0\]"):
            call()


def test_a_run_that_fails_is_warned_of(tmp_path):
    broken = {"fine": ("FT", {}), "broken": ("FT", {"optim.lr": 1e30})}
    settings = {**QUICK, "optim.iterations": 4}
    with pytest.warns(UserWarning, match="failed, and left out: broken, 6-4 disjoint, seed 0"):
        table = sparcl_lib.compare(
            "minivoc", broken, tasks=["6-4"], settings=settings, store=tmp_path, jobs=1
        )
    assert set(table["method"]) == {"fine"}


# The command
def test_sparcl_compare_wants_at_least_one_method(tmp_path, capsys):
    command = ("compare", "--dataset", "minivoc", "--tasks", "6-4", "--out", tmp_path / "out")
    empty = tmp_path / "rows.yaml"
    empty.write_text("{}", "utf-8")
    for more, message in (
        (("--methods", ""), "--methods is empty: give a value"),
        (("--methods=",), "--methods is empty: give a value"),
        (("--methods", "FT,"), "--methods 'FT,': expected names with commas, as in a,b"),
        (("--methods", "FT", "--set", "method.name=MiB"), "method.name='MiB' would name every"),
        (("--methods", "FT", "--accelerator", "tpu"), "accelerator tpu: PyTorch sees no such"),
        (("--variants", empty), "rows.yaml has no row: give one, as random start: {method: MiB"),
    ):
        status, _, error = sparcl(capsys, *command, *more)
        assert status == 2 and message in error and "\n" not in error


def test_sparcl_predict(run, photograph, tmp_path, capsys):
    second = tmp_path / "second.png"
    Image.fromarray(np.full((40, 20, 3), 200, np.uint8)).save(second)
    out = tmp_path / "maps" / "new"
    status, printed, _ = sparcl(capsys, "predict", run.folder, photograph, second, "--out", out)
    assert status == 0 and printed.startswith("2 maps of class ids")
    assert {file.name for file in out.iterdir()} == {
        "areas.csv", "photo.png", "photo-overlay.png", "second.png", "second-overlay.png"
    }  # fmt: skip
    table = pd.read_csv(out / "areas.csv")
    assert list(table) == ["image", "class_id", "class", "colour", "pixels", "percent"]
    for image in (photograph, second):
        labels = run.predict(image)
        with Image.open(out / f"{image.stem}.png") as mask:
            assert mask.mode == "P" and np.array_equal(np.array(mask), labels)
            assert mask.getpalette()[:33] == class_palette(11).ravel().tolist()  # as in all figures
        with Image.open(out / f"{image.stem}-overlay.png") as overlay:
            whole, pixels = np.array(overlay), read_photograph(image).permute(1, 2, 0).numpy()
            shown = whole[: labels.shape[0], : labels.shape[1]]
            legend = {tuple(colour) for colour in whole[labels.shape[0] :].reshape(-1, 3).tolist()}
            assert all(
                (tuple(colour) in legend) == (index in labels)
                for index, colour in enumerate(class_palette(11).tolist())
                if index
            )
            assert np.array_equal(shown[labels == 0], pixels[labels == 0])
            assert (shown[labels > 0] != pixels[labels > 0]).any() == (labels > 0).any()
        rows = table[table["image"] == str(image)]
        assert rows["class"].tolist() == list(run.classes)
        assert rows["colour"].iloc[1] == "#" + class_palette(2)[1].tobytes().hex()
        assert rows["pixels"].tolist() == np.bincount(labels.ravel(), minlength=11).tolist()
        assert rows["percent"].sum() == pytest.approx(100, abs=0.01)
    first = ("predict", run.folder, photograph, "--out", out, "--step", 0)
    status, _, error = sparcl(capsys, *first)
    assert status == 2 and "photo.png is there already: choose another --out, or add --ov" in error
    assert sparcl(capsys, *first, "--overwrite")[0] == 0
    table = pd.read_csv(out / "areas.csv").set_index("image")["class"]
    assert table[str(photograph)].tolist() == list(run.classes[:7])
    assert table[str(second)].tolist() == list(run.classes)  # its map is still there


def test_photographs_are_known_by_their_names_whatever_these_look_like(photograph, tmp_path):
    """001 became the number 1, and a name that is not UTF-8 ended in a traceback after the maps."""
    out, nothing = tmp_path / "maps", np.zeros((30, 50), np.uint8)
    for name in ("001", "002", "001"):
        image = tmp_path / name
        image.write_bytes(photograph.read_bytes())
        write_label_maps(lambda _: nothing, ["background"], [image], out, overwrite=True)
    listed = pd.read_csv(out / "areas.csv", dtype=str)["image"].tolist()
    assert listed == [str(tmp_path / "002"), str(tmp_path / "001")]
    odd = tmp_path / "caf\udce9.png"
    with pytest.raises(UserError, match=r"caf.udce9.png': its name is not UTF-8; rename it"):
        write_label_maps(lambda _: nothing, ["background"], [odd], out, overwrite=True)


def test_the_areas_list_every_map_of_a_folder(photograph, tmp_path):
    """A second call dropped the rows of the first, and refused its maps as somebody else's."""
    others = [tmp_path / f"{name}.png" for name in ("=a", "b", "None")]
    for other in others:
        other.write_bytes(photograph.read_bytes())
    out, seen = tmp_path / "maps", []

    def stopped(image):
        seen.append(image)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return np.zeros((30, 50), np.uint8)

    def listed():
        return pd.read_csv(out / "areas.csv", keep_default_na=False)["image"].unique().tolist()

    known = ["background", "a"]
    write_label_maps(stopped, known, others[:2], out)
    assert listed() == [str(others[0]), str(others[1])]
    with pytest.raises(KeyboardInterrupt):
        write_label_maps(stopped, known, [others[2], others[0]], out, overwrite=True)
    assert sorted(listed()) == sorted(str(other) for other in others)
    (out / "b.png").unlink()
    table = write_label_maps(stopped, known, [others[0]], out, overwrite=True)
    assert table["image"].unique().tolist() == [str(others[0])]
    assert sorted(listed()) == sorted([str(others[0]), str(others[2])])
    with pytest.raises(UserError, match="no image to look at"):
        write_label_maps(stopped, known, [], out)


def test_sparcl_predict_replaces_its_own_files_alone(run, photograph, tmp_path, capsys):
    """--overwrite replaced a photograph that lay in the folder."""
    out = tmp_path / "maps"
    out.mkdir()
    mine = out / "photo.png"
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(mine)
    before = mine.read_bytes()
    command = ("predict", run.folder, photograph, "--out", out, "--overwrite")
    for areas in (None, "image,class_id\nother.jpg,0\n", "a,b\n1,2\n", ""):
        if areas is not None:
            (out / "areas.csv").write_text(areas, "utf-8")
        status, _, error = sparcl(capsys, *command)
        assert (
            status == 2
            and "is not listed in an areas.csv of an earlier call: choose another" in error
        )
        assert mine.read_bytes() == before and "\n" not in error
    mine.unlink(), (out / "areas.csv").unlink()
    assert sparcl(capsys, *command)[0] == sparcl(capsys, *command)[0] == 0


def test_what_sparcl_predict_refuses(run, photograph, tmp_path, capsys):
    twin = tmp_path / "more" / "PHOTO.jpeg"
    twin.parent.mkdir()
    twin.write_bytes(photograph.read_bytes())
    text = tmp_path / "notes.txt"
    text.write_text("no image", "utf-8")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photograph.read_bytes()[:600])
    png = tmp_path / "beside.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(png)
    before = png.read_bytes()
    out = tmp_path / "out"
    cases = [
        ((run.folder, photograph, twin, "--out", out), "would both be written as"),
        ((run.folder, photograph, text, "--out", out), "notes.txt is no image that can be read"),
        (
            (run.folder, photograph, cut, "--out", out),
            "cut.jpg cannot be read (",
        ),
        ((run.folder, tmp_path / "none.jpg", "--out", out), "is not there; correct its name"),
        ((run.folder, tmp_path, "--out", out), "is a folder; name a file"),
        ((run.folder, png, "--out", tmp_path, "--overwrite"), "beside.png is one of the images"),
        ((run.folder, photograph, "--out", text), "notes.txt"),
        ((run.folder, photograph, "--out", out, "--step", 2), "has no step 2: it has 0, 1"),
        ((tmp_path / "no-run", photograph, "--out", out), "no-run is no run directory"),
    ]
    for arguments, message in cases:
        status, printed, error = sparcl(capsys, "predict", *arguments)
        assert status == 2 and printed == "" and message in error, arguments
        assert error.startswith("sparcl: ") and "\n" not in error
    assert not out.exists() and png.read_bytes() == before


# What a reader found
@pytest.mark.parametrize(
    "options, message",
    [
        ({"seeds": 3}, "unknown argument of train 'seeds'; did you mean 'seed'?"),
        (
            {"acelerator": "cpu"},
            "unknown argument of train 'acelerator'; did you mean 'accelerator'",
        ),
        (
            {"precision": "bf16-mixed"},
            'precision is a setting, not an argument of train: give it as settings={"precision": '
            "'bf16-mixed'}",
        ),
        (
            {"batch_size": 4},
            "batch_size is a setting, not an argument of train: give it as "
            'settings={"data.batch_size": 4}',
        ),
        (
            {"optim": {"lr": 1}},
            "optim is a setting, not an argument of train: give it as settings=",
        ),
    ],
)
def test_a_misspelt_argument_is_not_swallowed(options, message):
    with pytest.raises(UserError) as error:
        train("minivoc", "FT", task="6-4", settings=QUICK, **options)
    assert str(error.value).startswith(message)


def test_a_row_of_a_table_leads_to_its_run(tmp_path):
    table = sparcl_lib.compare(
        "minivoc", ["FT"], tasks=["6-4"], settings=QUICK, store=tmp_path, jobs=1
    )
    found = load_run(table["folder"].iloc[-1])
    assert found.metrics["steps"][-1]["miou_all"] == table["miou_all"].iloc[-1]
    with pytest.raises(UserError, match="step 0 was trained in another folder"):
        found.log(0)


def test_a_variant_without_settings_is_refused():
    with pytest.raises(UserError, match="'a' must be \\(method, settings\\)"):
        sparcl_lib.compare("minivoc", {"a": "FT"}, tasks=["6-4"])
