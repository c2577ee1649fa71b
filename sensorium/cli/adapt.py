"""The command that teaches: adapt."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.shared import bar, err, out
from sensorium.cli.talk import Seed
from sensorium.cli.words import there

_TARGETS = {"attention": "decoder.*.attention.*", "mlp": "decoder.*.mlp.*", "connector": "align.*", "all": "*"}


def adapt(
    what: Annotated[list[str], typer.Argument(metavar="[NAME] DATA", help="The model, if not the best language model at hand, and what it shall "
                                              "learn: samples as .jsonl, .json, .csv, .parquet, .tar, or a folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the adapter; an interrupted run in it goes on.")],
    rank: Annotated[int, typer.Option(min=1, help="More learns more, and is larger.")] = 16,
    alpha: Annotated[float | None, typer.Option(help="Strength of what is learned, over the rank; default twice the rank.")] = None,
    dora: Annotated[bool, typer.Option("--dora", help="Learn lengths and directions apart (DoRA): slower, a little better at low ranks.")] = False,
    rslora: Annotated[bool, typer.Option("--rslora", help="Strength over the root of the rank, for ranks of 64 and more.")] = False,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of inputs left out while learning; helps with little data.")] = 0.0,
    targets: Annotated[str, typer.Option(help="What is changed, by commas: attention, mlp, connector (of pictures), all, or paths with *.")] =
    "attention,mlp",
    steps: Annotated[int | None, typer.Option(min=1, help="Default: four times through the data, 24 at least.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 4,
    rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate; lower it for large models, or if the loss jumps.")] = 1e-3,
    packed: Annotated[str, typer.Option(help="none, or int8 or int4: the model is kept in so many bits while it learns (QLoRA): less memory, "
                                        "slower.")] = "none",
    held: Annotated[float, typer.Option("--held-out", min=0.0, max=0.5, help="Share of samples kept back, to see what is learned and what is only "
                                        "remembered.")] = 0.1,
    longest: Annotated[int, typer.Option(min=8, help="Most tokens of a sample.")] = 1024,
    seed: Seed = 0,
    more: Annotated[int | None, typer.Option("--only", help="Stop after this many more steps; the same command goes on.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over.")] = False,
) -> None:
    """Teach a model from examples. The model itself stays as it is: what it learns is an adapter (LoRA) of a few megabytes beside it.

    One line is one sample, a question and its answer; pictures stand where a model that sees shall look:

    [dim]{"parts": [{"text": "Who are you?"}, {"text": "I am Sensorium.", "target": true}]}[/dim]

    [dim]{"parts": [{"image": "cat.png"}, {"text": "What is this?"}, {"text": "A cat.", "target": true}]}[/dim]

    [dim]{"messages": [{"role": "user", "content": "<image>What is this?"}, {"role": "assistant", "content": "A cat."}], "images": ["cat.png"]}[/dim]

    What [b]datasets[/b], webdataset and img2dataset write is read too, and the layouts of ShareGPT, LLaVA, Alpaca and TRL.

    Then ask it; [b]peft[/b] loads the folder too.

    [dim]sensorium adapt smollm2-135m-instruct examples/velmora.jsonl -o velmora[/dim]

    [dim]sensorium ask --adapter velmora "What do people in Velmora pay with?"[/dim]
    """
    _teach(_Settings(*_named(what), rank, alpha or 2.0 * rank, dora, rslora, dropout, targets, steps, batch, rate, packed, held, longest, seed),
           output, more, fresh)


def _named(what: list[str]) -> tuple[str, str]:
    """Model and data."""
    import sensorium as sn
    from sensorium.named import best

    if len(what) > 2:
        raise sn.ConfigError(f"got {', '.join(what)}; wanted a model's name and one file of samples, or the file alone")
    there("the data", Path(what[-1]), "a file of samples")
    return (what[0], what[1]) if len(what) == 2 else (best("think"), what[0])


@dataclass(frozen=True)
class _Settings:
    """What decides how a run goes; a run that goes on has the same."""

    model: str
    data: str
    rank: int
    alpha: float
    dora: bool
    rslora: bool
    dropout: float
    targets: str
    steps: int | None
    batch: int
    rate: float
    packed: str
    held: float
    longest: int
    seed: int


def _teach(settings: _Settings, output: Path, more: int | None, fresh: bool) -> None:
    """Train the adapter, or go on, and write it."""
    import sensorium as sn
    from sensorium.adapt import free_name, is_adapter, save_adapter
    from sensorium.catalog import CATALOG, find
    from sensorium.lessons import Course
    from sensorium.train import fit

    work = output / "training"
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    _keep(asdict(settings), work / "settings.json")
    if is_adapter(output) and not fresh and not any(work.glob("step-*")):
        out.print(f"{output} is finished; use it with --adapter {output}, or start over with --fresh", highlight=False)
        return
    lora = sn.Lora(rank=settings.rank, alpha=settings.alpha, paths=tuple(_TARGETS.get(word, word) for word in settings.targets.split(",")),
                   dropout=settings.dropout, dora=settings.dora, rslora=settings.rslora)
    desk, segments = _lessons(settings, lora)
    course, adapter = Course(segments, desk.packer, settings.batch, settings.seed, settings.held), free_name(desk.model)
    run = course.run(desk.model, lora, adapter, steps=settings.steps, rate=settings.rate)
    err.print(f"{len(course.learned)} lessons to learn, {len(segments) - len(course.learned)} held out; {run.steps} steps", highlight=False)
    with bar() as progress:
        task = progress.add_task("learning", total=run.steps)
        model = fit(run, work, steps=more, console=progress.console, watch=lambda step, losses: progress.update(
            task, completed=step, description=f"learning, loss {losses['next_token']:.3f}"))
    if not (work / "final").is_dir():
        out.print("stopped before the end; the same command goes on", highlight=False)
        return
    name = settings.model
    save_adapter(model, output, adapter, name if name in CATALOG else str(find(name).resolve()))
    for folder in (work / "final", *work.glob("step-*")):
        shutil.rmtree(folder)
    size = (output / "adapter_model.safetensors").stat().st_size
    out.print(f"{output}: {sum(p.numel() for p in model.parameters() if p.requires_grad):,} numbers, {size / 1e6:.1f} MB{_learned(work)}\n"
              f'use it: sensorium ask --adapter {output} "..."', highlight=False)


def _keep(settings: dict[str, Any], path: Path) -> None:
    """Write the settings of a run, or see that they are still the same."""
    import sensorium as sn
    from sensorium.files import write_file

    if not path.is_file():
        write_file(path, json.dumps(settings, indent=1).encode())
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [f"{key} {before.get(key)}, now {value}" for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise sn.ConfigError(f"{path.parent.parent} was begun with {'; '.join(changed)}; go on with the same options, choose another --output, or "
                             "start over with --fresh")


def _lessons(settings: _Settings, lora: Any) -> tuple[Any, list[Any]]:
    """The model at its desk, and the data laid out for it."""
    import sensorium as sn
    from sensorium.adapt import check_savable
    from sensorium.catalog import find
    from sensorium.desk import Desk
    from sensorium.layers.packed import PACKINGS
    from sensorium.lessons import lay_out

    packed = settings.packed
    if packed != "none" and packed not in PACKINGS:
        raise sn.ConfigError(f"--packed got {packed!r}, wanted none, {', '.join(PACKINGS)}")
    source = sn.open_source(settings.data)
    desk = Desk(sn.load(find(settings.model), packed=PACKINGS.get(packed)))
    check_savable(desk.model, lora)
    for note in source.notes:
        err.print(note, highlight=False, markup=False)
    unused: Counter[str] = Counter()
    with bar() as progress:
        task = progress.add_task("reading", total=len(source))
        segments = lay_out(desk, source, settings.longest, lambda done: progress.update(task, completed=done), unused)
    if unused:
        err.print(f"not learned: {', '.join(f'{name} ({count:,})' for name, count in unused.items())}", highlight=False, markup=False)
    return desk, segments


def _learned(work: Path) -> str:
    """Loss on what was held out, first and last, as far as it was measured."""
    rows = json.loads((work / "history.json").read_text(encoding="utf-8")) if (work / "history.json").is_file() else []
    seen = [row["validation"]["next_token"] for row in rows if "validation" in row]
    return f"; loss on what was held out {seen[0]:.3f} at first, {seen[-1]:.3f} at last" if seen else ""
