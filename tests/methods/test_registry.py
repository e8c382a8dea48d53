"""@term: the facts of a term at its definition, terms of one's own, and files that define some."""

import importlib
import linecache
import shutil
import sys
from collections.abc import Callable
from functools import partial
from textwrap import dedent
from typing import Any, Literal

import pytest
import torch
from tiny_runs import sparcl, tiny

from sparcl_lib.config import to_plain
from sparcl_lib.data import minivoc
from sparcl_lib.errors import UserError
from sparcl_lib.experiments.base import open_store
from sparcl_lib.experiments.pool import run_all
from sparcl_lib.methods import (
    METHODS,
    TERMS,
    Method,
    StepContext,
    build_method,
    method_to_plain,
    term,
)
from sparcl_lib.models import SegmenterOutput
from sparcl_lib.plugins import files_of, load_plugins
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training import RunDirectory, evaluate, train

PLUGIN = """
    import torch
    from sparcl_lib.methods import term

    @term
    def quiet(context, *, power: float = 2.0):
        return context.output.logits.abs().pow(power).mean()

    @term(needs_teacher=True)
    def near(context):
        return (context.output.features - context.teacher.features).abs().mean()
"""
BARE = {"terms": {"ce": {}}, "name": "x"}


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(dedent(PLUGIN), "utf-8")
    return file


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "minivoc"
    minivoc.generate(folder, train=60, val=12, size=32, progress=False)
    return str(folder)


def bare(context, *, strength: float = 1.0):
    return strength * context.output.logits.square().mean()


def in_notebook(function):
    """As if a cell had defined it: in a module without a file."""
    function.__module__ = "a_cell"
    return function


# What a term says of itself
def test_facts_at_the_definition():
    term(bare)
    found = TERMS["bare"]
    assert (found.needs_teacher, found.first_step, found.acts_later) == (False, 0, ())
    assert found.options == {"strength": 1.0} and not found.of_library

    @term(needs_teacher=True)
    def held(context):
        return bare(context)

    @term(needs_teacher=("guess",), hidden_old=("guess", "skip"), acts_later=("late",))
    def chosen(context, *, guess: bool = False, skip: bool = False, late: int = 3):
        return bare(context)

    assert TERMS["held"].first_step == 1
    assert TERMS["chosen"].acts_later == ("guess", "skip", "late")
    built = build_method({"name": "x", "terms": {"chosen": {"guess": True, "late": 4}, "held": {}}})
    assert [t.name for t in built.active_terms(0)] == ["chosen"]
    assert built.needs_teacher(1) and not built.needs_teacher(0)
    alone = build_method({"name": "x", "terms": {"chosen": {"skip": True}}})
    assert not alone.needs_teacher(1)
    with pytest.raises(UserError, match=r"chosen.guess and method.terms.chosen.skip exclude each"):
        build_method({"name": "x", "terms": {"chosen": {"guess": True, "skip": True}}})


def test_a_term_of_ones_own_is_a_setting_of_every_method(root):
    term(bare)
    config = tiny(
        root, "method.terms.bare.weight=0.5", "method.terms.bare.strength=3", method="SDR"
    )
    found = config.method.terms[-1]
    assert (found.name, found.weight, found.options) == ("bare", 0.5, {"strength": 3})
    with pytest.raises(UserError, match="unknown setting .*bare.stren'.*bare.strength"):
        tiny(root, "method.terms.bare.stren=3")
    with pytest.raises(UserError, match="bare.strength must be a number, got True"):
        tiny(root, "method.terms.bare.strength=yes")


@pytest.mark.parametrize(
    "hint, good, bad",
    [
        (bool, True, 1),
        (int, 2, 2.0),
        (str, "a", 3),
        (Literal["a", "b"], "b", "c"),
        (float, 1, "fast"),
    ],
)
def test_options_are_checked_by_their_annotation(hint, good, bad):
    def checked(context, *, given=None):
        return bare(context)

    checked.__annotations__["given"] = hint
    term(checked)
    assert build_method({"name": "x", "terms": {"checked": {"given": good}}})
    with pytest.raises(UserError, match=r"method\.terms\.checked\.given must be"):
        build_method({"name": "x", "terms": {"checked": {"given": bad}}})


def test_text_of_a_number_is_a_number_as_for_a_weight():
    """YAML reads 1e-3 as text."""
    build = {"bce": {"threshold": "1e-3", "weight": "1e-3"}}
    (row,) = build_method({"name": "x", "terms": build}).terms
    assert row.options == {"threshold": 0.001} and row.weight == 0.001
    assert isinstance(row.options["threshold"], float)
    (row,) = build_method({"name": "x", "terms": {"bce": {"threshold": 1}}}).terms
    assert type(row.options["threshold"]) is int  # as keys of kept runs have it


def test_running_a_cell_again_replaces_its_term():
    for value in (1, 2):

        @term
        def again(context, *, times: int = value):
            return times

    assert TERMS["again"](None) == 2 and TERMS["again"].options == {"times": 2}


def test_the_library_keeps_its_names():
    def kd(context):
        return bare(context)

    with pytest.raises(UserError, match="kd is a term of the library"):
        term(kd)
    assert TERMS["kd"].of_library


def no_default(context, *, a):
    return a


def by_position(context, a=1):
    return a


def nothing():
    return 0


def common(context, *, weight=1):
    return weight


WRONG = {
    "no default": (partial(term), no_default, r"options by keyword with defaults.*mend a"),
    "by position": (partial(term), by_position, "mend a"),
    "no context": (partial(term), nothing, "must take a context"),
    "weight": (partial(term), common, "every term has weight"),
    "later as text": (
        term(acts_later="b"),
        bare,
        r"@term of bare: acts_later are names in a tuple, as in \('b',\)",
    ),
    "hidden as text": (term(hidden_old="foo"), bare, r"as in \('foo',\)"),
    "teacher as text": (term(needs_teacher="foo"), bare, r"as in \('foo',\)"),
    "teacher in a list": (term(needs_teacher=["a"]), bare, r"needs_teacher .* as in \('a',\)"),
    "first step as text": (term(first_step="1"), bare, "first_step is a whole number from 0 on, g"),
    "later": (term(acts_later=("b",)), bare, "no option 'b' that @term speaks of"),
    "hidden": (term(hidden_old=("b",)), bare, "no option 'b'"),
    "teacher": (term(needs_teacher=("b",)), bare, "no option 'b'"),
}


@pytest.mark.parametrize("decorate, function, message", WRONG.values(), ids=WRONG)
def test_a_definition_that_cannot_be(decorate, function, message):
    with pytest.raises(UserError, match=message):
        decorate(function)
    assert function.__name__ not in TERMS


# A method as plain data
@pytest.mark.parametrize("name", METHODS)
def test_a_method_as_plain_data_and_back(name):
    built = build_method({**METHODS[name], "name": name})
    plain = method_to_plain(built)
    assert build_method(plain) == built and method_to_plain(build_method(plain)) == plain
    assert set(plain) == {"name", *METHODS[name]}  # what is as by default is not said
    assert list(plain["terms"]) == list(METHODS[name]["terms"])


def test_terms_that_nobody_defines_are_kept_but_not_trained():
    plain = {"name": "x", "terms": {"ce": {}, "gone": {"weight": 0.5, "a": 1}}}
    with pytest.raises(UserError, match="unknown loss term 'gone': choose from ce, bce.*--plugin"):
        build_method(plain)
    kept: Method = build_method(plain, any_term=True)
    assert method_to_plain(kept)["terms"]["gone"] == {"weight": 0.5, "a": 1}
    with pytest.raises(UserError, match="unknown loss term 'gone'"):
        kept.check_defined()


# Mistakes in a term of one's own
def fails_with_lines(context):
    raise KeyError("boom\nboom")


MISTAKES = {
    "raises": (
        fails_with_lines,
        r"^term mine \(.*test_registry.py, line \d+\): KeyError: 'boom.*boom'$",
    ),
    "attribute": (lambda c: c.outputs.features, "AttributeError: .*no attribute 'outputs'$"),
    "teacher": (
        lambda c: c.teacher.features,
        r"AttributeError: .*context.teacher is None at step 0, .*needs_teacher=True\)$",
    ),
    "none": (lambda c: None, "must return a scalar tensor, as .mean.. makes it, got None"),
    "number": (lambda c: 1.0, "must return a scalar tensor, .*got 1.0"),
    "map": (lambda c: c.output.logits, r"must return a scalar tensor, .*got shape \(1, 2, 4, 4\)"),
    "shape 1": (lambda c: c.output.logits.mean().reshape(1), r"got shape \(1,\)"),
    "no gradient": (lambda c: torch.tensor(1.0), "mine returns a tensor without a gradient"),
}


def small_context(features_learn: bool = True) -> StepContext:
    logits, features = torch.zeros(2, 1, 2, 4, 4).unbind()
    output = SegmenterOutput(
        low_res_logits=logits.requires_grad_(), features=features.requires_grad_(features_learn)
    )
    return StepContext(
        output=output, teacher=None, target=torch.zeros(1, 4, 4, dtype=torch.long),
        bank=PrototypeBank(2, 2), num_old=1, old_labelled=False,
    )  # fmt: skip


def method_of(function: Callable[..., Any]) -> Method:
    function.__name__ = "mine"
    term(function)
    return build_method({"name": "x", "terms": {"mine": {}}})


def returning(expression: str) -> Callable[[StepContext], Any]:
    def mine(context: StepContext) -> Any:
        return eval(expression, {"context": context})

    return mine


def test_what_a_term_without_a_gradient_is_advised_to_do_gives_one():
    """Also where the features are frozen, on which such a term may be computed in vain."""
    for features_learn, cure in ((True, "nothing to learn return "), (False, ", or return ")):
        context = small_context(features_learn)
        with pytest.raises(UserError, match="mine returns a tensor without a gradient") as error:
            method_of(lambda c: c.output.features.detach().mean()).losses(context)
        said = str(error.value)
        assert ("leave features out of method.frozen" in said) is not features_learn
        advised = method_of(returning(said.split(cure)[1]))
        assert advised.losses(context).total == 0


@pytest.mark.parametrize("function, message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_term_names_it_in_a_line(function, message):
    built, context = method_of(function), small_context()
    with pytest.raises(UserError, match=message) as error:
        built.losses(context)
    assert "\n" not in str(error.value)
    assert isinstance(error.value.__cause__, (KeyError, AttributeError, type(None)))


@pytest.mark.parametrize("function", [lambda c: c.output.logits.mean(), 3, dict])
def test_a_term_is_a_function_with_a_name(function):
    with pytest.raises(UserError, match=r"@term takes a function, not .*: give it a name with def"):
        term(function)


# Files
def test_a_plugin_is_read_once(plugin):
    load_plugins([plugin, str(plugin)])
    assert TERMS["quiet"].plugin == plugin and TERMS["near"].needs_teacher
    first = TERMS["quiet"]
    load_plugins([plugin])
    assert TERMS["quiet"] is first and files_of([first, TERMS["near"]]) == {
        "term quiet": plugin, "term near": plugin
    }  # fmt: skip


def test_a_plugin_may_import_modules_beside_it(plugin, monkeypatch):
    """Also when a term is called; and they hide no others."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("quieter", "later", "json"):
        (plugin.parent / f"{name}.py").write_text("def soft(x): return x.mean()\n", "utf-8")
    imports = "import json; json.dumps(1); from quieter import soft\n"
    plugin.write_text(imports + dedent(PLUGIN), "utf-8")
    load_plugins([plugin])
    assert importlib.import_module("later").soft(torch.ones(2)) == 1
    for name in ("quieter", "later"):
        del sys.modules[name]


FAULTY = {
    "raise KeyError('a b')": r"--plugin .*bad.py, line 2: KeyError: 'a b'$",
    "import sys; sys.exit(3)": r"--plugin .*bad.py, line 2: SystemExit: 3$",
    "def broken(:": r"--plugin .*bad.py: SyntaxError: ",
    "from sparcl_lib import term_that_is_not": "ImportError",
    "from sparcl_lib.methods import term\ndef kd(context): ...\nterm(kd)": "kd is a term of",
}


@pytest.mark.parametrize("text, message", FAULTY.items(), ids=range(len(FAULTY)))
def test_a_plugin_that_fails_is_named_in_a_line(tmp_path, text, message):
    file = tmp_path / "bad.py"
    file.write_text("# first line\n" + text, "utf-8")
    for _ in range(2):  # a file that failed is not taken for one that was read
        with pytest.raises(UserError, match=message) as error:
            load_plugins([file])
        assert "\n" not in str(error.value)


def test_a_plugin_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--plugin .*absent.py: there is no such file"):
        load_plugins([tmp_path / "absent.py"])
    (tmp_path / "notes.txt").write_text("", "utf-8")
    with pytest.raises(UserError, match="expected a Python file"):
        load_plugins([tmp_path / "notes.txt"])


def test_two_plugins_cannot_define_one_term(plugin, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(dedent(PLUGIN), "utf-8")
    load_plugins([plugin])
    with pytest.raises(UserError, match="both define the term quiet: rename one"):
        load_plugins([other])


# Training
def test_a_run_with_a_term_of_ones_own_is_evaluated_without_it(root, plugin, tmp_path):
    load_plugins([plugin])
    config = tiny(root, "method.terms.quiet.weight=0.1", "method.terms.near.weight=0.1")
    metrics = train(config, tmp_path / "run", accelerator="cpu")
    log = (tmp_path / "run" / "logs" / "step-1" / "metrics.csv").read_text("utf-8")
    assert "quiet" in log and "near" in log
    del TERMS["quiet"], TERMS["near"]
    again = evaluate(tmp_path / "run", accelerator="cpu")
    assert again["steps"] == metrics["steps"]
    saved = RunDirectory(tmp_path / "run").config()
    assert to_plain(saved) == to_plain(config)
    with pytest.raises(UserError, match="unknown loss term 'quiet'.*--plugin"):
        train(saved, tmp_path / "run", resume=True, accelerator="cpu")


def test_a_store_that_a_term_of_ones_own_was_in_is_read_without_it(root, plugin, tmp_path):
    """Runs that shared the step 0 of one with the term could not be opened, the baseline too, and
    no other method could be added to the store."""
    load_plugins([plugin])
    store = open_store(tmp_path)
    mine = tiny(root, "method.terms.near.weight=0.1", "method.name=mine")
    runs, errors = run_all([mine, tiny(root)], store, jobs=1)
    assert errors == [] and runs[0].first.path == runs[1].first.path
    del TERMS["quiet"], TERMS["near"]
    for run in runs:
        assert run.confusion(0).sum() > 0 and run.confusion(1).sum() > 0
        again = evaluate(run.directory.path, accelerator="cpu")
        assert again["steps"] == run.metrics["steps"]
    added, errors = run_all([tiny(root, method="LwF")], store, jobs=1)
    assert errors == [] and added[0].first.path == runs[0].first.path
    started = tmp_path / "started"
    train(tiny(root, method="MiB"), started, start_from=runs[0].directory.path, accelerator="cpu")


def test_without_a_term_that_step_0_was_trained_with_step_0_is_another(root, plugin, tmp_path):
    load_plugins([plugin])
    quiet = tiny(root, "method.terms.quiet.weight=0.1")
    train(quiet, tmp_path / "run", accelerator="cpu", steps=[0])
    del TERMS["quiet"], TERMS["near"]
    with pytest.raises(UserError, match=r"step 0 of .* differs in method.terms.quiet.weight \(0.1"):
        train(tiny(root), tmp_path / "o", start_from=tmp_path / "run", accelerator="cpu")


def test_a_run_directory_knows_the_source_of_its_terms(root, plugin, tmp_path):
    """It answered with the old numbers, or went on with another loss."""

    def fit(source, out, **options):
        plugin.write_text(dedent(source), "utf-8")
        forget()
        load_plugins([plugin])
        config = tiny(root, "method.terms.quiet.weight=0.1", "method.terms.near.weight=0.1")
        return train(config, out, accelerator="cpu", **options)

    def forget():
        for name in [name for name in sys.modules if name.startswith("sparcl_plugin_")]:
            del sys.modules[name]
        linecache.clearcache()

    run, other, moved = (tmp_path / name for name in ("run", "other", "moved"))
    louder = PLUGIN.replace(".pow(power).mean()", ".pow(power).mean() * 1000")
    nearer = PLUGIN.replace(".abs().mean()", ".abs().mean() * 2")
    fit(PLUGIN, run, steps=[0])
    changed = "the term quiet says something else now than when step 0 of .*run was trained: rest"
    for source, out, options in (
        (louder, run, {"resume": True, "steps": [0]}),
        (louder, run, {"resume": True}),
        (louder, other, {"start_from": run}),
    ):
        with pytest.raises(UserError, match=changed):
            fit(source, out, **options)
    fit(nearer, other, start_from=run)  # a term that does not act at step 0
    fit(PLUGIN + "\n    # a comment says nothing\n", run, resume=True)
    with pytest.raises(UserError, match="the term near says something else now than when step 1"):
        fit(nearer, run, resume=True)
    del TERMS["quiet"], TERMS["near"]
    assert len(evaluate(run, accelerator="cpu")["steps"]) == 2
    shutil.copytree(run, moved)
    assert fit(PLUGIN, moved, resume=True)["steps"] == evaluate(run, accelerator="cpu")["steps"]


COUNTING = """
import torch
from sparcl_lib import term
CALLS = torch.zeros(1)

@term
def quiet(context):
    CALLS.add_(1)
    return context.output.features.abs().mean()
"""


def test_a_term_that_changes_a_value_of_its_file_is_known_by_what_that_was(root, plugin, tmp_path):
    """Another process has it as it was; in this one the run cannot be told from an edited one."""
    plugin.write_text(COUNTING, "utf-8")
    load_plugins([plugin])
    config, run = tiny(root, "method.terms.quiet.weight=0.1"), tmp_path / "run"
    train(config, run, accelerator="cpu")
    with pytest.raises(UserError, match="quiet says something .*must not change them as it trains"):
        train(config, run, resume=True, accelerator="cpu")
    module = TERMS["quiet"].function.__globals__
    module["CALLS"].zero_()
    assert len(train(config, run, resume=True, accelerator="cpu")["steps"]) == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_plugins_travel_to_the_pool(root, plugin, tmp_path, jobs):
    load_plugins([plugin])
    configs = [tiny(root, "method.terms.quiet.weight=0.1", seed=seed) for seed in (0, 1)]
    runs, errors = run_all(configs, open_store(tmp_path / "runs"), jobs=jobs)
    assert errors == [] and "quiet" in runs[1].log(1)


def test_a_term_of_a_notebook_is_trained_here_or_refused(root, tmp_path):
    term(in_notebook(bare))
    configs = [tiny(root, "method.terms.bare.weight=0.1", seed=seed) for seed in (0, 1)]
    store = open_store(tmp_path / "runs")
    with pytest.raises(UserError, match=r"the term bare was defined in a notebook.*jobs=1"):
        run_all(configs, store, jobs=2)
    runs, errors = run_all(configs, store)
    assert errors == [] and "bare" in runs[0].log(1)


def test_the_commands_read_plugins(root, plugin, tmp_path):
    data = ("--dataset", "minivoc", "--data-root", root)
    quick = ("optim.iterations=2", "data.size=32", "data.batch_size=4")
    more = [f"--set={setting}" for setting in (*quick, "method.terms.quiet.weight=0.1")]
    alone = ("train", *data, "--task", "6-4", "--method", "FT", "--out", tmp_path / "run", *more)
    refused = sparcl(*alone)
    assert refused.returncode == 2 and "method.terms.quiet.weight" in refused.stderr
    for command in ((*alone, "--plugin", plugin), ("evaluate", tmp_path / "run")):
        done = sparcl(*command)
        assert done.returncode == 0, done.stderr
    pair = ("--tasks", "6-4", "--methods", "FT,LwF", "--jobs", 2, "--out", tmp_path / "compared")
    compared = sparcl("compare", *data, *pair, *more, "--plugin", plugin)
    assert compared.returncode == 0, compared.stderr


def test_the_facts_of_the_library_are_those_of_its_losses():
    """A teacher where a loss reads one: without it the term fails, or labels stay hidden."""
    always = {"kd", "bce_kd", "entropy_kd", "feature_kd", "pod", "matching"}
    labels = {"attraction", "repulsion", "sparsification"}
    library = {n: t for n, t in TERMS.items() if t.of_library}
    assert {n for n, t in library.items() if t.needs_teacher is True} >= always | labels
    assert {n for n in always | labels if library[n].first_step == 0} == labels
    assert {n for n, t in library.items() if t.needs_maps} == {"pod"}
    assert library["ce"].hidden_old == ("unbiased", "pseudo", "labelled_only")
    assert library["bce"].asks_teacher({"threshold": 0.7}) and not library["bce"].asks_teacher({})
    assert not library["bce"].asks_teacher({"threshold": 1})
