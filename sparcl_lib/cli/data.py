"""`sparcl data`: get data sets, check them, index them. Parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from sparcl_lib.cli.options import Dataset, print_checks
from sparcl_lib.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: from nothing, or from files that you have, to a checked tree.",
)

Root = Annotated[Path, typer.Option(help="Folder of all data sets; use it as --data-root.")]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--from",
        metavar="FILE_OR_FOLDER",
        help="Archive or folder that you have; it stays as it is. May be repeated.",
    ),
]
KeepArchives = Annotated[bool, typer.Option("--keep-archives", help="Keep what was downloaded.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done: files, sizes, space, terms.")
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Take what --from holds, download nothing: fewer images, or masks without photos.",
    ),
]
DataRoot = Annotated[
    str | None,
    typer.Option(
        "--root", "--data-root", help="Its folder; MiniVOC and a YAML file find their own."
    ),
]


def _getter(name: str, said: str, *layouts: str) -> None:
    """The command that gets the first of these, then those for which the user has something."""

    def get(
        root: Root = Path("data"),
        files: Files = None,
        keep_archives: KeepArchives = False,
        dry_run: DryRun = False,
        partial: Partial = False,
    ) -> None:
        from sparcl_lib.data.acquiring import layouts as known
        from sparcl_lib.data.acquiring.prepare import assign_files, plan, prepare

        if partial and not files:
            raise UserError("--partial takes what you have: add --from FILE_OR_FOLDER")
        acquisitions = [getattr(known, layout) for layout in layouts]
        folder, shares = root.expanduser(), assign_files(acquisitions, files or [])
        for acquisition in acquisitions:
            share = shares[acquisition.name]
            if not share and (partial or acquisition is not acquisitions[0]):
                continue
            if dry_run:
                print("\n".join(plan(acquisition, folder, share, partial)))
            else:
                print(f"{acquisition.title}. Terms of use: {acquisition.terms}")
                print_checks(prepare(acquisition, folder, share, keep_archives, partial))

    app.command(name, help=said)(get)


_getter(
    "voc2012",
    "Pascal VOC2012 (2 GB); with SegmentationClassAug.zip among --from, augmented as well.",
    "VOC2012",
    "SBD",
)
_getter(
    "sbd",
    "SBD (1.4 GB): the augmented masks and train_aug.txt (10,582 ids) for VOC2012 in --root.",
    "SBD",
)
_getter("ade20k", "ADE20K (1 GB): ADEChallengeData2016, 150 classes.", "ADE20K")


@app.command()
def minivoc(
    root: Annotated[
        Path | None, typer.Option(help="Folder to make; MiniVOC finds its own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the generator.")] = 0,
    train: Annotated[
        int | None, typer.Option(help="Training images: 2,500, or 5,000 with twenty classes.")
    ] = None,
    val: Annotated[
        int | None, typer.Option(help="Test images: 400, or 800 with twenty classes.")
    ] = None,
    size: Annotated[int, typer.Option(help="Width and height in pixels.")] = 64,
    twenty: Annotated[
        bool, typer.Option("--twenty", help="minivoc20, with twenty classes.")
    ] = False,
) -> None:
    """MiniVOC, generated: the same to the bit on every machine."""
    from sparcl_lib.data.minivoc import MINIVOC, MINIVOC20, checksum, default_root, generate

    edition = MINIVOC20 if twenty else MINIVOC
    root = root or default_root(edition)
    made = generate(root, seed, train, val, size, edition=edition)
    images = f"{made['train']} train and {made['val']} val images"
    print(f"{edition.name} in {root}: {images} of {size} x {size} pixels")
    print(f"checksum {checksum(root)}")


@app.command()
def check(
    dataset: Dataset,
    root: DataRoot = None,
    partial: Partial = False,
    task: Annotated[
        str | None,
        typer.Option(help="A task, or its file: how many images show none of its classes?"),
    ] = None,
) -> None:
    """Decode every mask and photograph: OK or FAIL lines, every bad file by its name."""
    from sparcl_lib.data import open_source
    from sparcl_lib.data.checking import check as check_source

    source = open_source(dataset, root)
    learned = source.task(task) if task else None
    print_checks(check_source(source, partial, task=learned))


@app.command()
def convert(
    dataset: Annotated[str, typer.Option(help="YAML file with a palette: docs/own_data.md.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    root: DataRoot = None,
) -> None:
    """Masks in colours to masks of class ids, once; use dataset.yaml in --out from then on."""
    from sparcl_lib.data.acquiring.convert import convert as convert_masks

    print(f"use it with --dataset {convert_masks(Path(dataset), out, root)}")


@app.command()
def index(dataset: Dataset, root: DataRoot = None) -> None:
    """Scan which classes are in which mask, once for all tasks and setups."""
    from sparcl_lib.data import open_source, scan

    source = open_source(dataset, root)
    for split in source.splits:
        presence = scan(source, split)
        counts = presence.table[:, 1 : len(source.classes)].sum(axis=0)
        shown = ", ".join(f"{name} {n}" for name, n in zip(source.classes[1:], counts, strict=True))
        print(f"{split}: {len(presence.ids)} images; {shown}")
