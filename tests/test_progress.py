"""Progress bars: seldom in a file, whole when all was done, red when it was not."""

import io
import multiprocessing
import time

import pytest
from conftest import Terminal

from sparcl_lib import progress


def test_a_file_gets_few_lines():
    """Every tenth of a second one, they filled a log."""
    out = io.StringIO()
    clock = iter(range(10_000))
    bar = progress.tqdm(range(100), "step 1", file=out)
    bar._time = lambda: next(clock) / 10  # ten seconds and a little
    assert list(bar) == list(range(100))
    first, last = out.getvalue().splitlines()  # so that what follows begins a line of its own
    assert first.startswith("step 1:   0%") and "100/100" in last and out.getvalue().endswith("\n")


def test_a_bar_inside_another_one_is_lines_in_a_file():
    out = io.StringIO()
    with progress.tqdm(total=1, desc="runs", file=out):
        for _ in progress.tqdm(range(2), "step", file=out, leave=False, mininterval=0):
            pass
    lines = out.getvalue().splitlines()
    assert all(line.startswith(("runs:", "step:")) for line in lines), lines
    assert len(set(lines)) == len(lines) > 2


@pytest.mark.parametrize(("stream", "moves"), [(Terminal, True), (io.StringIO, False)])
def test_in_a_terminal_the_clock_goes_on_while_nothing_comes(stream, moves):
    """A pool's bar stood at 00:00 until its first run was trained, as if it hung."""
    out = stream()
    with progress.tqdm(total=2, file=out) as bar, progress.ticking(bar, seconds=0.01):
        before = len(out.getvalue())
        time.sleep(0.2)
        assert (len(out.getvalue()) > before) == moves
    ended = out.getvalue()
    time.sleep(0.05)
    assert out.getvalue() == ended and "0/2" in ended


def test_a_bar_that_is_turned_off_has_no_clock():
    with progress.tqdm(total=2, disable=True) as bar, progress.ticking(bar):
        assert not bar.update()


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (["\rstep 1: 40%", "\rstep 1: 50%   "], "step 1: 50%"),
        (["step 1", "\n", "test", "\x1b[A"], "test"),  # tqdm goes to a lower line and back
        (["step 1: 100%", "\n"], ""),
        (["test", "\r      \r"], ""),
        (["\x1b[2J\udc80"], r"\x1b[2J?"),
        (["x" * 1000], "x" * 79),
    ],
)
def test_the_bar_of_another_process_is_what_was_last_written_there(monkeypatch, written, seen):
    out = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", out)
    monkeypatch.setenv("COLUMNS", "80")
    bars = progress.BarsOfOthers(multiprocessing.get_context("spawn"), 2)
    other, mine = bars.take(), bars.take()
    with bars.shown():
        first, second = sorted(lines(), key=lambda bar: -bar.pos)
        for text in written:
            other.write(text)
        mine.write("of the second one")
        assert (str(first), str(second)) == (seen, "of the second one")
        first.refresh()
        assert seen in out.getvalue()
    assert "second" not in out.getvalue() and not lines()


@pytest.mark.parametrize(("stream", "seen"), [(Terminal, True), (io.StringIO, False)])
def test_bars_of_this_process_are_one_line_in_a_terminal_and_none_in_a_file(
    monkeypatch, stream, seen
):
    """Those of `--jobs 1` stayed, a row for each step, and filled a log."""
    out = stream()
    monkeypatch.setattr(progress.sys, "stderr", out)
    monkeypatch.setenv("COLUMNS", "80")
    with progress.tqdm(total=2, desc="runs"):
        for step in range(2):
            with progress.one_line():
                for _ in progress.tqdm(range(3), f"step {step}"):
                    for bar in lines():
                        bar.refresh()
    assert progress.sys.stderr is out and "runs" in out.getvalue() and not lines()
    for step in range(2):
        assert (f"step {step}:" in out.getvalue()) == seen
    assert "step" not in out.getvalue().splitlines()[-1]


def test_in_a_page_bars_of_this_process_stay_as_they_are(monkeypatch, page):
    with progress.one_line():
        assert list(progress._PageBar(range(2), "step 0")) == [0, 1]
    assert len(page) == 1 and "2/2" in page[0].pages[-1] and not lines()


def lines():
    return [bar for bar in progress.tqdm._instances if isinstance(bar, progress._LineOfOther)]


@pytest.fixture
def page(monkeypatch):
    """The outputs of a cell in which bars are made, by their order."""
    outputs = []

    class Handle:
        def __init__(self, bar):
            self.pages = [bar._repr_html_()]

        def update(self, bar):
            self.pages.append(bar._repr_html_())

    def display(bar, display_id):
        outputs.append(Handle(bar))
        return outputs[-1]

    monkeypatch.setattr(progress, "_display", display)
    return outputs


def test_a_bar_in_a_page_ends_green_and_whole(page):
    for _ in progress._PageBar(range(3), "step 1"):
        assert progress._RUNNING in page[0].pages[-1]
    last = page[0].pages[-1]
    assert "step 1" in last and "3/3" in last and "width:100%" in last
    assert progress._WHOLE in last


def test_a_bar_in_a_page_that_was_stopped_ends_red(page):
    with pytest.raises(KeyboardInterrupt):
        for number in progress._PageBar(range(4), "step <1>"):
            if number == 2:
                raise KeyboardInterrupt
    last = page[0].pages[-1]
    assert "step &lt;1&gt;" in last and "2/4" in last and "width:50%" in last
    assert progress._STOPPED in last


def test_a_bar_in_a_page_that_should_not_stay_is_gone(page):
    list(progress._PageBar(range(3), leave=False))
    with progress._PageBar(total=3, leave=False) as by_hand:
        by_hand.update(3)
    assert [output.pages[-1] for output in page] == ["", ""]


def test_a_bar_of_unknown_length_is_whole_at_its_end(page):
    list(progress._PageBar(iter("abc")))
    assert progress._WHOLE in page[0].pages[-1] and "3" in page[0].pages[-1]


def test_no_output_for_a_bar_that_is_off(page):
    assert list(progress._PageBar(range(3), disable=True)) == [0, 1, 2]
    assert page == []
