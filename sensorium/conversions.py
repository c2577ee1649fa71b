"""Conversions: any of text, image, audio and video to any of them, many at a time, natively where the model can, else through a voice.

            text      image     audio     video         to
    from    any value stands for a thing: it is named, drawn, spoken, or set moving
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

import sensorium as sn
from sensorium.denoise import Solver
from sensorium.engine import QUESTIONS
from sensorium.named import open_voice
from sensorium.speak import Speaker, join
from sensorium.types import MODALITIES, Audio, Media, MediaError, ModalityError, Text
from sensorium.voice import own_voice

__all__ = ["Converter", "voice_of"]


@dataclass
class Converter:
    """An any-to-any model, and a voice for what it cannot say itself.

    Args:
        model, name: e.g. nano, and what to call it.
        speaker: its voice; see :func:`voice_of`. None: nothing is said.
        solver: of what is drawn.
        best_of: drawings made for each one kept.
    """

    model: sn.ModelNet
    name: str
    speaker: Speaker | None = None
    solver: Solver = Solver()
    best_of: int = 4

    def way(self, source: str, target: str) -> str:
        """Through which models a conversion goes.

        Raises:
            ModalityError: there is none.
        """
        spec = self.model.spec
        if source not in spec.reads:
            raise ModalityError(f"{self.name} does not read {source}; it reads {', '.join(spec.reads)}")
        if target in spec.writes:
            return self.name
        if target != "audio" or self.speaker is None:
            more = "; get a voice: sensorium pull kokoro-82m" if target == "audio" else f": {self.name} writes {', '.join(spec.writes)}"
            raise ModalityError(f"nothing at hand leads from {source} to {target}{more}")
        return self.speaker.name if source == "text" else f"{self.name}, {self.speaker.name}"

    def convert(self, values: Sequence[Text | Media], target: str, language: str = "en") -> list[Text | Media]:
        """Values of one modality to another.

        Args:
            values: all of one modality.
            target: of ``MODALITIES``.
            language: of names that are written or spoken, "en" or "zh".

        Raises:
            ModalityError: as :meth:`way`.
        """
        if target not in MODALITIES:
            raise ModalityError(f"{target!r} is no modality; wanted one of {', '.join(MODALITIES)}")
        if not values:
            return []
        self.way(values[0].modality, target)
        if target == "text":
            return [Text(name.strip()) for name in sn.write_texts(self.model, [[value, QUESTIONS[language]] for value in values])]
        if target == "audio":
            return [self._said(name.text) for name in self._names(values, language)]
        draw = sn.draw_images if target == "image" else sn.draw_videos
        return draw(self.model, [[value] for value in values], self.solver, best_of=self.best_of)

    def _said(self, text: str) -> Audio:
        try:
            sound = join(self.speaker.speak(text))
        except MediaError:  # a model may answer with nothing that could be said: half a second of silence
            sound = Audio(torch.zeros(self.speaker.rate_hz // 2), rate_hz=self.speaker.rate_hz)
        return replace(sound, info={"model": self.speaker.name, **sound.info})

    def _names(self, values: Sequence[Text | Media], language: str) -> list[Text]:
        return list(values) if values[0].modality == "text" else self.convert(values, "text", language)


def voice_of(model: sn.ModelNet, name: str) -> Speaker:
    """A model's own voice, or else the best at hand."""
    return own_voice(model, name) if "audio" in model.spec.writes else open_voice()
