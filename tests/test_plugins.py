"""Mechanisms and backbones that stand outside the library: what a run, a key and a stop make of
them. Terms: tests/methods/test_registry.py."""

import linecache
import re
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent
from unittest.mock import patch

import pytest
import torch
from tiny_runs import sparcl, tiny

from sparcl_lib import load_run
from sparcl_lib.config import to_plain
from sparcl_lib.data import minivoc
from sparcl_lib.errors import OutsideFailed, UserError
from sparcl_lib.experiments.base import open_store
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.experiments.store import run_keys
from sparcl_lib.methods import (
    ADDED_MECHANISMS,
    TERMS,
    Mechanism,
    build_method,
    mechanism,
    method_to_plain,
    term,
)
from sparcl_lib.models import BACKBONES, Backbone, backbone, build_backbone
from sparcl_lib.plugins import load_files, load_plugins, outside, tell_of_unused
from sparcl_lib.report import load_runs, render
from sparcl_lib.training import RunDirectory, evaluate, train
from sparcl_lib.training.step import StepTrainer

PLUGIN = """
    import torch
    from torch import nn
    from sparcl_lib import backbone, mechanism
    from sparcl_lib.methods import Mechanism, state_of
    from sparcl_lib.models import Backbone

    WIDTH = 16

    @mechanism(acts_later=("pull",))
    class Anchored(Mechanism):
        \"\"\"The classifier's first weights are drawn to where they were. Nothing else.

        pull: How far, each time. every: Iterations between two times.
        \"\"\"

        name = "anchored"

        def __init__(self, *, pull: float = 0.1, every: int = 1) -> None:
            self.pull, self.every = pull, every

        def prepare(self, student, before):
            self.weights = student.classifier.steps[0].weight
            self.anchor = None if before is None else state_of(self, before)["anchor"]

        def before_step(self, trainer, batches):
            self.count = 0

        def progress(self):
            return {"count": self.count}

        def go_on(self, trainer, progress):
            self.count = progress["count"]

        def after_update(self):
            self.count += 1
            if self.anchor is not None and self.count % self.every == 0:
                with torch.no_grad():
                    self.weights.lerp_(self.anchor.to(self.weights.device), self.pull)

        def state_dict(self):
            return {"anchor": self.weights.detach().clone()}

    @mechanism(first_step=1)
    class Late(Mechanism):
        name = "late"

        def after_step(self):
            pass

    @backbone(strides=(4,))
    def two_layers(output_stride, weights):
        layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, WIDTH, 3, 2, 1), nn.ReLU()]
        return Backbone(layers, dim=WIDTH, stride=output_stride, stages=(1, 3))
"""
OWN = ("method.mechanisms.anchored.pull=0.2", "model.backbone=two_layers")


@pytest.fixture(autouse=True)
def registries():
    """Each test has the library's alone, and leaves no more."""
    with patch.dict(TERMS), patch.dict(ADDED_MECHANISMS), patch.dict(BACKBONES):
        yield


def forget():
    """As in another process, which has read no plugin."""
    ADDED_MECHANISMS.clear()
    for name in [n for n, found in BACKBONES.items() if not found.of_library]:
        del BACKBONES[name]
    for name in [name for name in sys.modules if name.startswith("sparcl_plugin_")]:
        del sys.modules[name]
    linecache.clearcache()


@pytest.fixture
def plugin(tmp_path):
    def write(source=PLUGIN):
        file = tmp_path / "mine.py"
        file.write_text(dedent(source), "utf-8")
        forget()
        load_plugins([file])
        return file

    return write


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "minivoc"
    minivoc.generate(folder, train=60, val=12, size=32, progress=False)
    return str(folder)


# A run
def test_a_run_with_both_is_trained_read_and_reported(root, plugin, tmp_path):
    file = plugin()
    config, run = tiny(root, *OWN, "optim.iterations=3"), tmp_path / "run"
    metrics = train(config, run, accelerator="cpu")
    loaded = load_run(run)
    assert loaded.model().backbone.dim == 16 and loaded.bank().prototypes.shape[1] == 16
    saved = RunDirectory(run).load_checkpoint(0)
    weight = saved["model"]["classifier.steps.0.weight"]
    assert torch.equal(saved["mechanisms"]["anchored"]["anchor"], weight)
    assert set(saved["terms"]) == {"mechanism anchored", "backbone two_layers"}
    later = RunDirectory(run).load_checkpoint(1)["model"]["classifier.steps.0.weight"]
    train(tiny(root, OWN[1], "optim.iterations=3"), tmp_path / "free", accelerator="cpu")
    free = RunDirectory(tmp_path / "free").load_checkpoint(1)["model"]["classifier.steps.0.weight"]
    assert (later - weight).norm() < 0.7 * (free - weight).norm(), "it was held"
    forget()
    unknown = "unknown backbone 'two_layers': model.backbone is one of .*--plugin FILE.py"
    for read in (loaded.model, lambda: evaluate(run, accelerator="cpu")):
        with pytest.raises(UserError, match=unknown):
            read()
    with pytest.raises(UserError, match="unknown mechanism 'anchored': give the file that defines"):
        train(RunDirectory(run).config(), run, resume=True, accelerator="cpu")
    assert "| minivoc |" in render(load_runs([run]), "md")
    assert to_plain(RunDirectory(run).config()) == to_plain(config)
    load_plugins([file])
    again = evaluate(run, accelerator="cpu")
    assert again["steps"] == metrics["steps"]


def test_a_method_with_a_mechanism_is_named_by_it(root, plugin, tmp_path):
    """It stood in tables, and beside published rows, as the method itself."""
    plugin()
    for name, settings in {"own": (OWN[0],), "bare": ()}.items():
        train(tiny(root, *settings), tmp_path / name, accelerator="cpu")
    table = render(load_runs([tmp_path / "own", tmp_path / "bare"]), "md")
    assert "| FT + anchored |" in table and "| FT |" in table


def test_without_a_mechanism_a_run_is_still_evaluated(root, plugin, tmp_path):
    plugin()
    metrics = train(tiny(root, OWN[0]), tmp_path / "run", accelerator="cpu")
    forget()
    assert evaluate(tmp_path / "run", accelerator="cpu")["steps"] == metrics["steps"]


def test_a_backbone_that_says_something_else_is_refused(root, plugin, tmp_path):
    """Its weights fit, and would compute something else."""
    plugin()
    run = tmp_path / "run"
    train(tiny(root, OWN[1]), run, accelerator="cpu")
    plugin(PLUGIN.replace("3, 2, 1), nn.ReLU()]", "3, 2, 1), nn.Tanh()]"))
    for read in (load_run(run).model, lambda: evaluate(run, accelerator="cpu")):
        with pytest.raises(UserError, match="backbone two_layers says something else now"):
            read()
    with pytest.raises(UserError, match="backbone two_layers says something else now than when st"):
        train(RunDirectory(run).config(), run, resume=True, accelerator="cpu")
    plugin(PLUGIN + "\n    # a comment\n")
    assert load_run(run).model().backbone.dim == 16


def test_it_goes_on_inside_a_step(root, plugin, tmp_path, monkeypatch):
    """Stopped after the second iteration, where what the mechanism has counted decides."""
    plugin()
    settings = (*OWN, "method.mechanisms.anchored.every=2", "save_minutes=0", "optim.iterations=3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny(root, *settings), whole, accelerator="cpu")
    update = StepTrainer._update

    def stopping(trainer, context, iteration):
        if trainer.plan.step == 1 and iteration == 2:
            raise KeyboardInterrupt
        return update(trainer, context, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(root, *settings), broken, accelerator="cpu")
    assert RunDirectory(broken).steps_done() == [0]
    train(tiny(root, *settings), broken, resume=True, accelerator="cpu")
    one, other = (RunDirectory(run).load_checkpoint(1)["model"] for run in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


# Keys
def test_what_a_key_holds(root, plugin, monkeypatch):
    plugin()
    keys = {
        name: run_keys(tiny(root, *settings))
        for name, settings in {
            "none": (),
            "off": (OWN[0], "method.mechanisms.anchored.enabled=false"),
            "on": ("method.mechanisms.anchored.enabled=true",),
            "default": ("method.mechanisms.anchored.pull=0.1",),
            "pull": (OWN[0],),
            "every": ("method.mechanisms.anchored.every=2",),
            "late": ("method.mechanisms.late.enabled=true",),
            "backbone": (OWN[1],),
        }.items()
    }
    assert keys["off"] == keys["none"] and keys["default"] == keys["on"]
    assert len({key.run for key in keys.values()}) == 6
    assert keys["late"].first == keys["none"].first, "it changes nothing at step 0"
    assert keys["pull"].first == keys["on"].first != keys["none"].first
    assert keys["every"].first != keys["on"].first and keys["backbone"].first != keys["none"].first
    plugin(PLUGIN.replace("self.count += 1", "self.count += 2"))
    assert run_keys(tiny(root, *OWN[:1])) != keys["pull"]
    assert run_keys(tiny(root, OWN[1])) == keys["backbone"]
    plugin(PLUGIN.replace("WIDTH = 16", "WIDTH = 24"))
    assert run_keys(tiny(root, OWN[1])) != keys["backbone"]
    assert run_keys(tiny(root, *OWN[:1])) == keys["pull"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_they_travel_to_the_pool(root, plugin, tmp_path, jobs):
    plugin()
    configs = [tiny(root, *OWN, seed=seed) for seed in (0, 1)]
    runs, errors = run_all(configs, open_store(tmp_path / "runs"), jobs=jobs)
    assert errors == [] and runs[1].model().spec.backbone == "two_layers"


@pytest.mark.parametrize("where", ["term halved", "backbone two_layers"])
def test_what_is_changed_in_place_is_a_line(root, plugin, tmp_path, where):
    """Autograd notices it in backward, in a traceback through the library."""
    own = """
    @sparcl_lib.term
    def halved(context):
        square = context.output.features.exp()
        value = square.mean()
        square *= 0.5
        return value
    """
    layers = "nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, WIDTH, 3, 2, 1), nn.ReLU()"
    broken = "nn.Conv2d(3, WIDTH, 3, 4, 1), nn.Tanh(), nn.Dropout(0.5, True), nn.ReLU()"
    source = PLUGIN.replace("import torch\n", "import torch, sparcl_lib\n")
    settings = {
        "term halved": (source + own, "method.terms.halved.weight=0.1"),
        "backbone two_layers": (source.replace(layers, broken), OWN[1]),
    }
    plugin(settings[where][0])
    with pytest.raises(UserError, match=rf"FT step 0, iteration 0: .* look in the {where}"):
        train(tiny(root, settings[where][1]), tmp_path / "run", accelerator="cpu")


def test_what_takes_no_part_is_said(root, plugin, capsys):
    file = plugin()
    tell_of_unused([tiny(root, OWN[0])])
    said = capsys.readouterr().err
    assert f"the mechanism late and backbone two_layers of {file} take no part" in said
    tell_of_unused([tiny(root, OWN[1]), tiny(root, "method.mechanisms.late.enabled=true")])
    said = capsys.readouterr().err
    assert "mechanism anchored of" in said and "--set method.mechanisms.anchored.enabled=tr" in said
    tell_of_unused([tiny(root, *OWN, "method.mechanisms.late.enabled=true")])
    assert capsys.readouterr().err == ""


def test_plain_data_and_back(plugin):
    plugin()
    rows = {"anchored": {"pull": 0.5}, "late": {"enabled": False}}
    built = build_method({"name": "x", "terms": {"ce": {}}, "mechanisms": rows})
    assert [m.name for m in built.around(1)] == ["anchored"]
    plain = method_to_plain(built)
    assert plain["mechanisms"]["anchored"] == {"enabled": True, "pull": 0.5}
    assert build_method(plain) == built
    forget()
    with pytest.raises(UserError, match="unknown mechanism 'anchored'"):
        build_method(plain)
    kept = build_method(plain, any_term=True)
    assert method_to_plain(kept) == plain


# What goes wrong in them
def with_hook(hook, value):
    return f"""
        import collections

        import torch
        from sparcl_lib import mechanism
        from sparcl_lib.methods import LossValues, Mechanism

        @mechanism
        class Bad(Mechanism):
            name = "bad"
            reads_gradients = False

            def {hook}(self, *args):
                return {value}

            def go_on(self, trainer, progress):
                pass
    """


def test_the_order_of_mechanisms_is_part_of_a_key(root, plugin):
    """Hooks are called in it; runs of both orders had one key."""
    late = PLUGIN[PLUGIN.index("    @mechanism(first") : PLUGIN.index("    @backbone")]
    other = late.replace("(first_step=1)", "").replace("Late", "Other").replace("late", "other")
    plugin(PLUGIN + other)
    rows = [f"method.mechanisms.{name}.enabled=true" for name in ("anchored", "other", "late")]
    one, turned = run_keys(tiny(root, *rows)), run_keys(tiny(root, rows[1], rows[0], rows[2]))
    assert one.run != turned.run and one.first != turned.first
    later = run_keys(tiny(root, rows[2], *rows[:2]))
    assert later.run != one.run and later.first == one.first, "late takes no part in step 0"


def test_an_edited_backbone_is_no_damaged_checkpoint(root, plugin, tmp_path):
    """The advice was to delete it."""
    plugin()
    train(tiny(root, OWN[1]), tmp_path / "run", accelerator="cpu")
    plugin(PLUGIN.replace("WIDTH = 16", "WIDTH = 24"))
    for read in (load_run(tmp_path / "run").model, partial(evaluate, tmp_path / "run")):
        with pytest.raises(UserError, match="backbone two_layers says something else now"):
            read()


def test_a_backbone_that_remembers_is_trained(root, plugin, tmp_path):
    """It said something else when step 1 began than before step 0."""
    plugin(
        PLUGIN.replace("WIDTH = 16", "WIDTH = 16\n    CACHE = {}").replace(
            "        layers =", "        CACHE['n'] = CACHE.get('n', 0) + 1\n        layers ="
        )
    )
    metrics = train(tiny(root, OWN[1]), tmp_path / "run", accelerator="cpu")
    assert len(metrics["steps"]) == 2


HOOKS = (
    "prepare", "before_step", "batch", "context_extras", "prototype_sums", "penalty",
    "after_backward", "after_update", "after_step", "state_dict", "progress",
)  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_the_error_of_a_hook_is_a_line(root, plugin, tmp_path, hook):
    plugin(with_hook(hook, "1 / 0"))
    config = tiny(root, "method.mechanisms.bad.enabled=true", "save_minutes=0")
    said = r"^mechanism bad \(.*mine.py, line 14\): ZeroDivisionError: division by zero$"
    with pytest.raises(UserError, match=said):
        train(config, tmp_path / "run", accelerator="cpu", steps=[0])


@pytest.mark.parametrize(
    "hook, value, said",
    [
        ("batch", "None", r"batch\(\) returns a NoneType, not a StepBatch"),
        (
            "batch",
            "args[0]._replace(labels=args[0].labels[:, :9])",
            r"batch\(\) returns images and labels \(\d+, 3, (\d+), \1\) and \(\d+, 9, .*\(B, 3, .*",
        ),
        ("context_extras", "None", r"context_extras\(\) returns a NoneType, not a Mapping"),
        ("penalty", "0.5", r"penalty\(\) returns a float, not a LossValues or NoneType"),
        ("state_dict", "[1]", r"state_dict\(\) returns a list, not a dict or NoneType"),
        (
            "batch",
            "args[0]._replace(labels=args[0].labels[:1])",
            r"batch\(\) returns images .*",
        ),
        ("penalty", "LossValues(0.5, {})", r"penalty\(\) returns LossValues of something else .*"),
        ("penalty", "LossValues(torch.ones(2), {})", r"penalty\(\) returns .* scalar tensors"),
        ("penalty", "LossValues(torch.ones((), requires_grad=True), {})", ".* gradient, which .*"),
        ("prototype_sums", "(torch.ones(7), 3)", r"prototype_sums\(\) returns \(7,\) and int: .*"),
    ],
)
def test_what_a_hook_must_return(root, plugin, tmp_path, hook, value, said):
    plugin(with_hook(hook, value))
    config = tiny(root, "method.mechanisms.bad.enabled=true")
    with pytest.raises(UserError, match=f"^mechanism bad: {said}$"):
        train(config, tmp_path / "run", accelerator="cpu", steps=[0])


ENDING = """
    from sparcl_lib import mechanism
    from sparcl_lib.methods import Mechanism

    @mechanism
    class Ending(Mechanism):
        name = "ending"
        def prepare(self, student, before):
            self.student = student
        def after_step(self):
            {mistake}
            self.student.classifier.steps[0].weight.data *= 0.5
"""


def test_what_fails_after_the_last_iteration_is_mended_and_goes_on(root, plugin, tmp_path, capsys):
    """Days of training were lost, and the mended file was refused."""
    right, wrong = (ENDING.format(mistake=m) for m in ("pass", "1 / 0"))
    plugin(wrong)
    config, out = tiny(root, "method.mechanisms.ending.enabled=true"), tmp_path / "run"
    for kept in ("step-0/in_progress.pt", "step-1/in_progress.pt"):
        with pytest.raises(OutsideFailed, match="ZeroDivisionError"):
            train(config, out, accelerator="cpu", resume=True, accept_edits=True)
        assert (out / kept).is_file()
        plugin(right)
        with pytest.raises(UserError, match="restore it, or .*--accept-edits"):
            train(config, out, accelerator="cpu", resume=True)
        train(config, out, accelerator="cpu", resume=True, accept_edits=True, steps=[0])
        plugin(wrong)
    plugin(right)
    capsys.readouterr()
    train(config, out, accelerator="cpu", resume=True, accept_edits=True)
    said = capsys.readouterr().err
    assert "said something else up to iteration 2 of step 1; the edit is accepted" in said
    train(config, tmp_path / "whole", accelerator="cpu")
    for step in (0, 1):
        mended, whole = (RunDirectory(f).load_checkpoint(step) for f in (out, tmp_path / "whole"))
        assert all(torch.equal(mended["model"][k], v) for k, v in whole["model"].items())
        assert [edit["iteration"] for edit in mended["edits"]] == [2] and "edits" not in whole
        assert mended["edits"][0]["terms"] != mended["terms"] == whole["terms"]
        assert not list(out.glob("step-*/in_progress*"))


def test_a_network_that_is_broken_after_the_last_iteration_is_saved_before(root, plugin, tmp_path):
    """It was taken for a loss that ran off, and the save removed."""
    nan = "self.student.classifier.steps[0].weight.data /= 0 * self.student.training"
    plugin(ENDING.format(mistake=nan))
    config, out = tiny(root, "method.mechanisms.ending.enabled=true"), tmp_path / "run"
    with pytest.raises(
        OutsideFailed, match=r"^mechanism ending: after_step\(\) leaves .* in class"
    ):
        train(config, out, accelerator="cpu")
    assert (out / "step-0" / "in_progress.pt").is_file()
    plugin(ENDING.format(mistake="pass"))
    metrics = train(config, out, accelerator="cpu", resume=True, accept_edits=True)
    assert len(metrics["steps"]) == 2


def test_an_edited_backbone_is_never_accepted_in_a_trained_step(root, plugin, tmp_path):
    """Its weights would compute something else: no evaluation could read both steps."""
    plugin()
    config = tiny(root, OWN[1])
    train(config, tmp_path / "run", accelerator="cpu", steps=[0])
    plugin(PLUGIN.replace("nn.Conv2d(3, 8, 3, 2, 1)", "nn.Conv2d(3, 8, 3, padding=1, stride=2)"))
    with pytest.raises(UserError, match="restore it") as refused:
        train(config, tmp_path / "run", accelerator="cpu", resume=True, accept_edits=True)
    assert "accept" not in str(refused.value)


def test_a_save_without_what_each_process_had_of_its_own_goes_on(root, tmp_path):
    """As versions before 29 November 2026 wrote it."""
    config, whole = tiny(root, "optim.iterations=4", "save_minutes=0"), tmp_path / "whole"
    saved = {}

    def save(directory, step, state, anew):
        state = {key: value for key, value in state.items() if key != "added"}
        if step == 0 and state["iteration"] == 2:
            saved[step] = to_bytes(state)

    def to_bytes(state):
        torch.save(state, tmp_path / "saved.pt")
        return (tmp_path / "saved.pt").read_bytes()

    with patch.object(RunDirectory, "save_progress", save):
        train(config, whole, accelerator="cpu")
    out = tmp_path / "run"
    train(config, out, accelerator="cpu", steps=[])
    (out / "step-0").mkdir(exist_ok=True)
    (out / "step-0" / "in_progress.pt").write_bytes(saved[0])
    train(config, out, accelerator="cpu", resume=True)
    one, other = (RunDirectory(folder).load_checkpoint(1)["model"] for folder in (out, whole))
    assert all(torch.equal(one[key], value) for key, value in other.items())


def test_a_command_says_how_its_mended_plugin_goes_on(root, plugin, tmp_path):
    file = plugin(ENDING.format(mistake="1 / 0"))
    settings = (
        "data.size=32 data.batch_size=4 optim.iterations=2 method.mechanisms.ending.enabled=true"
    )
    asked = [
        *("train", "--dataset", "minivoc", "--task", "6-4", "--method", "FT", "--data-root", root),
        *(part for setting in settings.split() for part in ("--set", setting)),
        *("--out", tmp_path / "run", "--plugin", file, "--accelerator", "cpu"),
    ]
    done = sparcl(*asked)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sparcl:")]
    assert line.endswith("--resume --accept-edits goes on from the last save"), line
    file.write_text(dedent(ENDING.format(mistake="pass")), "utf-8")
    again = sparcl(*asked, "--resume", "--accept-edits")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_worker_reads_an_edited_file(tmp_path):
    """It kept what it had read, got another key than at home, and blamed the data."""
    files = [tmp_path / folder / "drawn.py" for folder in ("as_it_was", "edited")]
    names = ("drawn", "beside_it")
    for number, file in enumerate(files):
        file.parent.mkdir()
        terms = (f"@sparcl_lib.term\ndef {n}(context):\n    return {number}.0\n" for n in names)
        file.write_text("import sparcl_lib\n" + "".join(terms), "utf-8")
    for number in (0, 1, 1, 0):
        load_files({"term drawn": files[number]})
        for name in names:
            assert TERMS[name].function(None) == number and TERMS[name].file == files[number]
    files[1].write_bytes(files[0].read_bytes())  # the same at another place
    load_files({"term drawn": files[1]})
    assert TERMS["drawn"].file == files[0]


SAVED = (
    "{'a': object()}", "{'a': [print]}", "{'b': (1, {2})}", "{'c': collections.OrderedDict()}",
    "{(1, object()): 2}",
)  # fmt: skip


@pytest.mark.parametrize("value", SAVED)
def test_what_cannot_be_loaded_again_is_not_saved(root, plugin, tmp_path, value):
    """The step would be lost at the next one, which cannot read its checkpoint."""
    plugin(with_hook("state_dict", value))
    with pytest.raises(UserError, match=r"mechanism bad: state_dict\(\).* holds a .*: a check"):
        train(
            tiny(root, "method.mechanisms.bad.enabled=true"),
            tmp_path / "run", accelerator="cpu", steps=[0],
        )  # fmt: skip


def test_a_teacher_is_there_for_a_mechanism_that_needs_it(root, plugin, tmp_path):
    looking = """
        from sparcl_lib import mechanism
        from sparcl_lib.methods import Mechanism

        @mechanism(needs_teacher={needs})
        class Looking(Mechanism):
            name = "looking"
            def before_step(self, trainer, batches):
                self.found = trainer.teacher is not None
            def go_on(self, trainer, progress):
                self.before_step(trainer, ())
            def state_dict(self):
                return {{"found": self.found}}
    """
    for needs in (True, False):
        plugin(looking.format(needs=needs))
        run = tmp_path / str(needs)
        train(tiny(root, "method.mechanisms.looking.enabled=true"), run, accelerator="cpu")
        found = [RunDirectory(run).load_checkpoint(k)["mechanisms"]["looking"] for k in (0, 1)]
        assert found == [{"found": False}, {"found": needs}]


def test_gradients_are_not_read_where_they_are_scaled(root, plugin):
    reading = PLUGIN.replace('name = "late"', 'name = "late"\n        reads_gradients = True\n')
    plugin(reading)
    config = tiny(root, "method.mechanisms.late.enabled=true", "precision=16-mixed")
    with pytest.raises(UserError, match=r"16-mixed are scaled, so method.mechanisms.late cannot"):
        train(config, "not made", accelerator="cpu")


class Bare(Mechanism):
    name = "bare"


class Mistyped(Mechanism):
    name = "mistyped"

    def after_updates(self): ...


class More(Mechanism):
    name = "more"

    def after_update(self, trainer): ...


class Scaled(Mechanism):
    name = "scaled"

    def after_backward(self): ...

    def go_on(self, trainer, progress): ...


class Moving(Mechanism):
    name = "moving"

    def after_update(self): ...


class Fewer(Mechanism):
    name = "fewer"

    def prepare(self, student): ...


class GoesOn(Mechanism):
    name = "goes_on"

    def before_step(self, trainer, batches): ...


class Spaced(Mechanism):
    name = "my name.x"


class Positional(Mechanism):
    name = "positional"

    def __init__(self, share) -> None: ...


class Nameless(Mechanism): ...


class Fuse(Mechanism):
    name = "fuse"


class Enabled(Mechanism):
    name = "enabled_twice"

    def __init__(self, *, enabled: bool = True) -> None: ...


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: mechanism(3), "takes a class of sparcl_lib.methods.Mechanism, not 3"),
        (lambda: mechanism(dict), "takes a class of sparcl_lib.methods.Mechanism"),
        (lambda: mechanism(Positional), r"positional must take options by keyword.*mend share"),
        (lambda: mechanism(Nameless), 'Nameless needs a name .* as in name = "nameless"'),
        (
            lambda: mechanism(Spaced),
            "; 'my name.x' is none of letters, digits and _",
        ),
        (lambda: mechanism(Mistyped), "after_updates is no hook; did you mean after_update"),
        (lambda: mechanism(More), r"More: write def after_update\(self\)$"),
        (lambda: mechanism(Fewer), r"Fewer: write def prepare\(self, student, before\)$"),
        (lambda: mechanism(GoesOn), r"GoesOn needs go_on, .* progress\): self.before_step\(tr"),
        (lambda: mechanism(Moving), r"Moving needs go_on, .* def go_on\(.* progress\): pass$"),
        (lambda: mechanism(Scaled), "Scaled has after_backward, so say in its body reads_gradien"),
        (
            lambda: mechanism(first_step="1")(Bare),
            "first_step is a whole number from 0 on, got '1'",
        ),
        (lambda: mechanism(needs_teacher=1)(Bare), "needs_teacher is True or False, got 1"),
        (lambda: mechanism(Fuse), "fuse is a mechanism of the library: give Fuse another name"),
        (lambda: mechanism(Enabled), "every mechanism has enabled: give the option"),
        (lambda: mechanism(acts_later="a")(Bare), r"names in a tuple, as in \('a',\)"),
        (lambda: mechanism(acts_later=("a",))(Bare), "bare has no option 'a' that @mechanism"),
    ],
)
def test_a_class_that_is_no_mechanism(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()
    assert ADDED_MECHANISMS == {}


def build(output_stride, weights):
    return Backbone([torch.nn.Conv2d(3, 4, 3, 4, 1)], dim=4, stride=output_stride)


def mini(output_stride, weights):
    return build(output_stride, weights)


def nothing(output_stride, weights):
    return torch.nn.Identity()


def broken(output_stride, weights):
    return 1 / 0


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: backbone(strides=(4,))(mini), "mini is a backbone of the library"),
        (
            lambda: backbone(strides=4)(build),
            r"strides are whole numbers in a tuple, as in \(16",
        ),
        (lambda: backbone(strides=())(build), "strides are whole numbers"),
        (lambda: backbone(strides=(4,))(lambda s, w: s), "takes a function with a name"),
        (lambda: backbone(strides=(4,))(tiny), "backbone tiny must take output_stride and weights"),
    ],
)
def test_a_function_that_is_no_backbone(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


def test_what_a_backbone_must_give():
    for function in (build, nothing, broken):
        backbone(strides=(4,))(function)
    assert build_backbone("build", 4).dim == 4
    with pytest.raises(UserError, match="backbone build has output stride 4, not 16"):
        build_backbone("build", 16)
    with pytest.raises(UserError, match=r"nothing must return a Backbone, as in .* got a Identity"):
        build_backbone("nothing", 4)
    with pytest.raises(UserError, match=r"^backbone broken \(.*test_plugins.py, line \d+\): Zero"):
        build_backbone("broken", 4)


BUILDS = """
    from torch import nn
    from sparcl_lib import backbone
    from sparcl_lib.models import Backbone

    WIDTHS = iter(range(8, 99))

    @backbone(strides=(4, 8))
    def mine(output_stride, weights):
        return {}
"""
CONVOLUTION = "Backbone([nn.Conv2d(3, 16, 4, 4)], dim=16, stride=4)"
BROKEN = {
    "channels": (
        CONVOLUTION.replace("dim=16", "dim=12"),
        r"says dim=12, .* features \(1, 16, 8, 8",
    ),
    "stride": (CONVOLUTION.replace("stride=4", "stride=8"), r"stride=8, and gives .* 16, 8, 8\)"),
    "layers each time": (
        CONVOLUTION.replace("16", "next(WIDTHS)", 1),
        r"builds other layers each time, or without weights \(0.bias\): checkpoints are read",
    ),
    "a fixed size": (
        "Backbone([nn.Flatten(), nn.Linear(99, 9)], dim=9, stride=4)",
        r"^backbone mine: RuntimeError: .*, of images \(1, 3, 32, 32\)$",
    ),
    "stages": (CONVOLUTION.replace(")], ", ")], stages=(1,), "), r"stages \(1,\) of a .* 0, at th"),
    "no tensor": (
        "Backbone([type('M', (nn.Module,), {'forward': lambda m, x: {}})()], dim=3, stride=4)",
        "backbone mine gives a dict, not features, a tensor",
    ),
    "lazy layers": (
        "Backbone([nn.LazyConv2d(16, 4, 4)], dim=16, stride=4)",
        "backbone mine has layers that wait for their channels: give them theirs",
    ),
}


@pytest.mark.parametrize("built, said", BROKEN.values(), ids=BROKEN)
def test_a_backbone_is_tried_out_before_the_first_iteration(root, plugin, tmp_path, built, said):
    """Each was found after step 0, in a traceback, or never."""
    plugin(BUILDS.format(built))
    config = tiny(root, "model.backbone=mine", "model.output_stride=4")
    with pytest.raises(UserError, match=said):
        train(config, tmp_path / "run", accelerator="cpu")
    plugin(BUILDS.format(CONVOLUTION))
    with pytest.raises(UserError, match="stride=4, and gives .* model.output_stride=8: these must"):
        train(tiny(root, "model.backbone=mine", "model.output_stride=8"), tmp_path / "run")


def test_weights_that_nobody_reads_have_to_be_there(root, plugin, tmp_path):
    plugin()
    weights = f"model.weights={tmp_path / 'no.pth'}"
    with pytest.raises(UserError, match="weights file .*no.pth does not exist"):
        train(tiny(root, OWN[1], weights), tmp_path / "run", accelerator="cpu")


def test_what_cannot_be_saved_is_found_before_the_first_iteration(root, plugin, tmp_path):
    """SIGTERM promised that the run goes on from where it was, and nothing was saved."""
    plugin(with_hook("progress", "{'x': object()}"))
    config = tiny(root, "method.mechanisms.bad.enabled=true")  # no save is due in these iterations
    with pytest.raises(UserError, match=r"bad: progress\(\)\['x'\] holds a object: a checkpoint"):
        train(config, tmp_path / "run", accelerator="cpu", steps=[0])


def test_what_cannot_be_saved_later_costs_a_save_and_no_training(root, plugin, tmp_path, capsys):
    plugin(with_hook("progress", "{'left': 1 / (3 - self.count())}") + COUNTS)
    config = tiny(root, "method.mechanisms.bad.enabled=true", "save_minutes=0")
    train(config, tmp_path / "run", accelerator="cpu", steps=[0])
    said = capsys.readouterr().err
    line = "ZeroDivisionError: division by zero; the save before it stays"
    assert said.count("cannot save") == 1 and line in said


COUNTS = """
            def count(self):
                self.n = getattr(self, "n", 0) + 1
                return self.n
"""


def test_defined_in_a_notebook_they_are_trained_here_or_refused(root, tmp_path):
    Bare.__module__ = "__main__"
    mechanism(Bare)
    configs = [tiny(root, "method.mechanisms.bare.enabled=true", seed=seed) for seed in (0, 1)]
    assert [found.title for found in outside(configs)] == ["mechanism bare"]
    store = open_store(tmp_path / "runs")
    sys.modules["__main__"].__dict__.pop("__file__", None)
    with pytest.raises(UserError, match=r"the mechanism bare was defined in a notebook.*jobs=1"):
        run_all(configs, store, jobs=2)


# Commands
def test_the_commands(root, plugin, tmp_path):
    file, run = plugin(), tmp_path / "run"
    quick = ("optim.iterations=2", "data.size=32", "data.batch_size=4", *OWN)
    data = ("--dataset", "minivoc", "--data-root", root, "--task", "6-4", "--method", "FT")
    settings = [f"--set={setting}" for setting in quick]
    train_it = ("train", *data, "--out", run, *settings)
    refused = sparcl(*train_it)
    assert refused.returncode == 2 and "A mechanism of your own is known once" in refused.stderr
    photo = next(Path(root).rglob("*.jpg"))
    for command in (
        train_it, ("evaluate", run), ("predict", run, photo, "--out", tmp_path / "maps"),
        ("export", run),
    ):  # fmt: skip
        done = sparcl(*command, "--plugin", file)
        assert done.returncode == 0, done.stderr
    for command in (("evaluate", run), ("export", run, "--overwrite")):
        done = sparcl(*command)
        assert done.returncode == 2 and "unknown backbone 'two_layers'" in done.stderr
        assert re.search(r"--plugin FILE.py\)$", done.stderr.strip())
    listed = sparcl("settings", "anchored", "--plugin", file)
    assert "method.mechanisms.anchored: The classifier's first weights are drawn" in listed.stdout
    assert "How far, each time [a number at" in listed.stdout


def test_a_plug_in_that_is_edited_keeps_its_key_until_it_is_read_again(root, plugin, tmp_path):
    """Its key was of the new text, and its numbers of the old."""
    file = plugin()
    config = tiny(root, *OWN)
    before = run_keys(config)
    file.write_text(file.read_text("utf-8").replace("WIDTH = 16", "WIDTH = 8"), "utf-8")
    assert run_keys(config) == before
    forget()
    load_plugins([file])
    assert run_keys(config) != before


HELPED = """
    from sparcl_lib import term
    from helpers_of_mine import FACTOR

    @term
    def {name}(context):
        return FACTOR * context.output.features.mean()
"""


def test_modules_of_one_name_beside_two_plug_ins_are_refused(tmp_path, monkeypatch):
    """The second one was given the first one's, without a word."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, factor in (("one", 1), ("two", 1000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helpers_of_mine.py").write_text(f"FACTOR = {factor}", "utf-8")
        (tmp_path / name / f"{name}.py").write_text(dedent(HELPED.format(name=name)), "utf-8")
    load_plugins([tmp_path / "one" / "one.py"])
    message = r"two.py: it imports helpers_of_mine, and by this name .*one/helpers_of_mine.py is re"
    with pytest.raises(UserError, match=message):
        load_plugins([tmp_path / "two" / "two.py"])
    del sys.modules["helpers_of_mine"]


def test_a_number_that_yaml_takes_for_a_text_is_one_without_an_annotation_too():
    @term
    def unsaid(context, *, scale=0.1, name="a"):
        return context.output.features.mean()

    method = {"name": "x", "terms": {"unsaid": {"scale": "1e-3", "name": "1e-3"}}}
    assert build_method(method).term("unsaid").options == {"scale": 0.001, "name": "1e-3"}
    other = build_method({"name": "x", "terms": {"unsaid": {"scale": "auto"}}})
    assert other.term("unsaid").options == {"scale": "auto"}
