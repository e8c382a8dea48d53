"""Layers of a configuration, their types, and the errors that name a key."""

import ast
import dataclasses
import inspect

import pytest
import yaml

from sparcl_lib.config import (
    DataConfig,
    OptimConfig,
    RunConfig,
    all_settings,
    at_step,
    check_keys,
    known_keys,
    parse_settings,
    read_config,
    resolve,
    resolving,
    settings,
    to_plain,
)
from sparcl_lib.errors import UserError
from sparcl_lib.methods import METHODS, Method, RegulariserSettings, build_method
from sparcl_lib.methods.variants import LATENT
from sparcl_lib.plain import merge, read_yaml

SELF_EXPLANATORY = {"seed", "data", "model", "optim", "momentum", "weight_decay"}


def voc(*chosen: str, method: str = "SDR", **fixed) -> RunConfig:
    """VOC has no recipe file."""
    return resolve("voc", method, [parse_settings(chosen)], task="19-1", **fixed)


def weight(config: RunConfig, term: str) -> float:
    return config.method.term(term).weight


def test_defaults_and_method():
    config = voc()
    assert config.data == DataConfig() and config.optim == OptimConfig()
    assert config.method == build_method({**METHODS["SDR"], "name": "SDR"})
    assert voc(method="sdr+mib").method.name == "SDR+MiB"


def test_precedence(monkeypatch):
    recipe = {
        "data": {"size": 64, "batch_size": 4},
        "optim": {"lr": 0.1, "power": 0.5},
        "methods": {"SDR": {"optim": {"lr": 0.2}, "method": {"terms": {"kd": {"weight": 7}}}}},
    }
    monkeypatch.setattr(resolving, "_recipe", lambda dataset: dict(recipe))
    config = voc()
    assert (config.data.size, config.data.workers) == (64, None)  # recipe over defaults
    assert config.optim.lr == (0.2,) and config.optim.power == 0.5  # its method over the recipe
    assert weight(config, "kd") == 7 and weight(config, "matching") == 1e-2  # over METHODS
    assert voc(method="FT").optim.lr == (0.1,)
    layers = [{"optim": {"lr": 1}, "data": {"size": 32}}, {"optim": {"lr": 2}}]
    config = resolve("voc", "SDR", layers, task="19-1", seed=4)
    assert config.optim.lr == (2,) and config.data.size == 32  # later overrides win
    assert config.seed == 4 and config.data.batch_size == 4


def test_recipe_of_minivoc_is_used():
    config = resolve("minivoc", "FT", task="6-1")
    assert config.model.backbone == "mini" and config.data.scale is None
    for name in METHODS:
        assert resolve("minivoc", name, task="6-1").method.name == name


def test_resolving_changes_no_default():
    before = yaml.safe_dump(METHODS)
    voc("method.terms.kd.weight=3", "method.classifier_init=mib")
    assert yaml.safe_dump(METHODS) == before


def test_merge_leaves_both_alone():
    base, over = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}, "d": {"e": 1}}
    assert merge(base, over) == {"a": {"b": 5, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3} and over["a"] == {"b": 5}


# key=value
SETTINGS = {
    "optim.power=1e-3": ("optim", "power", 1e-3),
    "optim.power=2": ("optim", "power", 2.0),
    "optim.lr=1e-3": ("optim", "lr", (1e-3,)),
    "optim.lr=[1e-2, 1e-4]": ("optim", "lr", (1e-2, 1e-4)),
    "optim.epochs=5": ("optim", "epochs", (5.0,)),
    "optim.iterations=300": ("optim", "iterations", (300,)),
    "optim.iterations=[600,300]": ("optim", "iterations", (600, 300)),
    "optim.iterations=null": ("optim", "iterations", None),
    "optim.iterations=": ("optim", "iterations", None),
    "data.scale=null": ("data", "scale", None),
    "data.scale=[0.25, 1]": ("data", "scale", (0.25, 1.0)),
    "data.cache=true": ("data", "cache", True),
    "data.workers=0": ("data", "workers", 0),
    "data.border=ignore": ("data", "border", "ignore"),
    "model.weights=null": ("model", "weights", None),
    "model.weights=/a=b.pth": ("model", "weights", "/a=b.pth"),
}


@pytest.mark.parametrize("setting, expected", SETTINGS.items(), ids=SETTINGS)
def test_setting(setting, expected):
    group, name, value = expected
    found = getattr(getattr(voc(setting), group), name)
    assert found == value and type(found) is type(value)


def test_settings_merge_and_the_last_wins():
    parsed = parse_settings(["optim.lr=0.1", "optim.power=1", " optim.lr =0.2", "seed=-1"])
    assert parsed == {"optim": {"lr": 0.2, "power": 1}, "seed": -1}
    assert parse_settings([]) == {}


@pytest.mark.parametrize("value", ["1e-3", "0.001", "[1e-3]"])
def test_weights_may_be_written_as_learning_rates_are(value):
    if value.startswith("["):
        with pytest.raises(UserError, match="method.terms.kd.weight must be"):
            voc(f"method.terms.kd.weight={value}")
    else:
        assert weight(voc(f"method.terms.kd.weight={value}"), "kd") == 1e-3


BAD_SETTINGS = {
    "optim.lr": "expected key=value, as in optim.lr=0.01",
    "=3": "expected key=value",
    "optim.lr=[1": "is not a YAML value",
    "optim.lrate=1": "unknown setting 'optim.lrate': did you mean optim.lr",
    "optm.momentum=1": "did you mean optim.momentum",
    "sed=1": "unknown setting 'sed': did you mean seed",
    "kd.weight=3": "unknown setting 'kd.weight': did you mean method.terms.kd.weight",
    "logger=wandb": "unknown setting 'logger'; sparcl settings lists them$",
    "seed.a=1": "unknown setting 'seed.a'",
    "method.terms.mathcing.weight=1": "did you mean method.terms.matching.weight",
    "method.terms.kd.wight=1": "did you mean method.terms.kd.weight",
    "data.crop=64": "unknown setting 'data.crop': did you mean data.size",
    "optim.learning_rate=1": "did you mean optim.lr",
    "data.colour=64": "unknown setting 'data.colour'; sparcl settings data lists them$",
    "data.crop_size=64": "did you mean data.size",
    "zzzzzz=1": "unknown setting 'zzzzzz'; sparcl settings lists them$",
    "data.size=big": "data.size must be a whole number, got 'big'",
    "data.size=64.0": "data.size must be a whole number, got 64.0",
    "data.size=true": "data.size must be a whole number, got True",
    "data.size=8": "data.size must be at least 16 and at most 8192 pixels, got 8",
    "data.size=null": "data.size must be a whole number, got None",
    "data.cache=1": "data.cache must be true or false, got 1",
    "data.batch_size=1": r"at least 2 and at most 4096 \(batch norm\), got 1",
    "data.scale=[]": "data.scale must be",
    "data.scale=0.5": "data.scale must be two shares of the area",
    "data.scale=[2, 1]": "data.scale must be two shares",
    "data.border=void": "data.border must be one of background, ignore, got 'void'",
    "model.weights=3": "model.weights must be a text, got 3",
    "optim.lr=fast": "optim.lr must be a number, got 'fast'",
    "optim.lr=true": "optim.lr must be a number, got True",
    "optim.lr=[0.1, 0]": r"optim.lr must be above 0 and at most 1e.37 .float32., got 0.0$",
    "optim.epochs=0": "optim.epochs must be above 0",
    "optim.iterations=0": "optim.iterations must be at least 1",
    "optim.iterations=1.5": "optim.iterations must be a whole number, got 1.5",
    "optim.momentum=-1": r"optim.momentum must be at least 0 and below 1, got -1",
    "optim.momentum=1": "optim.momentum must be at least 0 and below 1",
    "optim.weight_decay=-0.1": "decay must be at least 0 and at most 1e.37 .float32., got -0.1",
    "optim.power=-1": "optim.power must be at least 0 and at most 1000, got -1",
    "optim.power=.nan": "optim.power must be at least 0 and at most 1000, got nan",
    "setup=foo": "setup must be one of sequential, disjoint, overlapped, got 'foo'",
    "seed=-1": "seed must be at least 0 and at most 2147483647, got -1",
    "seed=4294967296": "seed must be at least 0 and at most 2147483647",
    "optim.lr=1e308": "optim.lr must be above 0 and at most 1e.37",
    "optim.lr=[1e-3, .inf]": "optim.lr must be above 0 and at most 1e.37",
    "optim.weight_decay=1e308": "optim.weight_decay must be at least 0",
    "optim.iterations=1000000000": "optim.iterations must be at least 1 and at most 10000000",
    "model.head_channels=0": "model.head_channels must be at least 1 and at most 4096, got 0",
    "model.head_channels=4294967296": "model.head_channels must be at least 1 and at most 4096",
    "model.output_stride=0": "model.output_stride must be at least 1 and at most 64",
    "data.size=1000000000": "data.size must be at least 16 and at most 8192 pixels",
    "data.test_size=1000000000": "data.test_size must be at least 16 and at most 8192 pixels",
    "data.test_size=0": "data.test_size must be at least 16",
    "data.batch_size=100000000": "data.batch_size must be at least 2 and at most 4096",
    "data.workers=-1": "data.workers must be at least 0 and at most 64, got -1",
    "data.workers=100000": "data.workers must be at least 0 and at most 64, got 100000",
    "data.scale=[.inf, .inf]": "data.scale must be above 0 and at most 100, got inf$",
    "data.scale=[0, 1]": "data.scale must be above 0 and at most 100",
    "method.terms.kd.weight=1e308": "method.terms.kd.weight must be at least 0 and at most 1e.37",
    "method.regulariser={name: ewc, weight: 1e308}": "method.regulariser.weight must be",
    f"data.size={'9' * 4000}": "data.size must be at least 16 .* got 9{120}...$",
    f"data.size=0x{'f' * 5000}": "data.size must be .* got a number of thousands of digits",
    f"optim.lr={'9' * 400}": "optim.lr must be a number, got 9{120}...$",
    f"data.splits={'a' * 300}": "'a{119}... is no path .File name too long.: name another",
    'data.splits="a\\0"': "is no path .*null",
    f"{'a.' * 3000}a=1": "nested too deep",
    f"optim.lr={'[' * 3000}": "setting optim.lr: .* is not a YAML value .*more than 40 levels",
    f"optim.lr=[{'1,' * 200_000}]": "setting optim.lr: .* is not a YAML value .*longer than 256 kB",
    "optim.lr=&a [*a]": "is not a YAML value .*stands within what it names",
    "optim={1: 2}": "is not a YAML value .*the key '1' is no name; write it in quotes",
    "optim={lr: 1, lr: 2}": "is not a YAML value .*the key 'lr' stands there twice",
    "optim.lr=2020-99-99": "is not a YAML value .month must be in",
    "model.backbone=vgg": "unknown backbone 'vgg': model.backbone is one of resnet101, resnet50",
    "optim=5": "optim is a group of settings, not 5: set optim.<name>",
    "precision=64": "precision must be one of 32-true, 16-mixed, bf16-mixed, got 64",
    "method=FT": "method is a group of settings, not 'FT': set method.<name>",
    "method.terms=null": "method.terms",
    "method.terms=5": "method.terms",
    "method.terms.kd=5": "method.terms.kd",
    "method.terms.kd.weight=null": "method.terms.kd.weight must be",
    "method.terms.kd.weight=heavy": "method.terms.kd.weight must be",
    "method.terms.kd.weight=-1": "kd.weight must be at least 0 and at most 1e.37 .float32., got -1",
    "method.terms.kd.weight=.nan": "method.terms.kd.weight must be",
    "method.terms.kd.weight=.inf": "method.terms.kd.weight must be",
    "method.terms.kd.from_step=x": "method.terms.kd.from_step must be",
    "method.terms.kd.unbiased=1": "method.terms.kd.unbiased must be true or false, got 1",
    "method.terms.matching.distance=L2": "method.terms.matching.distance must be one of l2, mse",
    "method.terms.pod.from_step=2": "is of a term that SDR does not have; add the term by",
    "method.classifier_init=zero": "method.classifier_init must be",
    "method.joint=3": "method.joint must be",
    "method.regulariser=ewc": "method.regulariser is a group of settings, not 'ewc'",
    "method.regulariser.name=fisher": "method.regulariser.name must be one of ewc, rw, pi",
    "method.regulariser.weight=1": "incomplete method.regulariser.*'name'",
    "method.regulariser.wait=1": "did you mean method.regulariser.weight",
    "method.terms.ce.pseudo=exact": "unbiased and method.terms.ce.pseudo exclude each other",
}


@pytest.mark.parametrize("setting, message", BAD_SETTINGS.items(), ids=BAD_SETTINGS)
def test_bad_setting(setting, message):
    with pytest.raises(UserError, match=message) as error:
        voc(setting)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [["optim.lr=0.1"], "optim.lr=0.1", [None], {"optim": {"lr": 1}}])
def test_settings_that_are_not_nested_say_what_is_wanted(layers):
    message = (
        r"settings are a mapping, as in .*optim.lr.*parse_settings\(\['optim.lr=0.01'\]\) reads"
    )
    with pytest.raises(UserError, match=message) as error:
        resolve("minivoc", "FT", layers, task="6-4")
    assert "\n" not in str(error.value)


def test_an_unknown_term_of_a_method_is_named():
    with pytest.raises(UserError, match="method FT has no term 'kd': it has ce"):
        voc(method="FT").method.term("kd")


def test_unknown_method_and_incomplete():
    with pytest.raises(UserError, match="unknown method 'EWC2': choose from FT, Joint, .*MiB"):
        voc(method="EWC2")
    with pytest.raises(UserError, match="incomplete configuration: .*'task'"):
        resolve("voc", "FT")
    with pytest.raises(UserError, match="unknown setting 'color'"):
        voc(color="red")


def test_known_keys_are_all_accepted():
    keys = known_keys()
    assert len(keys) == len(set(keys)) and "method" not in keys
    assert {"seed", "data.size", "method.joint", "method.terms.attraction.distance"} <= set(keys)
    for key in keys:
        plain = 1
        for part in reversed(key.split(".")):
            plain = {part: plain}
        assert check_keys(plain) is None
    assert {f.name for f in dataclasses.fields(Method)} - {"terms", "mechanisms"} | {"variant"} == {
        key.split(".")[1] for key in keys if key.startswith("method.") and key.count(".") == 1
    }
    fields = {key.split(".")[2] for key in keys if key.startswith("method.regulariser.")}
    assert fields == {f.name for f in dataclasses.fields(RegulariserSettings)}


# Settings that options decide
def test_a_setting_that_an_option_decides_is_refused_unless_both_say_the_same(tmp_path):
    """setup=overlapped was accepted, and disjoint trained."""
    fixed = {"task": "6-4", "setup": "disjoint", "data_root": None, "seed": 1}
    for key, other, same in (
        ("setup", "overlapped", "disjoint"),
        ("task", "6-1", "6-4"),
        ("dataset", "voc", "minivoc"),
        ("data_root", "elsewhere", None),
        ("seed", 2, 1),
    ):
        with pytest.raises(UserError, match=f"{key}={other} .*option --.*argument {key}"):
            resolve("minivoc", "FT", [{key: other}], **fixed)
        assert resolve("minivoc", "FT", [{key: same}], **fixed) == resolve("minivoc", "FT", **fixed)


def test_a_path_among_the_settings_is_compared_by_where_it_leads(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    saved = {"dataset": str(tmp_path / "d.yaml"), "task": str(tmp_path / "t.yaml")}
    assert resolve("d.yaml", "FT", [saved], task="t.yaml").task == saved["task"]
    with pytest.raises(UserError, match="task=.*t.yaml .*option --task"):
        resolve("d.yaml", "FT", [saved], task="other.yaml")


# Variants
RELEASED = "method.variant=released"


def minivoc(*chosen: str, method: str = "SDR") -> RunConfig:
    return resolve("minivoc", method, [parse_settings(chosen)], task="6-4")


@pytest.mark.parametrize("method", ["SDR", "SDR+MiB"])
@pytest.mark.parametrize("resolved, head", [(voc, "aspp_linear"), (minivoc, "conv_linear")])
def test_released_stands_for_its_settings(resolved, head, method):
    paper, released = resolved(method=method), resolved(RELEASED, method=method)
    assert released.model == dataclasses.replace(paper.model, head=head, batch_norm="slow")
    before, after = paper.method, released.method
    assert (before.prototypes, after.prototypes) == ("means", "released")
    assert dataclasses.replace(after, terms=before.terms, prototypes="means") == before
    pairs = [name for term in LATENT for name in (term, f"released_{term}")]
    assert [term.name for term in after.terms] == ["ce", "kd", *pairs]
    assert after.term("ce").options == {"unbiased": True, "fold_labels": True}
    assert after.term("kd") == before.term("kd")
    for name in LATENT:
        old, new = before.term(name), after.term(f"released_{name}")
        assert after.term(name) == dataclasses.replace(old, weight=0.0)
        assert new.weight == old.weight > 0
        assert new.from_step == (1 if name in ("attraction", "repulsion") else old.from_step)
        # The released side of every switch is the term's own default.
        assert new.options == new.registered.options
    assert dataclasses.replace(released, method=paper.method, model=paper.model) == paper


@pytest.mark.parametrize("resolved", [voc, minivoc])
def test_paper_is_the_default(resolved):
    assert resolved("method.variant=paper") == resolved()
    plain = to_plain(resolved())
    assert "variant" not in plain["method"] and "released" not in str(plain)


SWITCHES = [
    "method.terms.released_attraction.division=mean",
    "method.terms.released_sparsification.floor=0.5",
    "method.prototypes=means",
]


@pytest.mark.parametrize("setting", SWITCHES)
def test_one_setting_changes_a_variant_there_alone(setting):
    released, mended = all_settings(minivoc(RELEASED)), all_settings(minivoc(setting, RELEASED))
    changed = {key: mended[key].value for key in released if released[key] != mended[key]}
    key, _, value = setting.partition("=")
    assert changed == {key: yaml.safe_load(value)}


def test_settings_of_the_user_win_in_any_layer():
    own = {"model": {"head": "aspp"}, "method": {"terms": {"repulsion": {"from_step": 2}}}}
    for layers in ([own, parse_settings([RELEASED])], [parse_settings([RELEASED]), own]):
        config = resolve("minivoc", "SDR", layers, task="6-4")
        assert (config.model.head, config.model.batch_norm) == ("aspp", "slow")
        assert config.method.term("released_repulsion").from_step == 2
    saved = to_plain(minivoc(RELEASED))  # as --config of another run
    for layers in ([saved], [saved, parse_settings([RELEASED])]):
        assert resolve("minivoc", "SDR", layers, task="6-4") == minivoc(RELEASED)


def test_what_is_said_of_a_formula_is_said_of_its_released_form():
    by_formula = minivoc("method.terms.matching.weight=0.7", RELEASED)
    by_its_name = minivoc(RELEASED, "method.terms.released_matching.weight=0.7")
    both = minivoc("method.terms.released_matching.weight=0.7", "method.terms.matching.weight=9")
    assert by_formula.method.term("released_matching").weight == 0.7
    assert by_formula == by_its_name
    assert both.method.term("matching").weight == 9  # without a variant they are two terms
    one = minivoc("method.variant=[norm, step 0]")
    assert [t.name for t in one.method.terms] == [t.name for t in minivoc().method.terms]


def test_a_variant_adds_no_loss():
    config = minivoc("method.terms.matching.weight=0.1", RELEASED, method="MiB")
    active = {term.name for term in config.method.active_terms(1)}
    assert active == {*METHODS["MiB"]["terms"], "released_matching"}
    matching = config.method.term("released_matching")
    assert matching.options == {"distance": "mse", "reshaped": True} and matching.weight == 0.1
    alone = minivoc("method.terms.matching.weight=0.1", "method.variant=[matching]", method="MiB")
    assert alone.method.term("released_matching").options == {"distance": "l2", "reshaped": True}


BAD_VARIANTS = {
    (
        "SDR",
        "method.variant=published",
    ): "must be paper or released, or a list of matching, .*: got 'publ",
    ("SDR", "method.variant=null"): "must be paper or released, or a list of .*: got None",
    ("SDR", "method.variant=[division, speed]"): "list of .*: got .'division', 'speed'",
    ("SDR", "method.variant=[]"): "or a list of .*: got ..",
    ("FT", RELEASED): "is for methods with a term of matching, .* method FT has none, SDR and SDR",
    ("PLOP", "method.variant=paper"): "method PLOP has none",
    ("SDR", "method.varient=paper"): "did you mean method.variant",
}


@pytest.mark.parametrize("case, message", BAD_VARIANTS.items(), ids=str)
def test_bad_variant(case, message):
    method, setting = case
    with pytest.raises(UserError, match=message) as error:
        voc(setting, method=method)
    assert "\n" not in str(error.value)


# Files and round trips
@pytest.mark.parametrize("method", METHODS)
def test_round_trip_through_yaml(method):
    config = voc("optim.lr=[1e-5, 1e-6]", "class_order=[2, 1]", "data.scale=null", method=method)
    text = yaml.safe_dump(to_plain(config), sort_keys=False)
    again = read_config(yaml.safe_load(text))
    assert again == config and to_plain(again) == to_plain(config)
    assert isinstance(again.method, Method) and again.method == config.method


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b"a: [1",
            r"cannot read \S* as YAML: line 1, column 6: .*, expected .*; correct it there$",
        ),
        (b"\xff\xfe\x00", "settings.yaml is not text in UTF-8; save it as such$"),
        ("size: 3".encode("utf-16"), "settings.yaml is not text in UTF-8; save it as such$"),
        (b"- 1\n- 2\n", "must hold 'key: value' lines"),
        (b"", "must hold 'key: value' lines"),
    ],
)
def test_bad_file(tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_yaml(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    missing = r"^cannot read \S*none.yaml: No such file or directory; correct the path$"
    with pytest.raises(UserError, match=missing):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="^cannot read [^']*: Is a directory; correct the path$"):
        read_yaml(tmp_path)


def test_a_key_that_config_yaml_may_not_have():
    plain = to_plain(voc())
    plain["optim"]["rate"] = 1
    with pytest.raises(
        UserError, match="unknown setting optim.'rate': remove it, or write .*, epo"
    ):
        read_config(plain)


def test_good_file(tmp_path):
    (tmp_path / "settings.yaml").write_text("optim: {lr: 1e-3}\n", "utf-8")
    layer = read_yaml(tmp_path / "settings.yaml")
    assert resolve("voc", "FT", [layer], task="19-1").optim.lr == (1e-3,)


@pytest.mark.parametrize("step, expected", [(0, 5), (1, 7), (2, 9), (3, 9), (20, 9)])
def test_at_step(step, expected):
    assert at_step((5, 7, 9), step) == expected and at_step((4,), step) == 4


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        voc().seed = 3


def test_every_field_is_described():
    """A string under each field of each dataclass."""
    missing, seen = [], 0
    for node in ast.parse(inspect.getsource(settings)).body:
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and field.target.id not in SELF_EXPLANATORY:
                    seen += 1
                    described = isinstance(after, ast.Expr) and isinstance(after.value.value, str)
                    missing += [] if described else [f"{node.name}.{field.target.id}"]
    assert seen > 20 and missing == []


def test_dotted_keys_reach_as_far_as_nested_ones():
    """In a file for --config too; only `content`, which is no setting, keeps its keys."""
    dotted = {"optim.lr": [0.1, 0.2], "method": {"terms.ce.weight": 2}, "content": {"tv.x": 1}}
    nested = {"optim": {"lr": [0.1, 0.2]}, "method": {"terms": {"ce": {"weight": 2}}}}
    one, other = (resolve("minivoc", "FT", [layer], task="6-4") for layer in (dotted, nested))
    assert one == other and one.optim.lr == (0.1, 0.2)
