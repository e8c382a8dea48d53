"""The page: one sound file, the verdict first, pictures with words, anchors and links that hold."""

import base64
import io
import platform
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fabricated_runs import make_run, scored_run, voc_run
from PIL import Image

from sparcl_lib.config import resolve
from sparcl_lib.report import ReportRun, render, results_table, write_results
from sparcl_lib.report.names import told_apart
from sparcl_lib.report.page import write_report
from sparcl_lib.viz import forgetting_curves

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
VOID = ("img", "meta", "source")


@pytest.fixture(scope="module")
def runs() -> list[ReportRun]:
    """Four methods, two seeds, three steps."""
    return [make_run(m, seed) for m in ("Joint", "SDR", "MiB", "FT") for seed in (0, 1)]


@pytest.fixture(scope="module")
def page(runs) -> str:
    return render(runs, "html")


class Page(HTMLParser):
    """Images, links, anchors, headings, and tags that were opened and closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.narrow, self.links, self.anchors = [], [], [], []
        self.open, self.opened = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.opened.append(tag)
        self.images += [attrs] if tag == "img" else []
        self.narrow += [attrs] if tag == "source" else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.anchors += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pixels(source: str) -> np.ndarray:
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_page_is_one_file_of_sound_html(page):
    parsed = Page(page)
    assert parsed.open == []
    assert not {"script", "link", "iframe"} & set(parsed.opened)
    sources = [i["src"] for i in parsed.images] + [i["srcset"] for i in parsed.narrow]
    assert all(address.startswith("data:image/png;base64,") for address in sources)
    assert all(link.startswith(("#", "data:text/csv;base64,")) for link in parsed.links)
    assert "http" not in page and "url(" not in page and "@import" not in page
    assert len(page) < 2_500_000


def test_contents_lead_to_every_part_and_no_anchor_comes_twice(page):
    parsed = Page(page)
    assert len(set(parsed.anchors)) == len(parsed.anchors)
    targets = [link[1:] for link in parsed.links if link.startswith("#")]
    assert set(targets) <= set(parsed.anchors)
    parts = re.findall(r'<h3 id="([^"]+)"', page)
    assert len(parts) >= 5 and set(parts) <= set(targets)


def test_the_verdict_comes_first_and_how_to_read_before_the_tables(page):
    words = ("<h2>In short", "Most was lost by FT", "<h2>Contents", "<h2>How to read", "<table>")
    order = [page.index(part) for part in words]
    assert order == sorted(order)


def test_pictures_have_words_twice_their_size_and_a_form_for_a_telephone(page):
    parsed = Page(page)
    assert len(parsed.images) == 2 + 1 + 4  # panels of curves, strips, a heat map per method
    for image in parsed.images:
        assert len(image["alt"]) > 30
        picture = pixels(image["src"])
        assert picture.std() > 10 and min(picture.shape) > 150
        assert picture.shape[1] == pytest.approx(2 * int(image["width"]), abs=2)
    assert len(parsed.narrow) == 1
    wide = [int(image["width"]) for image in parsed.images]
    assert sum(width > 430 for width in wide) == 1  # it has a narrow form, legible at 358
    for image in parsed.narrow:
        assert pixels(image["srcset"]).shape[1] / 2 <= 430 and "640px" in image["media"]


def test_page_says_what_was_run_and_marks_the_best_continual_method(page):
    assert "FT, SDR, MiB, Joint on MiniVOC: 6 classes in 3 steps, 8 runs, seeds 0, 1." in page
    assert "disc, square, ring" in page and "border" in page
    assert page.count('class="best"') == 1
    assert re.search(r'class="best"><th scope="row">MiB<', page)
    assert "Bands: one standard deviation" in page and "Beyond the spread? All classes" in page
    assert "Published numbers" not in page and "Run it again" not in page


def test_the_page_says_which_devices_trained_where_every_run_knows():
    """A kept run is found whatever trained it, and a GPU does not give a CPU's last digits."""
    cpu, gpu = (make_run("FT", s, accelerators=3 * [d]) for s, d in enumerate(("cpu", "cuda")))
    assert " Trained on cpu.</p>" in render([cpu], "html")
    assert " Trained on cpu and cuda." in render([cpu, gpu], "html")
    assert "Trained on" not in render([cpu, make_run("FT", 2)], "html")


def test_one_seed_shows_no_best_and_no_band():
    single = render([make_run(m) for m in ("FT", "MiB", "SDR", "Joint")], "html")
    assert 'class="best"' not in single and ">best<" not in single
    assert "no method is called best" in single
    assert "Bands" not in single and "Beyond the spread? All" not in single


def test_a_difference_within_the_spread_shows_no_best():
    values = {"MiB": (64.0, 60.0, 66.0), "SDR": (63.0, 62.0, 65.5)}  # means 63.3, 63.5
    runs = [scored_run(m, seed, v) for m, vs in values.items() for seed, v in enumerate(vs)]
    text = render(runs, "html")
    assert ">best<" not in text and "not ahead of MiB beyond the spread" in text


def test_the_table_is_there_for_programs(runs, page):
    (link,) = (link for link in Page(page).links if link.startswith("data:"))
    table = pd.read_csv(io.BytesIO(base64.b64decode(link.partition(",")[2])))
    expected = results_table(runs)
    assert list(table) == list(expected)
    np.testing.assert_allclose(table["miou_all"], expected["miou_all"], atol=5e-5)


def test_results_beside_the_page_and_the_course_are_linked_where_they_are(tmp_path):
    runs = [make_run("FT", pictures=False)]
    write_report(runs, tmp_path / "alone" / "report.html", "title")
    write_results(runs, tmp_path / "both")
    write_report(runs, tmp_path / "both" / "report.html", "title", remark="A <remark>.")
    for folder, names in (("alone", set()), ("both", {"results.csv", "results.json"})):
        text = (tmp_path / folder / "report.html").read_text("utf-8")
        links = [link for link in Page(text).links if not link.startswith(("#", "data:"))]
        assert names <= set(links) and len(links) == len(names) + 1
        assert all((tmp_path / folder / link).is_file() for link in links)
        assert any(link.endswith("notebooks/README.md") for link in links)
    assert "A &lt;remark&gt;." in text and "The study" not in text
    write_report(runs, tmp_path / "both" / "report.html", "title", remark="So.", study="mib_parts")
    text = (tmp_path / "both" / "report.html").read_text("utf-8")
    (study,) = (link for link in Page(text).links if "studies" in link)
    assert (tmp_path / "both" / study).resolve() == STUDIES / "mib_parts" / "README.md"
    machine = f"PyTorch {torch.__version__.partition('+')[0]}"
    assert f"with {machine}" in text and f"{platform.system()}, {platform.machine()}" in text
    assert "course that comes with" in render(runs, "html")


def test_the_page_says_what_its_pictures_may_seem_to_deny(page):
    """A line above the upper bound, a column of joint training, three pictures of six."""
    assert "a line may begin above it, for fewer classes are easier" in page
    assert "Joint is trained once, on all classes: its row is the last step&#39;s." in page
    assert "on a narrow screen 3 of them at most" in page


def test_page_of_two_tasks_escapes_and_lists_commands(tmp_path):
    two_steps = [["disc"], ["bar"]]
    runs = [make_run("FT", classes=two_steps, pictures=False), voc_run("MiB")]
    path = tmp_path / "new" / "report.html"
    write_report(runs, path, "<b>mine</b>", ["sparcl demo --out x"])
    text = path.read_text("utf-8")
    assert "<b>mine" not in text and "&lt;b&gt;mine" in text
    assert text.count("<h2>MiniVOC") == text.count("<h2>Pascal VOC") == 1
    assert text.count('<p class="verdict"><a href="#') == 2 and "sparcl demo --out x" in text
    assert "Published numbers are from other data" in text
    parsed = Page(text)
    assert len(parsed.images) == 2 * 3  # no strips without predictions
    assert len(set(parsed.anchors)) == len(parsed.anchors)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_runs_whose_settings_are_unknown_have_no_list_of_methods(page):
    assert "What the methods are" not in page


def test_runs_of_one_name_and_other_weights_are_listed_apart():
    runs = [
        make_run("MiB", seed)._replace(
            config=resolve("minivoc", "MiB", [{"method": {"terms": {"kd": {"weight": weight}}}}],
                           task="6-4", seed=seed)
        )
        for seed, weight in enumerate((10.0, 10.0, 3.0))
    ]  # fmt: skip
    page = render(told_apart(runs), "html").replace("\u00a0", " ")
    for name, weight in (("MiB", 10), ("MiB (kd.weight=3.0)", 3)):
        assert page.count(f"<b>{name}</b>: <code>ce(unbiased) + {weight} kd(unbiased)</code>") == 1
    assert results_table(told_apart(runs)).seeds.tolist() == [2, 1]


def test_unfinished_run_is_named_as_such_and_never_best():
    runs = [make_run(m, seed) for m in ("MiB", "FT") for seed in (0, 1)]
    runs += [make_run("SDR", seed, last=0) for seed in (0, 1)]
    text = render(runs, "html")
    assert "SDR (until step 0)" in text
    assert re.search(r'class="best"><th scope="row">MiB<', text)


def test_an_unfinished_run_alone_has_a_page():
    """No method has a value after the last step."""
    page = Page(render([make_run("SDR", last=1, pictures=False)], "html"))
    assert page.images and render(
        [make_run("Joint", pictures=False), make_run("FT", last=0)], "html"
    )


def test_a_run_of_which_no_class_has_a_number_has_a_page():
    runs = [make_run("FT", seed, pictures=False) for seed in (0, 1)]
    for entry in (entry for run in runs for entry in run.metrics["steps"]):
        entry["class_iou"] = dict.fromkeys(entry["class_iou"])
        entry |= {name: None for name in entry if name.startswith("miou_")}
    assert "Results" in render(runs, "html")


def test_single_step_task_has_no_forgetting_curves():
    run = make_run("FT", classes=[["disc", "bar"]], pictures=False)
    assert len(Page(render([run], "html")).images) == 1


def test_curves_of_the_page_are_those_of_the_matrices(runs, page):
    """The page draws from mIoUs, as a table of results has them; chapters draw from matrices."""
    matrices = {m: [run.matrix() for run in runs if run.method == m]
                for m in ("FT", "SDR", "MiB", "Joint")}  # fmt: skip
    figure = forgetting_curves(matrices)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    table = results_table(runs).set_index("method")
    assert {f"{m}  {table.miou_all[m]:.1f}" for m in matrices} <= texts
