"""What the key of a kept run follows beside its configuration and data: the code that trains."""

import pytest

import sparcl_lib
from sparcl_lib.data import minivoc
from sparcl_lib.experiments.base import RunBase, open_store
from sparcl_lib.experiments.store import RunKeys, run_keys
from sparcl_lib.methods import TERMS
from sparcl_lib.plugins import load_plugins
from sparcl_lib.revision import code


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("data") / "minivoc"
    minivoc.generate(root, train=60, val=12, size=32, progress=False)
    return str(root)


@pytest.fixture
def keys(tiny):
    def of(method: str = "MiB", **method_settings) -> RunKeys:
        base = RunBase(dataset="minivoc", task="6-4", data_root=tiny)
        return run_keys(base.config(method, 0, {"method": method_settings}))

    return of


def apart(one: RunKeys, other: RunKeys) -> bool:
    return not set(one) & set(other)


def test_a_release_that_trains_the_same_finds_the_runs_of_the_one_before(keys, monkeypatch):
    before = keys()
    monkeypatch.setattr(sparcl_lib, "__version__", "99.0")
    assert keys() == before
    monkeypatch.setattr(code, "TRAINING_REVISION", 99)
    assert apart(keys(), before)


def test_edited_code_keeps_its_runs_apart(keys, monkeypatch, tmp_path, capsys):
    code.note_edits.cache_clear()
    monkeypatch.setattr(code, "edited_code", dict)
    before = keys()
    open_store(tmp_path)
    assert capsys.readouterr().err == ""
    code.note_edits.cache_clear()
    monkeypatch.setattr(code, "edited_code", lambda: {"losses/latent.py": "1"})
    edited = keys()
    monkeypatch.setattr(code, "edited_code", lambda: {"losses/latent.py": "2"})
    assert apart(edited, before) and apart(keys(), edited)
    open_store(tmp_path), open_store(tmp_path)
    told = capsys.readouterr().err
    assert told.startswith("sparcl: edited code (losses/latent.py) keeps its runs apart")
    assert told.count("\n") == 1
    code.note_edits.cache_clear()


TERM = """
from sparcl_lib.methods import term
POWER = 2

def size(x):
    return x.abs().pow(POWER).mean()

@term(needs_teacher=True)
def gap(context, *, scale=1.0):
    '''How far the features moved.'''
    return scale * size(context.output.features - context.teacher.features)

@term{facts}
def weight_of(context):
    return context.output.features.mean()
"""


@pytest.fixture
def plugin(tmp_path):
    """Registers the terms of a text, as a file given by --plugin does."""
    count = iter(range(100))

    def register(text: str = TERM, facts: str = "") -> None:
        for name in ("gap", "weight_of"):
            TERMS.pop(name, None)
        file = tmp_path / f"terms_{next(count)}.py"
        file.write_text(text.replace("{facts}", facts), "utf-8")
        load_plugins([file])

    yield register
    for name in ("gap", "weight_of"):
        TERMS.pop(name, None)


def test_a_term_of_ones_own_counts_by_its_source(keys, plugin):
    used = {"terms": {"gap": {"weight": 0.1}}}
    plugin()
    before = keys(**used)
    plugin(TERM.replace("'''How far the features moved.'''", "# how far"))
    assert keys(**used) == before  # another file, and another comment
    for edit in (("scale *", "2 * scale *"), ("POWER = 2", "POWER = 3"), ("abs()", "square()")):
        plugin(TERM.replace(*edit))
        other = keys(**used)
        assert other.run != before.run
        assert other.first == before.first  # it needs a teacher, so step 0 is the same


def test_a_tensor_in_the_file_of_a_term_counts(keys, plugin):
    used = {"terms": {"gap": {"weight": 0.1}}}
    found = []
    for value in ("torch.tensor(2)", "torch.tensor(2)", "torch.tensor(3)"):
        plugin(TERM.replace("POWER = 2", f"import torch\nPOWER = {value}"))
        found.append(keys(**used).run)
    assert found[0] == found[1] != found[2]


def test_only_terms_of_the_runs_method_count(keys, plugin):
    plugin()
    before = keys(), keys(terms={"gap": {"weight": 0.0}})
    plugin(TERM.replace("scale *", "2 * scale *"))
    assert (keys(), keys(terms={"gap": {"weight": 0.0}})) == before


def test_a_term_of_step_0_separates_step_0_and_so_do_its_facts(keys, plugin):
    used = {"terms": {"weight_of": {"weight": 0.1}}}
    plugin()
    before = keys(**used)
    plugin(TERM.replace("features.mean()", "features.sum()"))
    assert apart(keys(**used), before)
    plugin(facts="(needs_maps=True)")
    assert apart(keys(**used), before)
