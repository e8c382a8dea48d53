"""In a real kernel: mistakes and interrupts are one line, the rest comes when asked, cells fail."""

import queue

import pytest
from conftest import PATIENCE
from jupyter_client.manager import start_new_kernel


class Kernel:
    """A kernel, and what its cells show."""

    def __init__(self, manager, client) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str, interrupt_at: str = "", cell: str = "") -> tuple[str, list[dict]]:
        """Status of the cell, and its outputs; interrupted when it has printed `interrupt_at`.

        cell: its id, as JupyterLab sends it; none where a front end sends none.
        """
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        message = self.client.session.msg("execute_request", content)
        message["metadata"] = {"cellId": cell} if cell else {}
        self.client.shell_channel.send(message)
        request, outputs, idle = message["header"]["msg_id"], [], False
        while True:
            try:  # what other processes print comes when the cell is done
                message = self.client.get_iopub_msg(timeout=0.5 if idle else PATIENCE)
            except queue.Empty:
                break
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                idle = True
            if kind in ("stream", "error", "display_data", "execute_result", "update_display_data"):
                outputs.append({"kind": kind, **content})
            if interrupt_at and interrupt_at in content.get("text", ""):
                self.manager.interrupt_kernel()
        reply = self.client.get_shell_msg(timeout=PATIENCE)
        while reply["parent_header"]["msg_id"] != request:  # of the kernel's start
            reply = self.client.get_shell_msg(timeout=PATIENCE)
        return reply["content"]["status"], outputs


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(startup_timeout=PATIENCE)
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def lines_of(outputs: list[dict]) -> list[str]:
    """All that is read below the cell but what it printed itself."""
    errors = [line for o in outputs if o["kind"] == "error" for line in o["traceback"]]
    streams = [o["text"] for o in outputs if o["kind"] == "stream"]
    return "\n".join([*errors, *streams]).splitlines()


MISTAKES = {
    "setting": (
        "import sparcl_lib\n"
        "settings = {'method.terms.kd.wight': 3}\n"
        "sparcl_lib.train('minivoc', 'MiB', task='6-4', settings=settings)",
        "UserError: ",
    ),
    "guess": (
        "from sparcl_lib.course import guess_first; guess_first('many')",
        "UserError: a guess is a number without quotes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("code, start", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_the_rest_comes_when_asked(kernel, code, start):
    status, outputs = kernel.run(code)
    (line,) = lines_of(outputs)
    assert status == "error" and line.startswith(start) and line.endswith("(%tb shows where)")
    rest = lines_of(kernel.run("%tb")[1])
    assert len(rest) > 3 and any("File " in line for line in rest)


INTERRUPTED = {
    "a loop": "import time, sparcl_lib.course\nprint('now', flush=True)\ntime.sleep(60)",
    "a pool": """
import functools, time, threading, multiprocessing, sparcl_lib.course
from sparcl_lib.experiments.pool import run_calls

def tell():  # while the processes still import, where a traceback of each would be printed
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
    print('now', flush=True)

threading.Thread(target=tell).start()
wait = functools.partial(time.sleep, 60)
run_calls({1: wait, 2: wait}, 2, 'waits')
""",
}


@pytest.mark.parametrize("code", INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupt_is_one_line_and_the_cell_failed(kernel, code):
    status, outputs = kernel.run(code, interrupt_at="now")
    assert status == "error"
    lines = [line for line in lines_of(outputs) if line not in ("", "now")]
    assert [line.partition(":")[0] for line in lines] == ["KeyboardInterrupt"], lines
    rest = lines_of(kernel.run("%tb")[1])
    assert len(rest) > 3 and "KeyboardInterrupt" in rest[-1]


def test_nothing_is_echoed_below_a_check_or_a_guess(kernel):
    code = "from sparcl_lib.course import check, guess_first\n"
    _, checked = kernel.run(code + "check('1.1', abs, [((-1,), 1)])")
    assert [o["kind"] for o in checked] == ["display_data"]
    assert checked[0]["data"]["text/plain"] == "Exercise 1.1: right."
    _, guessed = kernel.run(code + "guess_first(3)")
    assert guessed == []


GUESS = "my_guess = {}\nguess_first(my_guess, 0, 9)"
FIRST, AFTER_FIRST = "04-guess-1", "04-056-after-guess-1"
SECOND, AFTER_SECOND = "04-guess-2", "04-070-after-guess-2"
SCRATCH = "4b0e1a52-77aa-4f0e-9a0e-001100220033"


@pytest.fixture
def waiting(kernel):
    """The kernel of a chapter whose first cell has been run, and that of its guess has not."""
    code = "from sparcl_lib.course import guess_first, guesses\nguesses._GATE.given.clear()"
    assert kernel.run(code) == ("ok", [])
    return kernel


def is_refused(kernel: Kernel, cell: str) -> bool:
    """Whether a cell was not run, and a line said why."""
    kernel.run("seen = False")
    status, outputs = kernel.run("print('the value')\nseen = True", cell=cell)
    if status == "ok":
        return False
    (line,) = lines_of(outputs)
    assert line.startswith('GuessIsOwed: first your guess, in the cell below "Predict')
    assert not line.endswith("where)")
    assert lines_of(kernel.run("print(seen)")[1]) == ["False"]
    return True


@pytest.mark.parametrize("none", ["", "None", "'about half'", "99", "pass"])
def test_a_cell_below_a_prediction_is_not_run_without_a_guess(waiting, none):
    """Nor where the cell of the guess was passed over, or is no Python: `pass` without quotes."""
    if none:
        assert waiting.run(GUESS.format(none), cell=FIRST)[0] == "error"
    assert is_refused(waiting, AFTER_FIRST)


@pytest.mark.parametrize(
    "cell", ["", "04-054", FIRST, "04-090", "04-exercise-1", "04-check-1", SCRATCH]
)
def test_what_shows_nothing_that_was_measured_is_run_without_a_guess(waiting, cell):
    """Cells of the reader's own, those above, exercises, their checks and what these need."""
    assert lines_of(waiting.run("print('mine')", cell=cell)[1]) == ["mine"]


@pytest.mark.parametrize("guess", ["3", "'pass'"])
@pytest.mark.parametrize("cell", [FIRST, SCRATCH])
def test_a_guess_opens_what_is_below_until_it_is_taken_back(waiting, guess, cell):
    """Also in a cell that was merged or copied, which has another id then."""
    assert waiting.run(GUESS.format(guess), cell=cell) == ("ok", [])
    assert not is_refused(waiting, AFTER_FIRST)
    waiting.run(GUESS.format("None"), cell=cell)
    assert is_refused(waiting, AFTER_FIRST)


def test_of_two_predictions_each_waits_for_its_own_guess(waiting):
    assert is_refused(waiting, SECOND)
    for _ in range(2):  # the first again is not the second
        assert waiting.run(GUESS.format("3"), cell=FIRST) == ("ok", [])
    assert not is_refused(waiting, "04-060-after-guess-1") and is_refused(waiting, AFTER_SECOND)
    assert waiting.run(GUESS.format("3"), cell=SECOND) == ("ok", [])
    assert not is_refused(waiting, AFTER_SECOND)


def test_a_bar_is_one_output_that_ends_green_and_whole(kernel):
    """As HTML, which stays when the notebook is opened again; a widget is lost with its kernel."""
    loop = "from sparcl_lib.progress import tqdm\nfor _ in tqdm(range(3), 'step 1'): pass"
    _, outputs = kernel.run(loop)
    assert {o["kind"] for o in outputs} == {"display_data", "update_display_data"}
    assert len({o["transient"]["display_id"] for o in outputs}) == 1
    page = outputs[-1]["data"]
    assert set(page) == {"text/html", "text/plain"}
    assert "3/3" in page["text/html"] and "#2e7d32" in page["text/html"]
    assert "100%" in page["text/plain"]
