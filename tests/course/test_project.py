"""The reader's own project: its rules, its levels, and a page whose commands run."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from custom_data import SMALL, camvid_tree

import sparcl_lib
from sparcl_lib import training
from sparcl_lib.api import configure
from sparcl_lib.cli import main
from sparcl_lib.course import copies, project
from sparcl_lib.course.chapter import NOTEBOOKS
from sparcl_lib.data.minivoc import default_root, generate
from sparcl_lib.errors import UserError

ROOT = NOTEBOOKS.parent
PAGE = (NOTEBOOKS / "project" / "README.md").read_text("utf-8")
TASK = NOTEBOOKS / "project" / "task.yaml"
QUICK = {"optim.iterations": 2, "data.batch_size": 4}


def quick_reference():
    return configure("minivoc", "FT", task=TASK, setup="overlapped", seed=2026, settings=QUICK)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Few images of MiniVOC, in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        generate(default_root(), train=60, val=12, progress=False)
        yield


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """A final run that keeps to the rules, but for its length."""
    return sparcl_lib.train(
        "minivoc", "MiB", task=TASK, setup="overlapped", seed=2026, settings=QUICK,
        out=tmp_path_factory.mktemp("trained") / "run", accelerator="cpu",
    ).folder  # fmt: skip


@pytest.fixture
def copy(trained, tmp_path, monkeypatch) -> Path:
    """A working copy's folder with that run in it, judged by rules that allow its length."""
    monkeypatch.setattr(project, "reference", quick_reference)
    shutil.copytree(NOTEBOOKS / "project", tmp_path / "project")
    shutil.copytree(trained, tmp_path / "project" / "run")
    return tmp_path


# First of all: it reads the whole of MiniVOC, and `data` takes its place.
def test_the_images_of_each_step_are_those_of_the_page(capsys):
    command = ["split", "--dataset", "minivoc", "--task", str(TASK), "--setup", project.SETUP]
    with pytest.raises(SystemExit):
        main([*command, "--format", "counts"])
    counts = re.findall(r"step \d: (\d+) images", capsys.readouterr().out)
    assert [f"{int(n):,}" for n in counts] == re.findall(r"on (\d,\d{3})", PAGE)


def test_a_run_that_keeps_to_the_rules_has_the_score_of_its_network(copy, monkeypatch):
    score = sparcl_lib.load_run(copy / "project" / "run").metrics["steps"][-1]["miou_all"]
    for targets, level in (([score - 1, score - 0.5, 99.0], 2), ([98.0, 98.5, 99.0], 0)):
        monkeypatch.setattr(project, "thresholds", lambda targets=targets: targets)
        found = project.check_project(copy)
        assert found.score == pytest.approx(score, abs=0.001)
        assert (found.level, found.problem) == (level, "")
        assert f"level {level} of 3; the next one is " in str(found)
    monkeypatch.setattr(project, "thresholds", lambda: [0.0, 0.0, 0.0])
    assert "level 3 of 3\nreport: 0 of 9 parts written" in str(project.check_project(copy))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"settings": {"optim.iterations": [600, 900]}}, "optim.iterations"),
        ({"settings": {"data.batch_size": 32}}, "data.batch_size=32, not 16"),
        ({"settings": {"data.border": "ignore"}}, "data.border"),
        ({"settings": {"model.backbone": "mini_wide"}}, "model.backbone"),
        ({"settings": {"precision": "bf16-mixed"}}, "precision"),
        ({"settings": {"data.splits": "lists"}}, "images of its own choice"),
        ({"seed": 0}, "seed=0, not 2026"),
        ({"setup": "sequential"}, "setup=sequential"),
        ({"method": "Joint"}, "is the ceiling"),
        ({}, ""),
        ({"method": "SDR+MiB", "settings": {"optim.lr": [0.05, 0.01]}}, ""),
        ({"settings": {"model.batch_norm": "train", "optim.momentum": 0.8}}, ""),
        ({"method": "SSUL-like", "settings": {"optim.iterations": [600, 300, 300]}}, ""),
    ],
)
@pytest.mark.usefixtures("data")
def test_each_rule_is_named_and_what_is_free_is_free(changed, says):
    asked = {"method": "MiB", "setup": "overlapped", "seed": 2026, **changed}
    config = configure("minivoc", asked.pop("method"), task=TASK, **asked)
    path = Path("mine") / "run"
    if says:
        with pytest.raises(UserError, match=rf"^{path} (was|is) .*{re.escape(says)}.*: train "):
            project._check_settings(path, config)
    else:
        project._check_settings(path, config)


def test_a_run_that_was_edited_is_found_out(copy, monkeypatch):
    run = copy / "project" / "run"
    said = (run / "metrics.json").read_text("utf-8")
    metrics = json.loads(said)
    last = metrics["steps"][-1]
    last["class_iou"] = dict.fromkeys(last["class_iou"], 99.0)
    last |= {name: 99.0 for name in last if name.startswith("miou")}
    (run / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    found = project.check_project(copy)
    assert (found.score, found.level) == (None, 0) and "run sparcl evaluate" in found.problem

    (run / "metrics.json").write_text(said, "utf-8")
    config = (run / "config.yaml").read_text("utf-8")
    (run / "config.yaml").write_text(config.replace("seed: 2026", "seed: 5"), "utf-8")
    asked = configure("minivoc", "FT", task=TASK, setup="overlapped", seed=5, settings=QUICK)
    monkeypatch.setattr(project, "reference", lambda: asked)
    assert "was trained with other settings" in project.check_project(copy).problem


def test_another_task_a_stopped_run_and_none_are_named(copy, monkeypatch):
    asked = configure("minivoc", "FT", task="6-2", setup="overlapped", seed=2026, settings=QUICK)
    monkeypatch.setattr(project, "reference", lambda: asked)
    said = project.check_project(copy).problem
    assert (
        f"step 1 of {copy / 'project' / 'run'} was" in said
        and "its task is project, not 6-2" in said
    )
    assert said.endswith(
        f"train it anew with --dataset minivoc --task {copy / 'project' / 'task.yaml'}"
    )
    monkeypatch.setattr(project, "reference", quick_reference)
    run = copy / "project" / "run"
    shutil.rmtree(run)
    training.train(quick_reference(), run, steps=[0, 1], accelerator="cpu")
    said = project.check_project(copy).problem
    assert said.startswith(f"{run} ends with step 1, not 2: ") and said.endswith("--resume")
    (run / "config.yaml").unlink()
    assert "has no config.yaml" in project.check_project(copy).problem
    shutil.rmtree(run)
    said = project.check_project(copy).problem
    assert said.startswith("not started") and str(copy / "project" / "README.md") in said
    shutil.rmtree(copy / "project")
    assert project.check_project(copy) is None


def test_written_parts_of_a_report_are_counted(copy):
    report = copy / "project" / "report.md"
    text = report.read_text("utf-8")
    assert project._written(report) == project.Written(0, 9)
    asked = re.search(r"## The question\n\n(.+)\n", text)[1]
    report.write_text(text.replace(asked, "Does freezing help?"), "utf-8")
    assert project._written(report) == project.Written(1, 9)
    report.write_text(text.replace(asked, ""), "utf-8")
    assert project._written(report) == project.Written(0, 9)
    report.unlink()
    assert project._written(report) == project.Written(0, 9)


@pytest.mark.parametrize(
    ("heading", "written", "parts"),
    [
        ("## The question", "## In short\n\nDoes freezing help?", 1),
        ("## The question:", "Does freezing help?", 1),
        ("## The question :", "Does freezing help?", 1),
        ("## The question", "## In short\n\nYes.\n\n## At length\n\nDoes freezing help?", 1),
        ("## The question", "```\n## a comment\n```", 1),
        ("## The question:", "", 0),
        ("## My question", "Does freezing help?", 0),
    ],
)
def test_headings_of_the_reader_belong_to_the_part_above(heading, written, parts, tmp_path):
    """A part that began with a heading of the reader's own counted as empty."""
    text = (NOTEBOOKS / "project" / "report.md").read_text("utf-8")
    asked = re.search(r"## The question\n\n(.+)\n", text)[1]
    report = tmp_path / "report.md"
    report.write_text(text.replace("## The question", heading).replace(asked, written), "utf-8")
    assert project._written(report) == project.Written(parts, 9)


def test_a_report_that_cannot_be_read_is_a_line(copy, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    report = copy / "project" / "report.md"
    template = (NOTEBOOKS / "project" / "report.md").read_text("utf-8")
    monkeypatch.setattr(
        Path, "read_text", lambda path, *_, **__: refuse() if path == report else template
    )
    with pytest.raises(UserError, match=r"cannot read .*report\.md \(Permission denied\): give"):
        project._written(report)


def test_links_of_the_project_lead_somewhere():
    for page in (NOTEBOOKS / "project").glob("*.md"):
        text = page.read_text("utf-8")
        links = re.findall(r"\]\(([^)]+)\)", text)
        assert links
        for link in links:
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert not anchor or anchor in slugs, link


def test_the_levels_on_the_page_are_those_that_were_measured():
    rows = pd.read_csv(ROOT / project._STUDY)
    assert set(rows.seed) == {project.HELD_OUT_SEED}
    last = rows[rows.step == 2].set_index("method").miou_all
    names = {"FT": "fine-tuning", "SDR": "SDR", "MiB": "MiB"}
    found = [
        f"| {n} | {names[method]} | {last[method]:.1f} | {last[method] + project.MARGIN:.1f} |"
        for n, method in enumerate(project.LEVELS, start=1)
    ]
    assert "\n".join(found) in PAGE and f"has {last['Joint']:.1f}" in PAGE
    assert project.thresholds() == sorted(project.thresholds())
    assert project.thresholds()[-1] < last["Joint"]


def test_levels_that_are_not_there_are_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "NOTEBOOKS", tmp_path / "notebooks")
    with pytest.raises(UserError, match=r"results\.csv \(No such file.*git checkout benchmarks"):
        project.thresholds()


def test_no_study_used_the_seed_that_is_held_out():
    for file in (ROOT / "benchmarks").rglob("*.csv"):
        columns = pd.read_csv(file)
        if "seed" in columns and file != ROOT / project._STUDY:
            assert project.HELD_OUT_SEED not in set(columns.seed), file


def test_a_working_copy_has_the_project_and_keeps_what_was_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    monkeypatch.setattr(copies, "NOTEBOOKS", tmp_path / "notebooks")
    for _ in range(2):
        copies.start(tmp_path / "mine")
        report = tmp_path / "mine" / "project" / "report.md"
        assert (tmp_path / "mine" / "project" / "task.yaml").is_file() and report.is_file()
        report.write_text("## The question\n\nMine.\n", "utf-8")
    assert report.read_text("utf-8") == "## The question\n\nMine.\n"
    monkeypatch.setattr("sparcl_lib.course.marking._run", lambda *_: [])
    for more, says in (([], "project: not started"), (["00"], "mark: ")):
        with pytest.raises(SystemExit):
            main(["course", "check", str(tmp_path / "mine"), *more])
        printed = capsys.readouterr().out
        assert says in printed and ("report: 1 of 9 parts written" in printed) == (not more)


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{space}", "", text, flags=re.MULTILINE) for space, text in found]


def sparcl(command: str, settings: list[str]) -> None:
    """One command of the page, on one seed and at tiny size."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "sparcl"
    if words[1] in ("compare", "train"):
        words += [part for setting in settings for part in ("--set", setting)]
    if words[1] == "compare":
        words += ["--seeds", "0", "--jobs", "1"]
    with pytest.raises(SystemExit) as done:
        main(words[1:])
    assert not done.value.code, command


@pytest.mark.usefixtures("data")
def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project, "reference", quick_reference)
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS)
    monkeypatch.setattr(copies, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr("sparcl_lib.course.marking._run", lambda *_: [])
    copies.start(tmp_path / "my-course")
    rows, lists = blocks("yaml")
    Path("my-course/project/mine.yaml").write_text(rows, "utf-8")
    field, mine, final, photographs = blocks("sh")
    train, check = final.replace("\\\n", " ").strip().splitlines()
    few = [f"{key}={value}" for key, value in QUICK.items()]
    for command in (field, mine, train):
        sparcl(command, few)
    table = pd.read_csv("my-course/project/mine/results.csv")
    assert set(table.method) == {"MiB", "mine"} and set(table.step) == {0, 1, 2}
    capsys.readouterr()
    sparcl(check, [])
    assert re.search(r"project: \d+\.\d on all classes, level 0 of 3", capsys.readouterr().out)

    camvid_tree(Path("mine"))
    names = sorted(path.stem for path in Path("mine/train").iterdir())
    Path("mine/choose.txt").write_text("\n".join(names[:2]), "utf-8")
    Path("mine/rest.txt").write_text("\n".join(names[2:]), "utf-8")
    classes = "classes: [sky, building, pole, road, pavement, tree, sign, fence, car, man, bicycle]"
    Path("mine/choosing.yaml").write_text(f"{classes}\nvoid: 11\n{lists}", "utf-8")
    Path("mine/steps.yaml").write_text("steps: [[sky, building], [pole], [road]]", "utf-8")
    sparcl(photographs, [*SMALL, "model.weights=null"])
    table = pd.read_csv("mine/field/results.csv")
    assert set(table.method) == set(project.LEVELS) and set(table.step) == {0, 1, 2}
