"""`sparcl methods`: one list for the eye, made of the one table."""

import subprocess
import sys

import pytest

from sparcl_lib.cli import main
from sparcl_lib.method_table import METHODS, ROWS


def printed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_methods_names_every_method_with_its_loss_and_paper(capsys):
    text = printed(capsys, "methods")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(METHODS)
    assert all(len(line) <= 80 for line in lines)
    whole = " ".join(text.split())
    for name, row in ROWS.items():
        assert f"{name} {row.summary} {row.paper}".strip() in whole
    assert "Cermelli et al., CVPR 2020; loss: ce(unbiased) + 10 kd(unbiased)" in whole
    assert "Kirkpatrick et al., PNAS 2017; loss: ce + 500 ewc penalty" in whole
    assert whole.count("0.01 matching(distance=mse) + 0.001 attraction(distance=mse)") == 2


def test_every_paper_is_named_with_its_year():
    for name, row in ROWS.items():
        assert row.summary, name
        assert name in ("FT", "Joint") or row.paper[-4:].isdecimal(), name


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "--help"]])
def test_listing_methods_needs_no_torch(arguments):
    code = (
        "import sys; from sparcl_lib.cli.program import app\n"
        f"app({arguments}, standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
