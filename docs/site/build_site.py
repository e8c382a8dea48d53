"""The site, from what the repository holds: `make site`.

    python docs/site/build_site.py [--out FOLDER]

Pages are staged where they lie in the repository, so that their links hold; references are made
from the code; Sphinx builds all with the outputs that notebooks have, and not one warning; then
every link is checked. No network is needed. With GITHUB_REPOSITORY=OWNER/NAME, which GitHub's
workflows set, links to source files go there and chapters have launch buttons.
"""

import argparse
import os
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from checking import problems
from colab import write_notebooks
from references import write_references
from staging import extra_files, stage


def build(out: Path, repository: str = "") -> list[str]:
    """Build the site in `out`/html. Returns what is wrong with it, a line each."""
    source, html = out / "source", out / "html"
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(html, ignore_errors=True)
    stage(ROOT, source, repository)
    write_references(source / "reference")
    arguments = ["-q", "-W", "--keep-going", "-j", "auto", "-d", str(out / "doctrees")]
    arguments += ["-c", str(HERE), "-b", "html", str(source), str(html)]
    if build_main(arguments):
        return ["Sphinx has warned: see above"]
    with as_file(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf") as font:
        shutil.copy(font, html / "_static")
    for file in extra_files(source):
        (html / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, html / file.relative_to(source))
    if repository:
        write_notebooks(ROOT, html / "colab", repository)
    return problems(html)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "_build", help="folder to build in")
    found = build(parser.parse_args().out.resolve(), os.environ.get("GITHUB_REPOSITORY", ""))
    print("\n".join(found) if found else "the site is built, and every link leads somewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
