"""Joints: whether the parts of a sentence fit each other, and whether its objectives find what they need. Problems come as sentences.

A model's spec is looked at as data; nothing is built.
"""

from __future__ import annotations

from typing import Any

from sensorium.gan import Adversarial, Grow
from sensorium.heads_flow import FrameFlow
from sensorium.objectives import Ahead, Classify, Contrastive, NextToken
from sensorium.objectives_denoise import Denoise, FlowMatching
from sensorium.objectives_spell import Spell
from sensorium.objectives_voice import Speaking
from sensorium.spec import Spec
from sensorium.types import ConfigError

__all__ = ["name_problems", "width_problems"]


def width_problems(spec: Any) -> list[str]:
    """Joints whose widths do not fit, each named by path."""
    problems = []
    decoder = spec.decoder.resolve() if spec.decoder else None
    for name, align in spec.align.items():
        align = align.resolve()
        if name not in spec.encoders:
            problems.append(f"align.{name} has no encoder; add encoders[{name!r}]")
            continue
        width = _encoder_width(spec.encoders[name].resolve())
        if align.inside != width:
            problems.append(f"encoders.{name} gives width {width} but align.{name} wants {align.inside}; make them equal")
        spliced = "splice" in spec.fuse and name in spec.fuse["splice"].modalities
        if spliced and decoder is not None and align.outside != decoder.width:
            problems.append(f"align.{name} gives width {align.outside} but the decoder wants {decoder.width}; set outside={decoder.width}")
    if "prompt" in spec.fuse:
        problems += _prompt_problems(spec, spec.fuse["prompt"], decoder)
    elif decoder is not None and "text" in spec.encoders and _encoder_width(spec.encoders["text"].resolve()) != decoder.width:
        problems.append(f"encoders.text gives width {_encoder_width(spec.encoders['text'].resolve())} but the decoder wants {decoder.width}")
    for name, head in spec.heads.items():
        wanted = vars(head).get("width")
        given = None if decoder is None else decoder.writer.width if name != "text" else decoder.width
        if wanted is not None and given is not None and wanted != given:
            problems.append(f"heads.{name} wants width {wanted} but the decoder gives {given}; make them equal")
    return problems


def _prompt_problems(spec: Any, prompt: Any, decoder: Any) -> list[str]:
    """Whether the towers that read a prompt are there, and give what the decoder looks at."""
    lost = [name for name in prompt.empty if name not in spec.encoders]
    if lost or decoder is None:
        return [f"fuse.prompt has a text for encoders.{name}, which is not there; add it" for name in lost] + (
            [] if decoder else ["fuse.prompt has nobody to look at it; add a decoder"])
    source = spec.fuse["cross"].source if "cross" in spec.fuse else decoder.source
    widths = {name: prompt.width if name in prompt.beside else _encoder_width(spec.encoders[name].resolve()) for name in prompt.empty}
    widths |= {name: spec.align[name].resolve().outside for name in widths if name in spec.align}
    return [f"encoders.{name} gives width {width} but the decoder looks at {source}; make them equal"
            for name, width in widths.items() if width != source]


def _encoder_width(encoder: Spec) -> int:
    return encoder.width


def _class_problems(spec: Any, modality: str) -> list[str]:
    """What a model that tells classes of a modality apart lacks."""
    if "class" not in spec.heads or modality not in spec.encoders:
        return [f"objective Classify({modality!r}) needs heads['class'] = Classes(...) and encoders[{modality!r}]"]
    given = spec.align[modality].resolve().outside if modality in spec.align else _encoder_width(spec.encoders[modality].resolve())
    wanted = spec.heads["class"].width
    return [] if given == wanted else [f"heads.class wants width {wanted} but {modality} comes with {given}; make them equal"]


def name_problems(spec: Any) -> list[str]:
    """Objectives without what they need."""
    problems = []
    for objective in spec.objectives:
        if isinstance(objective, NextToken) and "text" not in spec.heads:
            problems.append("objective NextToken needs heads['text'] = Tokens(...)")
        if isinstance(objective, Ahead) and ("ahead" not in spec.heads or "text" not in spec.heads):
            problems.append("objective Ahead needs heads['text'] = Tokens(...) and heads['ahead'] = Lookahead(...)")
        if isinstance(objective, Classify):
            problems += _class_problems(spec, objective.modality)
        if isinstance(objective, Spell) and not {"text", objective.modality} <= set(spec.encoders):
            problems.append(f"objective Spell({objective.modality!r}) needs encoders['text'] = Vocabulary(...) and encoders[{objective.modality!r}]")
        if isinstance(objective, FlowMatching | Denoise) and objective.modality not in spec.heads:
            problems.append(f"objective {type(objective).__name__} needs heads[{objective.modality!r}] = Flow(...)")
        if isinstance(objective, Adversarial) and not {"image", "critic"} <= set(spec.heads):
            problems.append("objective Adversarial needs heads['image'] = Pixels(...) and heads['critic'] = Critic(...)")
        if isinstance(objective, Speaking) and "audio" not in spec.heads:
            problems.append("objective Speaking needs heads['audio'] = Voice(...)")
        if isinstance(objective, Contrastive) and "embed" not in spec.heads:
            problems.append("objective Contrastive needs heads['embed'] = Unit(...)")
    names = spec.loss_names
    problems += [f"two objectives are both {name!r}; drop one, or one would hide the other" for name in sorted(set(names)) if names.count(name) > 1]
    lost = [(name, other) for name, other in spec.through.items() if other not in spec.encoders]
    problems += [f"through sends {name} to encoders.{other}, which is not there; add it" for name, other in lost]
    lost = [name for name, head in spec.heads.items() if isinstance(head, FrameFlow) and (head.of not in spec.heads or "motion" not in spec.fuse)]
    problems += [f"heads.{name} goes through another head with motion between its layers; add heads.{spec.heads[name].of} and fuse['motion']"
                 for name in lost]
    unknown = sorted(set(spec.fuse) - {"splice", "cross", "condition", "prompt", "motion"})
    if unknown:
        problems.append(f"fuse has {unknown}, wanted any of 'splice', 'cross', 'condition', 'prompt', 'motion'")
    if not spec.encoders and not isinstance(spec.decoder, Grow):
        raise ConfigError("Model: no encoders; a model needs something to read, e.g. encoders={'text': Vocabulary(...)}")
    return problems
