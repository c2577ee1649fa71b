"""The command line: ask, index, search, models, describe, train, eval, demo.

Everything a person can get wrong (a missing file, a broken picture, an unknown name) is one line and exit code 2.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  help="Sensorium: multimodal models on your own machine. Text and pictures go in and come out.")
out, err = Console(), Console(stderr=True)

ModelName = Annotated[str, typer.Option("--model", "-m", help="A packaged model (see [b]sensorium models[/b]) or a model's folder.")]
TableFolder = Annotated[Path, typer.Option("--table", help="Folder of the search table.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
DEFAULT_TABLE = Path(".sensorium/table")


def main() -> None:
    """Entry point: our own errors are one line and exit code 2; a stopped pipe or Ctrl-C is quiet."""
    try:
        app()
    except ValueError as error:
        err.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _bar() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True)


def _load(name: str) -> Any:
    import sensorium as sn
    from sensorium.catalog import find

    return sn.load(find(name))


_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


def _value(text: str) -> Any:
    """A word of the command line: a picture if it names one, else text."""
    import sensorium as sn

    ending = Path(text).suffix.lower()
    if ending in _PICTURE_ENDINGS or (len(text) < 1024 and "\n" not in text and "\0" not in text and Path(text).exists() and ending):
        return sn.Image(text)
    return sn.Text(text)


@app.command()
def ask(
    what: Annotated[list[str], typer.Argument(help='Pictures and a question or request: [i]cat.png "What is this?"[/i]')],
    want: Annotated[list[str] | None, typer.Option("--want", "-w", help="Answer as text (default) or image; may be given twice.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the picture.")] = None,
    model: ModelName = "nano",
    seed: Annotated[int, typer.Option(help="Of every random choice; the same seed gives the same answer.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps for a picture.")] = 24,
    guidance: Annotated[float, typer.Option(min=0.0, max=50.0, help="How strictly a picture follows the words.")] = 3.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest text answer.")] = 32,
) -> None:
    """Ask about pictures, or ask for a picture.

    [dim]sensorium ask picture.png "What is this?"[/dim]

    [dim]sensorium ask "Draw a red apple" --want image -o apple.png[/dim]
    """
    import sensorium as sn

    wanted = tuple(want or ["text"])
    request = sn.Request([sn.user(*[_value(word) for word in what])], want=wanted, seed=seed, steps=steps, guidance=guidance,
                         max_tokens=max_tokens)
    if output is not None and "image" not in wanted:
        raise sn.ConfigError(f"--output {output} is for pictures; add --want image")
    if output is None and "image" in wanted:
        output = Path("answer.png")
    with _bar() as bar:
        task = bar.add_task("reading", total=None)
        for event in sn.stream(_load(model), request):
            if event.kind == "text":
                bar.stop()
                sys.stdout.write(event.value)
                sys.stdout.flush()
            elif event.kind == "step":
                bar.update(task, description="drawing", completed=event.done, total=event.total)
            elif event.value.modality == "text":
                sys.stdout.write("\n")
            else:
                bar.stop()
                err.print(f"wrote {event.value.save(output)}")


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures (or one picture).")],
    table: TableFolder = DEFAULT_TABLE,
    model: ModelName = "nano",
) -> None:
    """Remember pictures, so that they can be found by meaning. Pictures already known are skipped; it can be stopped and run again."""
    from sensorium.memory import Memory, pictures_in

    paths = pictures_in(folder)
    memory = Memory(table, _load(model), model)
    with _bar() as bar:
        task = bar.add_task("indexing", total=len(paths))
        report = memory.add(paths, watch=lambda done: bar.update(task, completed=done))
    for path, reason in report.refused:
        err.print(f"[yellow]left out[/] {path}: {reason}", highlight=False)
    out.print(f"{len(report.added)} new, {len(report.known)} already known, {len(report.refused)} left out; {len(memory)} pictures in {table}")


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="Words, or a picture to find similar ones.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many results.")] = 5,
    table: TableFolder = DEFAULT_TABLE,
    model: ModelName = "nano",
    json_file: JsonFile = None,
) -> None:
    """Find indexed pictures by words or by a picture.

    [dim]sensorium search "something to eat"[/dim]    [dim]sensorium search cat.png[/dim]
    """
    from sensorium.memory import Memory

    start = time.perf_counter()
    found = Memory(table, _load(model), model).search(_query(query), count)
    seconds = time.perf_counter() - start
    for item in found:
        out.print(f"{item.score:.3f}  {item.path}", highlight=False, soft_wrap=True)
    if json_file is not None:
        _write_json(json_file, {"query": query, "seconds": seconds, "found": [{"path": str(i.path), "score": i.score} for i in found]})


def _query(query: str) -> Any:
    value = _value(query)
    return value if value.modality == "image" else value.text


@app.command()
def models() -> None:
    """List the models at hand and the families that can be built."""
    from sensorium.catalog import packaged
    from sensorium.zoo import ENTRIES

    table = Table("model", "reads", "writes", "parameters", "on disk", title="Ready to use")
    for card in packaged():
        spec = _spec(card.folder)
        count = sum(p.numel() for p in spec.build(device="meta").parameters())
        table.add_row(card.name, ", ".join(spec.reads), ", ".join(spec.writes), f"{count / 1e6:.1f}M", f"{card.bytes / 1e6:.0f} MB")
    out.print(table)
    table = Table("family", "parameters", "source", title="Families (sensorium describe NAME)")
    for entry in ENTRIES.values():
        table.add_row(entry.name, f"{entry.parameters / 1e6:,.1f}M", entry.source)
    out.print(table)


def _spec(folder: Path) -> Any:
    import sensorium as sn

    return sn.from_json((folder / "model.json").read_text(encoding="utf-8"))


@app.command()
def describe(name: Annotated[str, typer.Argument(help="A model, a family, a model's folder, or a picture made here.")]) -> None:
    """Print a model as its sentence of parts, or what made a picture."""
    import sensorium as sn
    from sensorium.catalog import find
    from sensorium.zoo import ENTRIES

    if Path(name).suffix.lower() in _PICTURE_ENDINGS:
        from sensorium.codecs.vision import read_info

        out.print_json(json.dumps(read_info(Path(name))))
        return
    entry = ENTRIES.get(name)
    folder = None
    try:
        folder = find(name)
        spec = _spec(folder) if (folder / "model.json").is_file() else sn.load(folder).spec
    except sn.ConfigError:
        if entry is None:
            raise
        spec = entry.full()
    net = spec.build(device="meta")
    out.print(f"[bold]{name}[/]  {sum(p.numel() for p in net.parameters()) / 1e6:,.1f}M parameters, "
              f"reads {', '.join(spec.reads)}; writes {', '.join(spec.writes)}", highlight=False)
    out.print(spec.describe(), highlight=False, soft_wrap=True, markup=False)
    for part, module in net.named_children():
        count = sum(p.numel() for p in module.parameters())
        if count:
            out.print(f"  {part:<11} {count / 1e6:8.2f}M", highlight=False)
    if folder is not None and (folder / "card.json").is_file():
        out.print_json((folder / "card.json").read_text(encoding="utf-8"))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe: a Python file with a function run(...) that returns a Run.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Checkpoints and log; default runs/NAME.")] = None,
    more: Annotated[int | None, typer.Option("--only", help="Stop after this many more steps; the run can be continued.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away an earlier run in the folder.")] = False,
) -> None:
    """Train by a recipe, or go on with an interrupted run. Other options set the recipe's own fields: [i]--steps 1000[/i].

    [dim]sensorium train recipes/nano.py --data corpus --steps 20000[/dim]
    """
    from sensorium.train import fit

    run = _recipe(recipe)(**_fields(_recipe(recipe), context.args))
    folder = folder or Path("runs") / run.name
    fit(run, folder, steps=more, fresh=fresh)
    out.print(f"in {folder}")


def _recipe(path: Path) -> Callable[..., Any]:
    """The ``run`` function of a recipe file."""
    import sensorium as sn

    if not path.is_file():
        raise sn.ConfigError(f"{path} is not a file; give a recipe such as recipes/nano.py")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[path.stem] = module
    module_spec.loader.exec_module(module)
    if "run" not in vars(module):
        raise sn.ConfigError(f"{path} has no function run(...); a recipe is a Python file with one that returns a Run")
    return module.run


def _fields(function: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    """Options after the recipe, as the recipe's own fields, in the type of their defaults."""
    import inspect

    import sensorium as sn

    known = inspect.signature(function).parameters
    values: dict[str, Any] = {}
    for name, word in zip(words[::2], words[1::2] + [None] * (len(words) % 2), strict=True):
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or key not in known or word is None:
            given = ", ".join(f"--{k} {v.default}" for k, v in known.items())
            raise sn.ConfigError(f"{name} {word or ''} is not a field of the recipe; it has: {given}")
        kind = type(known[key].default)
        try:
            values[key] = kind(word)
        except ValueError:
            raise sn.ConfigError(f"{name} got {word!r}, wanted {kind.__name__}") from None
    return values


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A packaged model or a folder.")] = "nano",
    data: Annotated[Path, typer.Option("--data", help="The corpus; see docs/data.md.")] = Path("corpus"),
    json_file: JsonFile = None,
    limit: Annotated[int | None, typer.Option(help="At most this many items a figure (for a quick look).")] = None,
    seed: Annotated[int, typer.Option(help="Of drawings and of the items chosen.")] = 0,
) -> None:
    """Measure a model on held-out data, with 95 % intervals and baselines."""
    from sensorium.catalog import find
    from sensorium.evals import nano as nano_eval
    from sensorium.evals.figures import show

    figures = nano_eval.evaluate(find(model), data, limit=limit, seed=seed, console=err)
    show(figures, out)
    if json_file is not None:
        _write_json(json_file, [{f.name: vars(figure)[f.name] for f in fields(figure)} for figure in figures])


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the page and pictures go.")] = Path("demo"),
    model: ModelName = "nano",
) -> None:
    """Name, find and draw a dozen pictures, and write one page that shows it."""
    from sensorium.demo import make_demo

    out.print(f"open {make_demo(folder, _load(model), model, err)}")


def _write_json(path: Path, data: Any) -> None:
    from sensorium.files import write_file

    write_file(path, json.dumps(data, indent=1, ensure_ascii=False, default=str).encode())


if __name__ == "__main__":
    main()
