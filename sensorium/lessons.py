"""Lessons: samples as questions and answers of one model, and the run that teaches them to an adapter.

    samples -> the model's chat template and codecs -> segments, laid out once -> a batch a step -> Run over the frozen model

An answer follows exactly what the model reads when it is asked: what is learned is what is said.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.adapt import adapt
from sensorium.data import Packer, Segment
from sensorium.desk import Desk
from sensorium.layers.adapters import Lora
from sensorium.model import ModelNet
from sensorium.samples import Mixture, Source
from sensorium.train import Group, Run
from sensorium.types import (
    MODALITIES,
    Batch,
    CheckpointError,
    ConfigError,
    Media,
    MediaError,
    Message,
    ModalityError,
    Sample,
    ShapeError,
    Text,
    assistant,
    user,
)

__all__ = ["Course", "lay_out", "lessons_of", "turns"]

_DECIDES = ("weight", "weights", "sample_weight", "loss_weight", "mask", "masks", "loss_mask", "label_mask", "tools")
"""What would change what is learned of a sample, and is not built."""


def lessons_of(sample: Sample, where: str) -> list[tuple[list[Message], str]]:
    """A sample's conversations up to each text that is a target, and that text.

    Parts before a target are one message of the user; a system message stands under "system" beside the parts.

    Raises:
        MediaError: no target text, one with nothing before it, or a file that is not there.
    """
    system = sample.extra.get("system")
    if not isinstance(system, str | None):
        raise MediaError(f"{where}: system is {str(system)[:60]}; wanted a text")
    messages = [Message("system", (Text(system),))] if system is not None else []
    found, said = [], []
    for part in sample.parts:
        if isinstance(part.value, Media) and isinstance(part.value.source, Path) and not os.path.isfile(part.value.source):
            raise MediaError(f"{where}: names {part.value.source}, which is no file; put it there, or leave the sample out")
        if not part.target and part.role != "assistant":
            said.append(part.value)
            continue
        if not isinstance(part.value, Text) or not said:
            raise MediaError(f"{where}: an answer is {part.value!r:.60}{'' if said else ' with nothing before it'}; wanted a text that answers what "
                             'is before it: {"parts": [{"text": "Who are you?"}, {"text": "Sensorium.", "target": true}]}')
        messages = [*messages, user(*said)]
        if part.target:
            found.append((messages, part.value.text))
        messages, said = [*messages, assistant(part.value.text)], []
    if not found:
        raise MediaError(f'{where}: nothing is a target, so there is nothing to learn; mark the answer: {{"text": "...", "target": true}}')
    return found


def turns(sample: Sample, where: str) -> list[Message]:
    """A sample as a conversation with its answers: an example for a question that follows.

    Raises:
        MediaError: as :func:`lessons_of`.
    """
    messages, answer = lessons_of(sample, where)[-1]
    return [*messages, assistant(answer)]


def lay_out(desk: Desk, source: Source, longest: int = 1024, watch: Callable[[int], None] = lambda done: None,
            unused: Counter[str] | None = None) -> list[Segment]:
    """Every lesson of a source as a segment.

    Args:
        longest: most places of a segment.
        watch: told how many samples are done.
        unused: counts what samples hold and nothing is learned of, by its name.

    Raises:
        MediaError, ConfigError, ModalityError, CheckpointError: a sample that is no lesson, too long, or not for this model; by its number.
    """
    out, unused = [], Counter() if unused is None else unused
    for index in range(len(source)):
        where, sample = f"sample {index + 1}", source[index]
        lessons = lessons_of(sample, where)
        unused.update(_beside(sample, where))
        for messages, answer in lessons:
            try:
                segment = desk.lesson(messages, answer)
            except (MediaError, ConfigError, ModalityError, CheckpointError, ShapeError) as error:
                raise type(error)(f"{where}: {error}") from error
            if max(segment.label) < 0:
                raise MediaError(f"{where}: its answer is empty, and this model has no token that ends one, so nothing is learned; leave it out")
            if len(segment) > longest:
                raise ConfigError(f"{where} takes {len(segment):,} places, and {longest:,} is the most; shorten it, or raise the most")
            out.append(segment)
        watch(index + 1)
    if not out:
        raise MediaError("the data holds no samples; wanted one a line")
    return out


def _beside(sample: Sample, where: str) -> list[str]:
    """Names of what a sample holds and nothing is learned of.

    Raises:
        MediaError: something without which other things would be learned than its author meant.
    """
    held = {name: value for name, value in sample.extra.items() if name != "system" and not _says_nothing(value)}
    for name, value in held.items():
        if (name.partition(".")[0] in _DECIDES and value not in (1, [1])) or name.removesuffix("s") in MODALITIES[1:]:
            raise MediaError(f"{where}: holds {name}, which would be left out; name it in the parts if it is a medium, else take it out")
    return [*held, *(["what follows the last answer"] if not sample.parts[-1].target else [])]


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (str, bytes, list, dict)) and not value)


@dataclass(frozen=True, eq=False)
class Course:
    """Lessons in an order that the seed alone decides, some of them held out.

    Args:
        segments: all of them.
        packer: lays them into rows.
        count: lessons in a batch.
        seed: of the order, of what is held out, and of the adapter's first weights.
        share: of the lessons, held out for validation; at most 64.
    """

    segments: Sequence[Segment]
    packer: Packer
    count: int = 4
    seed: int = 0
    share: float = 0.1
    _mixture: Mixture = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_mixture", Mixture((len(self.learned),), seed=self.seed))

    @cached_property
    def _order(self) -> list[int]:
        return np.random.default_rng((self.seed, 2)).permutation(len(self.segments)).tolist()

    @cached_property
    def _held(self) -> int:
        return min(round(len(self.segments) * self.share), len(self.segments) - 1, 64)

    @property
    def learned(self) -> list[int]:
        """Numbers of the lessons that are learned."""
        return self._order[self._held :]

    def batch(self, step: int) -> Batch:
        """The batch of a step: a function of the seed and the step alone."""
        places = range(step * self.count, (step + 1) * self.count)
        return self._packed([self.learned[self._mixture.place(place)[1]] for place in places])

    def validation(self) -> tuple[Batch, ...]:
        """The lessons held out."""
        held = self._order[: self._held]
        return tuple(self._packed(held[start : start + self.count]) for start in range(0, len(held), self.count))

    def _packed(self, numbers: list[int]) -> Batch:
        some = [self.segments[number] for number in numbers]
        row = max(256, *(len(segment) for segment in some))  # short rows: attention costs the square of a row
        return replace(self.packer, row=row).pack(some)

    def run(self, model: ModelNet, lora: Lora, name: str = "default", steps: int | None = None, rate: float = 1e-3, save_every: int = 20) -> Run:
        """The run that trains a new adapter of ``model``, and nothing else.

        Args:
            steps: None goes through the lessons four times, in 24 steps at least.
            rate: peak learning rate.
        """
        steps = steps or max(24, -(-4 * len(self.learned) // self.count))
        groups = (Group(paths=(f"*.adapters.{name}.*",), rate=rate, decay=0.0), Group(rate=0.0))
        spec = replace(model.spec, adapters={**model.spec.adapters, name: lora})
        return Run(name=name, model=spec, batch=self.batch, steps=steps, groups=groups, warmup=0.1, cooldown=0.5, ema=0.0, seed=self.seed, mixed=True,
                   validation=self.validation(), validate_every=max(steps // 4, 1), save_every=save_every, end=self.packer.end,
                   base=lambda: adapt(model, lora, name, self.seed))
