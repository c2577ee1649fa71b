"""Reference models of the public libraries at toy size, saved in their own published layout."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors import safe_open

import sensorium as sn
from sensorium.checkpoint import PUBLISHED
from sensorium.generate import Sampling, continue_text

CLOSE = dict(rtol=1e-4, atol=2e-5)  # float32, two orders of summing


def shaken(model: Any, seed: int = 0) -> Any:
    """Every weight drawn at random, so that nothing agrees by being zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    """As the library itself saves it."""
    model.save_pretrained(folder)
    return folder


def published(model: Any, folder: Path, pictures: dict[str, Any]) -> Path:
    """The same with a tokenizer of one word and the settings of its pictures beside it."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return saved(model, folder)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """What a saved folder holds."""
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def gradients_as_weights(model: Any, folder: Path) -> Path:
    """Save the gradients in place of the weights: loaded again, they stand at our own names."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, source in zip(other.parameters(), model.parameters(), strict=True):
            if source.requires_grad:  # a table that is computed stays as it is: with other numbers it would be refused
                parameter.copy_(torch.zeros_like(source) if source.grad is None else source.grad)
    return saved(other, folder)


def assert_same_gradients(ours: sn.ModelNet, reference: Any, folder: Path) -> None:
    """Every parameter's gradient against the reference's."""
    wanted = dict(sn.load(gradients_as_weights(reference, folder)).named_parameters())
    largest = max(float(value.detach().abs().max()) for value in wanted.values())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        scale = max(float(wanted[name].detach().abs().max()), 1e-3 * largest)  # key biases: zero, but for rounding
        torch.testing.assert_close(parameter.grad / scale, wanted[name].detach() / scale, rtol=0, atol=1e-4,
                                   msg=lambda m, name=name: f"gradient of {name}: {m}")


def assert_same_scores(ours: sn.ModelNet, theirs: Any, batch: sn.Batch, given: Sequence[dict[str, torch.Tensor]]) -> None:
    """Scores of each packed sample against the reference's, and the loss of all; both losses then have their gradients.

    Args:
        given: what the reference is called with for each sample, with its labels.
    """
    logits, total, count = ours.logits(ours.read(batch)), 0.0, 0
    for number, inputs in enumerate(given):
        out, labels = theirs(**inputs), int((inputs["labels"] >= 0).sum())
        torch.testing.assert_close(logits[batch.layout.segment_BT == number], out.logits[0], **CLOSE)
        total, count = total + out.loss * labels, count + labels
    loss = ours.losses(batch)["next_token"]
    torch.testing.assert_close(loss, total / count, **CLOSE)
    loss.backward()
    (total / count).backward()


def assert_same_answers(ours: sn.ModelNet, theirs: Any, prompts: sn.Batch, given: Sequence[dict[str, torch.Tensor]], end: int, longest: int) -> None:
    """What both write, greedily; ``given``: what the reference is called with for each prompt."""
    answers = continue_text(ours, prompts, Sampling(max_tokens=longest, end=end))
    for inputs, ids in zip(given, answers, strict=True):
        wanted = theirs.generate(**inputs, max_new_tokens=longest, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
        assert ids == [i for i in wanted if i != end]
    assert any(len(ids) > longest // 4 for ids in answers)


def assert_same_generation(theirs: Any, folder: Path, packer: sn.Packer, samples: Sequence[list[sn.Arrays]], given: Callable[..., Any],
                           end: int) -> None:
    """What both write to each sample without its answer, which is its last part.

    Args:
        given: (parts, answer=False) -> what the reference is called with.
    """
    prompts = [parts[:-1] for parts in samples]
    batch = packer.pack([packer.segment(parts) for parts in prompts], alone=True)
    assert_same_answers(sn.load(saved(theirs, folder)), theirs, batch, [given(parts, answer=False) for parts in prompts], end, 10)


def assert_gradients_by_rule(ours: sn.ModelNet, kind: str, pipeline: Any, parts: Sequence[str]) -> int:
    """Every gradient against what the rules of layout ``kind`` make of the reference's, but for the autoencoder; how many there were.

    Args:
        pipeline: of diffusers; its ``parts`` have gradients.
    """
    grads = {f"{part}.{name}": p.grad for part in parts for name, p in getattr(pipeline, part).named_parameters()}
    tables, compared = dict(ours.named_buffers()), 0
    for name, rule in PUBLISHED[kind].rules(ours.spec, {}).items():
        if name.startswith(("encoders.pixels", "heads.pixels")) or name in tables:
            continue
        found = grads[rule.source[0] if rule.source[0] in grads else rule.source[0].replace(".text_model", "")]
        grad = found if rule.make is None else rule.make(found)
        scale = max(float(grad.abs().max()), 1e-4)
        torch.testing.assert_close(ours.get_parameter(name).grad / scale, grad / scale, rtol=0, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
        compared += 1
    return compared
