"""Networks as ONNX files: the same logits, the same label maps, and what a stranger needs."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sparcl
from PIL import Image

from sparcl_lib import UserError, exporting, load_run, train
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.data.minivoc import default_root, generate
from sparcl_lib.exporting import export_onnx, load_onnx
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze
from sparcl_lib.training import evaluate

MISSING = [n for n in ("onnx", "onnxscript", "onnxruntime") if find_spec(n) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason="needs the extra export: pip install 'sparcl-lib[export]'"
)
QUICK = {"optim.iterations": [20, 10], "data.batch_size": 8, "optim.lr": 0.05}


@pytest.fixture(scope="module", autouse=True)
def small_minivoc(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        generate(default_root(), train=60, val=12, progress=False)
        yield


@pytest.fixture(scope="module")
def run(small_minivoc, tmp_path_factory):
    return _run_of("MiB", tmp_path_factory.mktemp("run"))


def _run_of(method: str, out: Path):
    """Hardly trained; the background's logit is lowered until other classes are seen too."""
    made = train("minivoc", method, task="6-4", settings=QUICK, out=out, accelerator="cpu")
    for step in made.steps:
        checkpoint = made.directory.load_checkpoint(step)
        last = [key for key in checkpoint["model"] if key.startswith("classifier.steps.0")][-1]
        checkpoint["model"][last][0] -= 2.5
        made.directory.save_checkpoint(step, checkpoint)
    evaluate(out, accelerator="cpu")
    return load_run(out)


@pytest.fixture(scope="module")
def file(run, tmp_path_factory) -> Path:
    return export_onnx(run, tmp_path_factory.mktemp("exported") / "mib.onnx")


@pytest.fixture
def photograph(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((100, 60), Image.Resampling.BICUBIC).save(path)
    return path


def test_the_file_gives_the_logits_of_torch_at_any_size(run, file):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_outputs(), session.get_inputs()
    assert (taken.name, given.name) == ("images", "logits")
    model = run.model()
    for shape in ((1, 3, 64, 64), (2, 3, 50, 91), (5, 3, 33, 40)):
        images = torch.randn(shape)
        (logits,) = session.run(None, {"images": images.numpy()})
        expected = model(images).logits.numpy()
        assert logits.shape == expected.shape and np.allclose(logits, expected, atol=1e-4)


def test_the_file_says_what_goes_in_and_what_comes_out(run, file):
    import onnx

    said = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(said["classes"]) == list(run.classes)
    assert json.loads(said["test_size"]) == 64 and json.loads(said["step"]) == 1
    assert (said["method"], said["task"], said["setup"]) == ("MiB", "6-4", "disjoint")
    assert "RGB" in said["input"] and "before softmax" in said["output"]
    pixels = np.random.default_rng(0).integers(0, 255, (1, 20, 30, 3), dtype=np.uint8)
    mean, std = (np.array(json.loads(said[name]), np.float32) for name in ("mean", "std"))
    by_the_file = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    ours = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert np.allclose(by_the_file, ours, atol=1e-5)


def test_a_photograph_becomes_the_same_map(run, file, photograph):
    network = load_onnx(file)
    assert network.classes == run.classes
    for image in (photograph, np.zeros((70, 64, 3), np.uint8)):
        theirs, ours = network.predict(image), run.predict(image, device="cpu")
        assert theirs.shape == ours.shape and theirs.dtype == np.uint8
        assert (theirs == ours).mean() > 0.999
    assert len(np.unique(run.predict(photograph))) > 1


def test_an_unknown_class_counts_as_background_in_the_file_too(tmp_path, photograph):
    import onnx

    run = _run_of("SSUL-like", tmp_path / "run")
    file = export_onnx(run, tmp_path / "ssul.onnx", step=0)
    outputs = [value.name for value in onnx.load(file).graph.output]
    assert outputs == ["logits", "unknown"]
    network = load_onnx(file)
    assert network.classes == run.classes[:7]
    assert (network.predict(photograph) == run.predict(photograph, 0, device="cpu")).mean() > 0.999


@pytest.mark.slow
def test_a_network_of_full_size_goes_into_a_file(tmp_path):
    """Dilated ResNet and ASPP, whose pooled branch has a size of its own."""
    network = freeze(build_segmenter(NetworkSpec("resnet50", (16, 1), head_channels=64)))

    class Made:
        class config:
            class data:
                test, test_size, size = "whole", None, 512

        classes, metrics = (
            tuple("abcdefghijklmnopq"),
            dict.fromkeys(("method", "dataset", "task", "setup", "seed"), "x"),
        )

        def model(self, step):
            return network

        def step_number(self, step):
            return 1

        def classes_after(self, step):
            return self.classes

    file = export_onnx(Made(), tmp_path / "resnet.onnx")
    assert load_onnx(file).test_size is None and len(load_onnx(file).classes) == 17


def test_a_file_that_differs_from_torch_is_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs from torch by .* so it is not kept"):
        export_onnx(run, tmp_path / "bad.onnx")
    assert list(tmp_path.iterdir()) == []


def test_sparcl_export_and_predict(run, photograph, tmp_path, capsys):
    status, printed, error = sparcl(capsys, "export", run.folder, "--step", 0)
    file = run.folder / "step-0" / "network.onnx"
    assert (status, error) == (0, "") and printed == f"{file}: 7 classes after step 0\n"
    status, _, error = sparcl(capsys, "export", run.folder, "--step", 0)
    assert status == 2 and "is there already: choose another --out, or add --overwrite" in error
    status, _, error = sparcl(capsys, "export", run.folder, "--out", tmp_path / "net.bin")
    assert status == 2 and "net.bin does not end in .onnx" in error  # predict refused it
    assert not (tmp_path / "net.bin").exists()
    by_file, by_run = tmp_path / "file", tmp_path / "run"
    assert sparcl(capsys, "predict", file, photograph, "--out", by_file)[0] == 0
    assert sparcl(capsys, "predict", run.folder, photograph, "--step", 0, "--out", by_run)[0] == 0
    maps = [np.array(Image.open(place / "photo.png")) for place in (by_file, by_run)]
    assert (maps[0] == maps[1]).mean() > 0.999
    rows = [
        len((place / "areas.csv").read_text("utf-8").splitlines()) for place in (by_file, by_run)
    ]
    assert rows == [8, 8]


def test_what_export_and_predict_refuse(run, file, photograph, tmp_path, capsys):
    text = tmp_path / "notes.onnx"
    text.write_text("no network", "utf-8")
    out = ("--out", tmp_path / "maps")
    cases = [
        (("export", run.folder, "--format", "onx"), "unknown format 'onx'; did you mean 'onnx'?"),
        (("export", run.folder, "--step", 5), "has no step 5: it has 0, 1"),
        (("export", tmp_path / "none"), "is no run directory"),
        (("predict", text, photograph, *out), "is not a file of sparcl export"),
        (("predict", tmp_path / "gone.onnx", photograph, *out), "gone.onnx is no file"),
        (("predict", file, photograph, *out, "--step", 0), "holds one step"),
    ]
    for arguments, message in cases:
        status, printed, error = sparcl(capsys, *arguments)
        assert status == 2 and printed == "" and message in error, arguments
        assert "\n" not in error


@pytest.mark.parametrize("command", ["export", "predict"])
def test_without_the_extra_a_line_says_how_to_get_it(run, file, photograph, tmp_path, command):
    arguments = {
        "export": ["export", str(run.folder), "--out", str(tmp_path / "x.onnx")],
        "predict": ["predict", str(file), str(photograph), "--out", str(tmp_path / "maps")],
    }[command]
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        f"from sparcl_lib.cli import main; main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    advice = "sparcl: onnxruntime is not installed: pip install 'sparcl-lib[export]'\n"
    assert done.returncode == 2 and done.stderr.endswith(advice)
