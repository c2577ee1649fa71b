"""The demo's second half: a spoken question answered aloud, a spoken wish drawn, a picture named aloud; with whatever models are at hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import sensorium as sn
from sensorium.catalog import ready
from sensorium.named import open_voice
from sensorium.page import Page, audio_data, image_data
from sensorium.route import routes_of, stream_answer
from sensorium.speak import join

__all__ = ["talk"]

WANTED = ("smollm2-135m-instruct", "whisper-base", "kokoro-82m")
SPOKEN = (("What is the capital of France?", None, ("text", "audio")), ("Name three things that people drink.", "bm_george", ("text", "audio")),
          ("Draw a red heart", "af_bella", ("image",)), ("画一个苹果", None, ("image",)))


def talk(page: Page, folder: Path, picture: Path, console: Console) -> None:
    """Add the section; what cannot be shown for want of a model is said on the page and on the console.

    Args:
        folder: where the sounds go.
        picture: one to be named aloud.
    """
    missing = [name for name in WANTED if not ready(name)]
    text = ("Each question was spoken by the computer into a sound file. A model heard it, one answered or drew, one spoke the answer. "
            "Small print: the models on the way, and the time from the question to the whole answer.")
    if missing:
        lack = f"Not at hand, so parts of this are left out or spoken by a simpler voice: {', '.join(missing)}. "
        lack += f"Get them: sensorium pull {' '.join(missing)}"
        console.print(f"  [yellow]{lack}[/]", highlight=False)
        text += f" {lack}"
    page.section("Hearing, answering, speaking", text)
    for number, (question, voice, wants) in enumerate(SPOKEN, start=1):
        if ready("whisper-base") and ("image" in wants or ready("smollm2-135m-instruct")):
            speaker = open_voice()
            asked = join(list(speaker.speak(question, voice=voice if voice in speaker.voices else None)))
            asked.save(folder / f"question-{number}.wav")
            _exchange(page, folder / f"answer-{number}", [asked], question, wants, console)
    _exchange(page, folder / "named", [sn.Image(picture), "What is this?"], f"{picture.name}: What is this?", ("text", "audio"), console)


def _exchange(page: Page, place: Path, given: Sequence[sn.Media | str], title: str, wants: tuple[str, ...], console: Console) -> None:
    """Ask, save what comes, and show both sides."""
    request = sn.Request([sn.user(*given)], want=wants, max_tokens=64, repetition=1.1)
    heard: list[str] = []
    start, first, parts = time.perf_counter(), None, []
    for delta in stream_answer(request, note=heard.append):
        if delta.kind == "audio" and first is None:
            first = time.perf_counter() - start
        if delta.kind == "part":
            parts.append(delta.value)
    spent = time.perf_counter() - start
    said = next((part.text for part in parts if part.modality == "text"), "")
    shortly = said.replace("\n", " ")[:60] or "(a picture)"
    console.print(f"  {title:<38} {shortly}  [dim]{spent:.2f} s[/]", highlight=False, soft_wrap=True)
    data = ""
    for part in parts:
        if part.modality != "text":
            part.save(place.with_suffix(".wav" if part.modality == "audio" else ".png"))
            data = audio_data(part) if part.modality == "audio" else image_data(part)
    models = ", ".join(step.skill.model for step in routes_of(request)[-1].steps)
    small = f"{models}; {spent:.2f} s" + (f", first sound after {first:.2f} s" if first is not None else "")
    shown = given[0] if isinstance(given[0], sn.Media) else None
    source = audio_data(shown) if isinstance(shown, sn.Audio) else image_data(shown) if shown is not None else ""
    page.exchange([("asked", title, source, "; ".join(heard)), ("answered", said, data, small)])
