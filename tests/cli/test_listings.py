"""`sparcl methods` and `settings`: lists for the eye, made of the declarations themselves."""

import re
import subprocess
import sys

import pytest

from sparcl_lib.cli import main
from sparcl_lib.config import known_keys
from sparcl_lib.config.describing import described_settings, option_meanings
from sparcl_lib.method_table import METHODS, ROWS
from sparcl_lib.methods import TERMS


def printed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_methods_names_every_method_with_its_loss_and_paper(capsys):
    text = printed(capsys, "methods")
    lines = text.partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(METHODS)
    assert all(len(line) <= 80 for line in text.splitlines())
    whole = " ".join(text.split())
    for name, row in ROWS.items():
        assert f"{name} {row.summary} {row.paper}".strip() in whole
    assert "Cermelli et al., CVPR 2020; loss: ce(unbiased) + 10 kd(unbiased)" in whole
    assert "Kirkpatrick et al., PNAS 2017; loss: ce + 500 ewc penalty" in whole
    assert whole.count("0.01 matching(distance=mse) + 0.001 attraction(distance=mse)") == 2
    assert "sparcl settings --dataset" in whole.partition("EWF")[2]


def test_one_method_is_shown_alone_however_it_is_spelt(capsys):
    whole = printed(capsys, "methods")
    one = printed(capsys, "methods", "sdr+mib")
    assert one.startswith("SDR+MiB ") and one.count("loss: ") == 1
    assert all(line in whole.splitlines() for line in one.splitlines())
    with pytest.raises(SystemExit) as stop:
        main(["methods", "SRD"])
    assert stop.value.code == 2 and "unknown method 'SRD'" in capsys.readouterr().err


def test_settings_are_found_by_a_part_of_their_names(capsys):
    text = printed(capsys, "settings", "matching")
    keys = set(re.findall(r"^  ([\w.]+) = ", text, flags=re.MULTILINE))
    assert keys == {key for key in known_keys() if "matching" in key}
    assert {"method.terms.matching.weight", "method.terms.released_matching.reshaped"} <= keys
    keys = re.findall(r"^  ([\w.]+) = ", printed(capsys, "settings", "lr"), flags=re.MULTILINE)
    assert keys == ["optim.lr"]
    keys = re.findall(r"^  ([\w.]+) = ", printed(capsys, "settings", "size"), flags=re.MULTILINE)
    assert keys == ["data.size", "data.test_size", "data.batch_size"]


def test_no_two_methods_are_shown_alike(capsys):
    text = printed(capsys, "methods").partition("\n\n")[0]
    shown = [" ".join(part.split()[1:]) for part in re.split(r"\n(?=\S)", text)]
    losses = [part.partition("loss: ")[2] for part in shown]
    assert len(losses) == len(set(losses)) == len(METHODS)
    assert "10 kd(unbiased); classifier_init=mib, frozen=[old], fuse=0.5" in losses[-1]


def test_every_paper_is_named_with_its_year():
    for name, row in ROWS.items():
        assert row.summary, name
        assert name in ("FT", "Joint") or row.paper[-4:].isdecimal(), name


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "--help"], ["settings", "--help"]])
def test_methods_and_every_help_need_no_torch(arguments):
    code = (
        "import sys; from sparcl_lib.cli.program import app\n"
        f"app({arguments}, standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_every_setting_is_listed_with_a_meaning_of_its_own():
    rows = described_settings()
    assert sorted(row.key for row in rows) == sorted(known_keys())
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        assert row.values and row.meaning, row.key


def test_settings_shows_default_recipe_values_and_meaning(capsys):
    text = printed(capsys, "settings", "optim", "--dataset", "minivoc", "--method", "LwF")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.startswith(
        "optim\n  optim.lr = [0.001, 0.0001]\n      minivoc, LwF: [0.05, 0.037]\n"
    )
    shown = " ".join(text.split())
    assert "[list, each a whole number at least 1 and at most 10000000; may be empty;" in shown
    assert text.count("minivoc, LwF") == 2 and "data.size" not in text  # power is nobody's


def test_the_weight_of_a_term_that_a_method_lacks_is_not_shown_as_1(capsys):
    """MiB looked as if it had every loss with weight 1."""
    with pytest.raises(SystemExit):
        main(["settings", "method.terms.matching.weight", "--method", "MiB"])
    assert "matching.weight = (no term of MiB)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["settings", "method.terms.matching.weight", "--method", "SDR"])
    assert "matching.weight = 1.0" in capsys.readouterr().out


def test_settings_lists_all_in_80_columns_and_a_common_meaning_once(capsys):
    text = printed(capsys, "settings")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "data_root and seed are arguments, which settings= refuses" in " ".join(text.split())
    for key in known_keys():
        assert f"\n  {key} = " in text
    assert " ".join(text.split()).count("Factor of the term in the total") == 1
    assert "minivoc" not in text.partition("model\n")[2].partition("optim\n")[0]


def test_settings_of_a_method_alone_and_of_a_custom_data_set(capsys):
    text = printed(capsys, "settings", "method.terms.kd", "--method", "mib")
    assert "method.terms.kd.weight = 1.0\n      mib: 10.0\n" in text
    text = printed(capsys, "settings", "data.border", "--dataset", "mine.yaml")
    assert 'data.border = "background"\n      mine.yaml: "ignore"\n' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimm"], "unknown setting 'optimm': did you mean optim?"),
        (["data.sizes"], "unknown setting 'data.sizes': did you mean data.size?"),
        (["--method", "SRD"], "unknown method 'SRD'"),
        (["--dataset", "cityscapes"], "unknown data set 'cityscapes'"),
    ],
)
def test_settings_refuses_what_is_unknown(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["settings", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_the_meaning_of_an_option_ends_where_the_next_begins():
    def mine(context, *, power=2.0, squeeze=False, floor=0.0):
        """Features stay. They do; power: exponent of the gap (2: squares).

        squeeze: over the channels first, see power: it comes later.
        floor: least gap; smaller ones count as 0.

        What belongs to none of them stands in a paragraph of its own.
        """

    registered = TERMS["kd"].__class__(
        name="mine", function=mine, needs_teacher=False, needs_maps=False, first_step=0,
        hidden_old=(), acts_later=(),
    )  # fmt: skip
    assert option_meanings(registered) == {
        "power": "exponent of the gap (2: squares).",
        "squeeze": "over the channels first, see power: it comes later.",
        "floor": "least gap; smaller ones count as 0.",
    }


def test_a_group_has_the_whole_first_sentence_of_its_term(capsys):
    text = printed(capsys, "settings", "method.terms.bce_kd")
    said = "Binary distillation: the teacher's sigmoid is the target of the old classes"
    assert " ".join(text.split()).startswith(f"method.terms.bce_kd: {said} method")
    meanings = option_meanings(TERMS["ce"])
    assert meanings.keys() == TERMS["ce"].options.keys()
    assert all("sequential" not in meanings[name] for name in ("unbiased", "pseudo"))
    assert meanings["labelled_only"].endswith("hide in it.")


def test_a_term_of_a_plugin_is_listed_too(capsys, tmp_path):
    file = tmp_path / "terms_of_mine.py"
    file.write_text(
        "from sparcl_lib import term\n\n\n@term\ndef drift(context, *, reach: int = 3):\n"
        '    """Logits drift apart.\n\n    reach: in pixels.\n    """\n',
        "utf-8",
    )
    try:
        text = printed(capsys, "settings", "method.terms.drift", "--plugin", str(file))
    finally:
        TERMS.pop("drift", None)
    assert text.startswith("method.terms.drift: Logits drift apart\n")
    assert "drift.reach = 3\n      in pixels [a whole number]\n" in text
