"""Tables: numbers as a DataFrame, text for people, files for programs."""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from sparcl_lib.errors import first_few
from sparcl_lib.metrics import dump_json, format_mean, mean_columns, untested_classes
from sparcl_lib.published.differences import row_differences
from sparcl_lib.published.tables import recipes
from sparcl_lib.report.names import other_first_steps, standard_classes
from sparcl_lib.report.runs import (
    KEYS,
    ReportRun,
    by_group,
    label_policy,
    ordered,
    protocol_of_test,
    tested_on,
)
from sparcl_lib.writing import write_csv, write_text

MEASURES = {
    "miou_old": "old",
    "miou_new": "new",
    "miou_all": "all",
    "miou_old_no_bg": "old w/o bg",
    "miou_all_no_bg": "all w/o bg",
}
AS_PUBLISHED = {
    "miou_first": "step 0",
    "miou_later": "later steps",
    "miou_first_no_bg": "step 0 w/o bg",
}
"""What published tables of more than two steps call old and new; with two it is the same."""
PUBLISHED = {f"published_{name}": f"published {name}" for name in ("old", "new", "all")}
_MIB_PROTOCOL = " [MiB protocol]"
_UNSTATED = "unstated"
_AND = "; "
_MOST_UNLIKE = 6
"""Differences from a published run that a note names; CSV files have all."""
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&$]")
_LATEX = re.compile(r"[\\{}$&#^_~%<>|\"]")
_IN_LATEX = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
}  # fmt: skip


def results_table(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """One row per dataset, task, setup and method, FT first and Joint last; mIoU in percent.

    Columns: the four names, seeds, the five means over seeds of the last step, those of step 0's
    classes and of all later steps' (miou_first, miou_later), their deviations (`_std`, NaN for one
    seed), seconds of training (mean over seeds), steps of the task, test (as `protocol_of_test`),
    published_old, _new, _all (NaN where nothing is known), published_source, and
    published_unlike: what the first run has not as the recipe of that row has it. Published old and
    new are of step 0's classes and of all later steps'.
    """
    runs = ordered(runs)
    names = [*MEASURES, *AS_PUBLISHED]
    rows = pd.DataFrame(map(_last_step, runs)).astype(dict.fromkeys(names, float))  # null is NaN
    groups = rows.groupby(list(KEYS), sort=False)
    measures = groups[names]
    counts = groups["seed"].count().rename("seeds")
    deviations = measures.std().add_suffix("_std")
    table = pd.concat([counts, measures.mean(), deviations, groups["seconds"].mean()], axis=1)
    firsts = {(*run.group, run.method): run for run in reversed(runs)}
    table["steps"] = [len(firsts[key].metrics["classes"]) for key in table.index]
    table["test"] = [protocol_of_test(firsts[key].metrics) for key in table.index]
    known = [published_row(firsts[key]) for key in table.index]
    columns = [*PUBLISHED, "published_source", "published_unlike"]
    published = pd.DataFrame(known, index=table.index, columns=columns)
    return pd.concat([table, published], axis=1).reset_index()


def _last_step(run: ReportRun) -> dict[str, Any]:
    """A run in a row: names, seed, seconds, and the last step's means, NaN for no value."""
    last, matrix = run.metrics["steps"][-1], run.matrix()
    means = {name: last[name] for name in MEASURES}
    means |= {name: getattr(matrix, name)(last["step"]) for name in AS_PUBLISHED}
    names = {**_names(run.metrics), "method": run.method}
    return {**names, "seconds": sum(run.metrics["seconds"]), **means}


def published_row(run: ReportRun) -> dict[str, Any]:
    """Published old, new, all and source of a run's method, and what the run has not as the recipe
    of that row has it; {} if there is none.

    A task in another class order, or of one's own, has none, nor has a test of whole images or of
    what was held out, nor a method with other loss terms. Where MiB's protocol (other
    hyper-parameters, means without background) was published too, the row is the one whose recipe
    is nearer to the run, and the other a remark.
    """
    (dataset, task, setup), method = run.group, run.known_as or run.metrics["method"]
    standard = run.metrics["classes"] == standard_classes(dataset, task)
    if not run.finished or not standard or protocol_of_test(run.metrics) != "crop":
        return {}
    rows = _published()
    setups = [setup, _UNSTATED] if setup == "overlapped" else [setup]
    rows = rows[(rows.dataset == dataset) & (rows.task == task) & rows.setup.isin(setups)]
    found = [row for name in (method, method + _MIB_PROTOCOL)
             for row in rows[rows.method == name].itertuples()]  # fmt: skip
    if not found:
        return {}
    unlike = [_unlike(row, run) for row in found]
    nearest = min(range(len(found)), key=lambda n: (unlike[n] is None, len(unlike[n] or ())))
    chosen, others = found.pop(nearest), found
    numbers = {f"published_{k}": getattr(chosen, f"miou_{k}") for k in ("old", "new", "all")}
    remarks = [_source(chosen), *(f"{_triple(row)} in {_source(row)}" for row in others)]
    listed = unlike[nearest] or []
    said = _AND.join(listed) or None
    return {**numbers, "published_source": "; ".join(remarks), "published_unlike": said}


def _unlike(row: Any, run: ReportRun) -> list[str] | None:
    """What a run has not as the recipe of a published row has it; None where it is not known."""
    if run.config is None:
        return None
    method = row.method.removesuffix(_MIB_PROTOCOL)
    place = (*run.group, method, row.source)
    for recipe in recipes().values():
        source = recipe.published.source if recipe.published else None
        if (recipe.dataset, recipe.task, recipe.setup, recipe.method, source) == place:
            return [*row_differences(recipe, run.config, run.metrics)]
    return None


def _source(row: Any) -> str:
    protocol = row.method.endswith(_MIB_PROTOCOL)
    unstated = " (for which setup is not stated)" if row.setup == _UNSTATED else ""
    return f"{row.source}{' (all means without background)' if protocol else ''}{unstated}"


def _triple(row: Any) -> str:
    return " / ".join(map(format_mean, (row.miou_old, row.miou_new, row.miou_all)))


@cache
def _published() -> pd.DataFrame:
    table = resources.files("sparcl_lib") / "published" / "results.csv"
    with table.open(encoding="utf-8") as file:
        return pd.read_csv(file)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, one decimal, `mean ± deviation`; published columns if one is known."""
    shown = table[[*KEYS, "seeds"]].astype(str)
    published, several = table["published_source"].notna().any(), _several_steps(table)
    measures = MEASURES | (AS_PUBLISHED if several else {})
    shown = shown.assign(**mean_columns(table, measures))
    if published:
        parts = dict(zip(("old", "new"), AS_PUBLISHED.values())) if several else {}
        for column, title in PUBLISHED.items():
            part = column.removeprefix("published_")
            named = f"published {parts[part]}" if part in parts else title
            shown[named] = [format_mean(value) for value in table[column]]
    return shown


def _several_steps(table: pd.DataFrame) -> bool:
    """Whether a published row is of more than two steps, so that old and new are not ours."""
    return bool((table["published_source"].notna() & (table["steps"] > 2)).any())


def sources(table: pd.DataFrame) -> list[str]:
    """Where the published numbers are from, one line per source, and what is not as there."""
    lines = []
    if _several_steps(table):
        lines.append(
            "step 0 and later steps: what the source calls old and new, the classes of step 0 and "
            "those of all later steps; old and new here are the classes before the last step and "
            "its own"
        )
    for column, said in (("published_source", ""), ("published_unlike", "trained otherwise: ")):
        groups = table[table[column].notna()].groupby(column, sort=False)["method"].unique()
        lines += [f"{', '.join(of)}: {said}{_not_all(text)}" for text, of in groups.items()]
    return lines


def _not_all(text: str) -> str:
    listed = text.split(_AND)
    more = len(listed) - _MOST_UNLIKE
    rest = [f"and {more} more (sparcl report RUN --format csv has all)"] if more > 0 else []
    return _AND.join([*listed[:_MOST_UNLIKE], *rest])


def markdown_table(runs: Iterable[ReportRun]) -> str:
    """A GitHub table of the last step's mIoU, then what to know of it, and where published numbers
    are from."""
    runs = list(runs)
    table = results_table(runs)
    notes = [f"- {line}" for line in _notes(runs, table)]
    shown = as_markdown(readable(table), len(KEYS))
    return "\n".join([shown, *notes]) + "\n" if notes else shown


def as_markdown(shown: pd.DataFrame, names: int) -> str:
    """Text as a GitHub table, whose first columns are names and the others numbers."""
    rule = ["---"] * names + ["---:"] * (shown.shape[1] - names)
    rows = [list(shown), rule, *shown.values.tolist()]
    return "".join("| " + " | ".join(map(as_it_is, row)) + " |\n" for row in rows)


def remarks(runs: Iterable[ReportRun]) -> list[str]:
    """What to know of the numbers of runs of one dataset, task and setup, a line each."""
    runs = list(runs)
    found = (name for run in runs for name in untested_classes(run.metrics["steps"]))
    untested = list(dict.fromkeys(found))
    said = [f"no pixel that was tested shows {first_few(untested)}: no IoU, and not in any mean"]
    return [*(said if untested else []), *other_first_steps(runs)]


def _notes(runs: list[ReportRun], table: pd.DataFrame) -> list[str]:
    """What to know of a table, a line each, as Markdown."""
    notes = [f"{as_it_is(' '.join(key))}: {test}" for key, test in other_tests(runs).items()]
    for group in by_group(runs).values():
        notes += map(as_it_is, remarks(group))
    return notes + [f"Published, {line}" for line in sources(table)]


def latex_table(runs: Iterable[ReportRun]) -> str:
    r"""A table of LaTeX, for its package booktabs: \usepackage{booktabs}. What to know of it stands
    before it, as comments."""
    runs = list(runs)
    table = results_table(runs)
    notes = [f"% {line}\n" for line in _notes(runs, table)]
    return "".join(notes) + as_latex(readable(table), len(KEYS))


def as_latex(shown: pd.DataFrame, names: int) -> str:
    """Text as a table for booktabs, whose first columns are names and the others numbers.

    The last name is that of a row; what the others say in every row alike, and the number of seeds,
    stands before the table once.
    """
    alike = [
        name for name in [*shown.columns[: names - 1], *shown.columns.intersection(["seeds"])]
        if shown[name].nunique() == 1
    ]  # fmt: skip
    said = ", ".join(f"{name} {shown[name].iloc[0]}" for name in alike)
    names -= len([name for name in alike if name != "seeds"])
    shown = shown.drop(columns=alike)
    ends = "l" * names + "r" * (shown.shape[1] - names)
    cells = [list(shown), *shown.map(_for_latex).values.tolist()]
    rows = [" & ".join(row) + r" \\" for row in cells]
    lines = [rf"\begin{{tabular}}{{{ends}}}", r"\toprule", rows[0], r"\midrule", *rows[1:],
             r"\bottomrule", r"\end{tabular}"]  # fmt: skip
    return "\n".join([f"% {said}", *lines] if said else lines) + "\n"


def _for_latex(cell: str) -> str:
    named = _LATEX.sub(lambda found: _IN_LATEX.get(found[0], rf"\{found[0]}"), cell)
    # Behind a row's end LaTeX takes * and [ for what belongs to it.
    begun = f"{{}}{named}" if named.startswith(("*", "[")) else named
    return begun.replace(" ± ", r" $\pm$ ").replace("–", "--")


def class_table(runs: Iterable[ReportRun]) -> pd.DataFrame:
    """A row for each class after each step of each run: names, seed, test, step, class, iou in
    percent (NaN for a class without a pixel in the truth)."""
    rows = [
        {**names, "step": entry["step"], "class": name, "iou": iou}
        for run in ordered(runs)
        for names in [{**_names(run.metrics), "method": run.method}]
        for entry in run.metrics["steps"]
        for name, iou in entry["class_iou"].items()
    ]
    return pd.DataFrame(rows)


def as_it_is(cell: str) -> str:
    """A cell of a Markdown table that shows what it says: `<b>`, `a|b` and `*` mean themselves."""
    return cell if set(cell) == {"-"} or cell == "---:" else _MARKDOWN.sub(r"\\\g<0>", cell)


def results_text(runs: Iterable[ReportRun]) -> str:
    """The table for a terminal: one block per dataset, task and setup; mIoU in percent."""
    runs = list(runs)
    table, groups = results_table(runs), by_group(runs)
    names = list(KEYS[:3])
    tests = {key: f", {test}" for key, test in other_tests(runs).items()}
    return "\n\n".join(
        f"{' '.join(key)}, mIoU in percent{tests.get(key, '')}\n"
        f"{rows.drop(columns=names).to_string(index=False)}"
        + "".join(f"\n({line})" for line in remarks(groups[key]))
        for key, rows in readable(table).groupby(names, sort=False)
    )


def other_tests(runs: Iterable[ReportRun]) -> dict[tuple[str, ...], str]:
    """Dataset, task and setup of what was not tested as the published numbers were -> how."""
    return {
        run.group: f"tested on {tested_on(run.metrics)}"
        for run in runs
        if protocol_of_test(run.metrics) != "crop"
    }


def steps_text(metrics: dict[str, Any]) -> str:
    """mIoU of one run after every step, for a terminal."""
    rows = [
        {"step": entry["step"], **{MEASURES[name]: format_mean(entry[name]) for name in MEASURES}}
        for entry in metrics["steps"]
    ]
    names = (*(metrics[key] for key in KEYS), f"seed {metrics['seed']}")
    policy = label_policy(metrics)
    labels = f"borders in training: {policy['border']}; future classes at test: {policy['future']}"
    labels += f"; tested on {tested_on(metrics)}"
    labels += "" if policy["zero"] == "background" else f"; value 0: {policy['zero']}"
    table = pd.DataFrame(rows).to_string(index=False)
    return f"{' '.join(names)}, mIoU in percent\n({labels})\n{table}"


def step_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per step of a run: names, seed, test, step and mIoUs; metrics: of metrics.json."""
    return [
        {**_names(metrics), "step": entry["step"], **{name: entry[name] for name in MEASURES}}
        for entry in metrics["steps"]
    ]


def _names(metrics: dict[str, Any]) -> dict[str, Any]:
    return {**{key: metrics[key] for key in (*KEYS, "seed")}, "test": protocol_of_test(metrics)}


def write_results(runs: Iterable[ReportRun], folder: str | Path) -> None:
    """results.json ({"runs": [metrics.json of each]}) and results.csv (a row per run and step).

    Raises UserError when the folder cannot be written.
    """
    folder, metrics = Path(folder), [run.metrics for run in runs]
    rows = [row for run in metrics for row in step_rows(run)]
    json_text, frame = dump_json({"runs": metrics}), pd.DataFrame(rows)
    write_text(folder / "results.json", json_text)
    write_csv(folder / "results.csv", frame)
