"""Commands that train, measure and show: train, eval, matrix, demo."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.shared import JsonFile, ModelName, err, out, write_json
from sensorium.files import hint


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
        raise sn.ConfigError(f"{path} is not a file; give a recipe such as recipes/nano.py{hint(path)}")
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


def evaluate(
    model: Annotated[str, typer.Argument(help="A model of the catalog, or a folder like nano's.")] = "nano",
    data: Annotated[Path, typer.Option("--data", help="The corpus; recordings that an eval fetches are kept there too.")] = Path("corpus"),
    json_file: JsonFile = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Also draw the figures, as an .svg file.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many items a figure (for a quick look).")] = None,
    seed: Annotated[int, typer.Option(help="Of drawings and of the items chosen.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="Of nano's figures these alone (again for more): naming, unseen, writing, drawing, hearing, "
                                                        "watching, saying, moving; of the matrix, cells such as 'audio to image'.")] = None,
) -> None:
    """Measure a model, with 95 % intervals and baselines: nano on held-out pictures, a language model on a fixed text, a model that hears on
    real clips, a voice by what is understood of it.

    [dim]sensorium eval nano --data corpus[/dim]    [dim]sensorium eval kokoro-82m[/dim]    [dim]sensorium eval whisper-base[/dim]
    """
    from sensorium.catalog import CATALOG
    from sensorium.evals.figures import as_a_whole, show
    from sensorium.evals.published import evaluate_published
    from sensorium.evals.seeing import evaluate_pictures, picture_of
    from sensorium.files import write_file

    numbers: dict[str, float] = {}
    if model == "matrix":
        from sensorium.evals.matrix import evaluate_matrix

        figures = evaluate_matrix("nano", data, limit, seed, err, only=only)
    elif model in CATALOG and CATALOG[model].kind not in ("see", "look"):
        as_a_whole(model, only)
        figures, numbers = evaluate_published(CATALOG[model], data, limit, seed, err)
    else:
        figures = evaluate_pictures(model, data, limit, seed, err, only)
    show(figures, out)
    for name, value in numbers.items():
        out.print(f"{name}: {value:.4g}", highlight=False)
    if plot is not None:
        err.print(f"drawn in {write_file(plot, picture_of(model, figures).encode())}", highlight=False)
    if json_file is not None:
        rows = [{f.name: vars(figure)[f.name] for f in fields(figure)} for figure in figures]
        write_json(json_file, [*rows, *({"name": name, "value": value} for name, value in numbers.items())])


def matrix(
    given: Annotated[list[str] | None, typer.Argument(metavar="[INPUT]...", help="Texts, pictures, sounds or clips; else the examples.")] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the page and the files go.")] = Path("matrix"),
    model: ModelName = "nano",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    best_of: Annotated[int, typer.Option(min=1, max=64, help="Drawings made for each one kept: more are better, and take longer.")] = 4,
) -> None:
    """Turn text, images, audio and video into each other, all sixteen ways, and write one page that shows and plays it.

    [dim]sensorium matrix[/dim]    [dim]sensorium matrix frog examples/pictures/crown.png --folder mine[/dim]
    """
    from sensorium.cli.words import value
    from sensorium.conversions import Converter, voice_of
    from sensorium.demo import examples
    from sensorium.denoise import Solver
    from sensorium.matrix import example_inputs, make_matrix
    from sensorium.named import open_model

    net = open_model(model)
    converter = Converter(net, model, voice_of(net, model), Solver(seed=seed), best_of)
    inputs = [value(word) for word in given] if given else example_inputs(examples())
    out.print(f"open {make_matrix(folder, converter, inputs, err)}")


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the page and pictures go.")] = Path("demo"),
    model: ModelName = "nano",
) -> None:
    """Name, find and draw a dozen pictures, and write one page that shows it."""
    from sensorium.demo import make_demo
    from sensorium.named import open_model

    out.print(f"open {make_demo(folder, open_model(model), model, err)}")
