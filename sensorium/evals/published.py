"""Evals of the published models, by what they do: thinking in few bits, hearing real clips, speaking so that it is understood."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium.catalog import Entry, find
from sensorium.evals import clips, language, speech
from sensorium.evals.figures import Figure
from sensorium.named import best, open_model, open_voice
from sensorium.types import ConfigError

__all__ = ["evaluate_published"]

Measured = tuple[list[Figure], dict[str, float]]


def evaluate_published(entry: Entry, data: Path, limit: int | None, seed: int, console: Console) -> Measured:
    """Measure a model of the catalog.

    Args:
        data: where fetched recordings are kept.
        limit: at most so many sentences or clips of a language, or thousands of tokens.

    Returns:
        Figures with intervals, and plain numbers by name.

    Raises:
        ConfigError: models of this kind have no eval.
    """
    evals = {"think": _think, "hear": _hear, "speak": _speak}
    if entry.kind not in evals:
        raise ConfigError(f"there is no eval for {entry.name}, a model of kind {entry.kind}; kinds that have one: see, look, {', '.join(evals)}")
    return evals[entry.kind](entry, data, limit, seed, console)


def _think(entry: Entry, data: Path, limit: int | None, seed: int, console: Console) -> Measured:
    console.print("[dim]reading a chapter token by token, packed and in float32: a few minutes[/]")
    model = open_model(entry.name)
    codecs = sn.engine.codecs_of(model)
    figures = language.evaluate_language(model, sn.load(find(entry.name)), codecs, None if limit is None else 1000 * limit)
    return figures, {"tokens a second": language.tokens_a_second(model, codecs.text.encode("Once upon a time"))}


def _hear(entry: Entry, data: Path, limit: int | None, seed: int, console: Console) -> Measured:
    recordings = clips.fetch_clips(data / "clips")[:limit]
    listeners = {entry.name: speech.own_ears(open_model(entry.name))}
    try:
        listeners["faster-whisper int8"] = speech.peer_ears(find(entry.name))
    except ConfigError as error:
        console.print(f"[dim]no peer beside it: {error}[/]", highlight=False)
    return speech.evaluate_hearing(listeners, recordings, seed), {}


def _speak(entry: Entry, data: Path, limit: int | None, seed: int, console: Console) -> Measured:
    name = best("hear")

    def watch(one: speech.Spoken) -> None:
        mark = "[green]ok[/]" if not one.wrong else f"[yellow]{one.wrong} of {one.of} wrong[/]"
        console.print(f"  {one.voice:<12} {mark} {one.heard}", highlight=False)

    figures, done = speech.evaluate_speech(open_voice(entry.name), speech.own_ears(open_model(name)), seed=seed, watch=watch, limit=limit)
    return figures, speech.summary(done)
