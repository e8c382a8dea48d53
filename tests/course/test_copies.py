"""Working copies and hand-outs: what is added, what is kept, what is refused."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from sparcl_lib import course
from sparcl_lib.cli import main
from sparcl_lib.course import copies, lab
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters, tags_of
from sparcl_lib.errors import UserError

CHAPTERS = read_chapters(NOTEBOOKS / "sources")
NAMES = tuple(chapter.name for chapter in CHAPTERS)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with the notebooks of this one, which copies take for the checkout."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.setattr(copies, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_working_copy_is_whole_and_the_same_each_time(checkout):
    started = copies.start(checkout / "my-course")
    assert started.added == NAMES and started.kept == ()
    first = everything(checkout / "my-course")
    chapters = {f"{name}.ipynb" for name in NAMES}
    project = {f"project/{name}" for name in ("README.md", "report.md", "task.yaml")}
    assert set(first) == {".gitignore", "README.md", *chapters, *project}
    shutil.rmtree(checkout / "my-course")
    copies.start(checkout / "my-course")
    assert everything(checkout / "my-course") == first


def test_answers_are_kept_and_missing_chapters_added(checkout):
    copies.start(checkout / "my-course")
    answered, gone, *_ = (checkout / "my-course" / f"{name}.ipynb" for name in NAMES)
    answered.write_text("what I wrote", "utf-8")
    gone.unlink()
    started = copies.start(checkout / "my-course")
    assert answered.read_text("utf-8") == "what I wrote" and gone.is_file()
    assert started.added == NAMES[1:2] and started.kept == (NAMES[0], *NAMES[2:])
    message = str(started)
    assert f"added {NAMES[1]}; kept {NAMES[0]}, " in message
    assert message.endswith("with all that you wrote") and "\n" not in message


def test_a_copy_of_a_chapter_asks_and_shows_nothing_before(checkout):
    copies.start(checkout / "my-course")
    for path in (checkout / "my-course").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)
        guesses = [cell.source for cell in notebook.cells if "predict" in tags_of(cell)]
        assert guesses and all(re.match(r"my_\w*guess = None", guess) for guess in guesses)
        assert sum("NotImplementedError" in cell.source for cell in notebook.cells) >= 3


def test_links_of_the_index_hold_in_the_copy_and_name_no_sources(checkout):
    copies.start(checkout / "my-course")
    index = (checkout / "my-course" / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", index)
    assert {f"{name}.ipynb" for name in NAMES} <= set(targets)
    for target in targets:
        inside = (checkout / "my-course" / target).is_file()
        assert inside or (NOTEBOOKS / target).is_file() or target.startswith("../docs/")
    assert "sources" not in index and "CONTRIBUTING" not in index


@pytest.mark.parametrize("form", ["student", "solutions"])
def test_the_index_of_a_hand_out_is_true_there(checkout, form):
    """It said `make lab`, which opens another folder, and listed chapters that were not there."""
    copies.hand_out(checkout / "handout", form, ["00", "01"])
    index = (checkout / "handout" / "README.md").read_text("utf-8")
    assert "make lab" not in index and "my-course" not in index and "folded below" not in index
    assert "`sparcl course lab handout`" in index and "beginning -->" not in index
    assert ("sparcl course check handout" in index) == (form == "student")
    assert ("teach" in index) == (form == "solutions")
    welcome = (checkout / "handout" / f"{NAMES[0]}.ipynb").read_text("utf-8")
    assert "make lab" not in welcome and "teaching.md" not in welcome
    assert re.findall(r"\]\((\w+\.ipynb)\)", index) == [f"{name}.ipynb" for name in NAMES[:2]]
    copies.hand_out(checkout / "handout", form, ["02"])
    assert f"({NAMES[2]}.ipynb)" in (checkout / "handout" / "README.md").read_text("utf-8")


def test_a_hand_out_has_no_link_to_a_chapter_that_is_not_in_it(checkout):
    """Two of twelve chapters had eleven dead links, in the map of the course and at their ends."""
    folder = checkout / "handout"
    copies.hand_out(folder, "student", ["00", "01"])
    for name in NAMES[:2]:
        notebook = nbformat.read(folder / f"{name}.ipynb", 4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        targets = set(re.findall(r"\]\(([^)#/]+\.ipynb)", text))
        assert targets and all((folder / target).is_file() for target in targets)
    assert "| 04 Distillation | What does" in (folder / f"{NAMES[0]}.ipynb").read_text("utf-8")
    line = "[one](00_a.ipynb), [two](01_b.ipynb#x), [three](../docs/c.md)"
    assert copies.without_links_to_others(line, {"00_a.ipynb"}) == (
        "[one](00_a.ipynb), two, [three](../docs/c.md)"
    )


def test_the_index_of_a_working_copy_names_it(checkout):
    copies.start(checkout / "second")
    index = (checkout / "second" / "README.md").read_text("utf-8")
    assert "`sparcl course lab second`" in index and "`sparcl course check second`" in index
    assert "A solution is folded below" in index and "make lab" not in index


WITHOUT_TORCH = """
import sys
from pathlib import Path
from sparcl_lib.cli import main
from sparcl_lib.course import copies, lab
copies.NOTEBOOKS = Path(sys.argv[1]) / "notebooks"
lab.open_lab = lambda folder, options: 0
try:
    main(["course", *sys.argv[2:]])
except SystemExit as done:
    sys.exit(f"{done.code}, torch: {'torch' in sys.modules}")
"""


@pytest.mark.parametrize("command", [["start"], ["lab"], ["--help"], ["lab", "--help"]])
def test_making_and_opening_a_copy_imports_no_torch(checkout, command):
    """It took five seconds of waiting before a line was printed."""
    folder = [] if "--help" in command else [str(checkout / "mine")]
    code = [sys.executable, "-c", WITHOUT_TORCH, str(checkout), *command, *folder]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "0, torch: False"
    assert not folder or (checkout / "mine" / "README.md").is_file()


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("4", "4")])
def test_chapters_have_one_thread_in_the_lab_unless_the_user_gives_more(
    monkeypatch, tmp_path, given, threads
):
    """On two, a chapter took half a minute alone and seven beside other work."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert lab.lab_environment(tmp_path)["OMP_NUM_THREADS"] == threads


def test_every_name_that_chapters_import_is_there():
    """They are imported on first use, so a forgotten home would be seen in a chapter alone."""
    assert set(course._HOMES) == set(course.__all__)
    assert all(getattr(course, name).__name__ == name for name in course.__all__)


def test_git_leaves_a_copy_alone_whatever_its_name(checkout):
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    for name in ("my-course", "second"):
        copies.start(checkout / name)
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? notebooks/\n"


def test_what_binder_runs_makes_the_copy_that_its_buttons_open(tmp_path):
    root, command = tmp_path / "clone", tmp_path / "bin" / "sparcl"
    for name in ("sparcl_lib", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", "shipped")
        shutil.copytree(NOTEBOOKS.parent / name, root / name, ignore=ignored)
    shutil.copy(NOTEBOOKS.parent / "postBuild", root)  # with its mode
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sparcl_lib "$@"\n', "utf-8")
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["./postBuild"], cwd=root, env={**os.environ, "PATH": path}, check=True)
    opened = nbformat.read(root / "my-course" / f"{NAMES[0]}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in opened.cells)


def test_what_is_no_copy_is_refused(checkout, tmp_path_factory):
    with pytest.raises(UserError, match="is not beside .*such as .*my-course"):
        copies.start(tmp_path_factory.mktemp("elsewhere") / "my-course")
    for form in ("student", "solutions"):  # they went there without a word, and all links with them
        with pytest.raises(UserError, match="is not beside .*such as .*handout"):
            copies.hand_out(tmp_path_factory.mktemp("elsewhere") / "handout", form, [])
    with pytest.raises(UserError, match="notebooks holds something else"):
        copies.start(checkout / "notebooks")
    (checkout / "file").write_text("", "utf-8")
    with pytest.raises(UserError, match="file holds something else"):
        copies.start(checkout / "file")
    copies.start(checkout / "my-course")
    with pytest.raises(UserError, match="my-course holds something else"):
        copies.hand_out(checkout / "my-course", "solutions", [])
    (checkout / "empty").mkdir()
    assert copies.start(checkout / "empty").added == NAMES


def test_what_was_written_into_a_hand_out_is_not_lost(checkout):
    """It was, when the teacher made the hand-out again in the folder in which answers stood."""
    folder = checkout / "handout"
    written, other, *_ = copies.hand_out(folder, "student", [])
    before = everything(folder)
    copies.hand_out(folder, "student", [])
    assert everything(folder) == before
    notebook = nbformat.read(written, as_version=4)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.execution_count = 7  # only run
    nbformat.write(notebook, written)
    copies.hand_out(folder, "student", [])
    assert everything(folder) == before
    code.source += "\nmine = 1"
    nbformat.write(notebook, written)
    kept = everything(folder)
    with pytest.raises(UserError, match=f"wrote into {written.name}, which would be lost"):
        copies.hand_out(folder, "student", [])
    assert everything(folder) == kept
    copies.hand_out(folder, "student", [other.name[:2]])
    assert everything(folder) == kept


def test_a_chapter_in_place_of_a_folder_is_asked_about(checkout, capsys, monkeypatch):
    """All chapters were made into a folder 05."""
    monkeypatch.chdir(checkout)
    with pytest.raises(SystemExit) as done:
        main(["course", "make", "student", "05"])
    said = capsys.readouterr().err
    assert done.value.code == 2 and "05 is a chapter's number: give the folder before it" in said
    assert not (checkout / "05").exists()


def test_the_command_says_what_it_did(checkout, capsys):
    for verb in ("added", "kept"):
        with pytest.raises(SystemExit) as done:
            main(["course", "start", str(checkout / "my-course")])
        printed = capsys.readouterr().out
        assert done.value.code == 0 and f"my-course: {verb} 00_welcome, " in printed


def test_without_a_checkout_a_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sparcl_lib.cli.course.CHECKOUT", tmp_path)
    for command in ("start", "lab"):
        with pytest.raises(SystemExit) as done:
            main(["course", command])
        message = capsys.readouterr().err
        assert done.value.code == 2 and message.count("\n") == 1
        assert "clone the repository" in message


def test_the_lab_opens_a_hand_out_as_it_is(checkout, monkeypatch):
    opened = []
    monkeypatch.setattr("sparcl_lib.course.lab.open_lab", lambda folder, _: opened.append(folder))
    folder = checkout / "handout"
    copies.hand_out(folder, "student", ["00"])
    before = everything(folder)
    with pytest.raises(SystemExit):
        main(["course", "lab", str(folder)])
    assert opened == [folder] and everything(folder) == before


@pytest.mark.parametrize("name", ["mine", "my-course"])
def test_the_lab_opens_the_index_with_the_checkout_as_root(checkout, monkeypatch, name):
    """Of the folder that is given, or of my-course; the rest is Jupyter's."""
    monkeypatch.setattr("sparcl_lib.cli.course.CHECKOUT", checkout)
    folder = [str(checkout / name)] if name == "mine" else []
    from sparcl_lib.course import lab

    seen = {}
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "mine")

    class Started:
        waits = 0

        def wait(self):
            self.waits += 1
            if self.waits == 1:  # JupyterLab asks whether it shall end
                raise KeyboardInterrupt
            assert Path(seen["e"]["TMPDIR"]).is_dir()
            return 3

    monkeypatch.setattr(
        lab.subprocess, "Popen", lambda command, env: seen.update(c=command, e=env) or Started()
    )
    with pytest.raises(SystemExit) as done:
        main(["course", "lab", *folder, "--no-browser", "--port", "1"])
    assert done.value.code == 3 and (checkout / name / "README.md").is_file()
    assert seen["c"][3:] == [
        f"--ServerApp.root_dir={checkout}", f"--LabApp.default_url=/lab/tree/{name}/README.md",
        "--no-browser", "--port", "1",
    ]  # fmt: skip
    settings, other = seen["e"]["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert other == "mine"
    assert (Path(settings) / "labconfig" / "default_setting_overrides.json").is_file()
    # Tabs of another session came up, and a kernel of theirs; kernels that were killed left files.
    assert seen["e"]["JUPYTERLAB_WORKSPACES_DIR"] == str(
        (checkout / name / ".workspaces").resolve()
    )
    assert not Path(seen["e"]["TMPDIR"]).exists()
