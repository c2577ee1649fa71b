"""Llama against transformers: scores, loss, gradients, generation, from its own saved folder; and SmolLM2 on its real weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import sensorium as sn
from sensorium import catalog
from sensorium.checkpoint import read_published
from sensorium.generate import Sampling, continue_text
from sensorium.layers.positions import RopeScaling
from sensorium.types import CheckpointError
from sensorium.zoo.llama import smollm2_135m

from .reference import CLOSE, assert_same_answers, assert_same_gradients, assert_same_scores, saved, shaken, tensors

END = 3
EDITIONS = {
    "grouped": {},
    "tied": dict(tie_word_embeddings=True),
    "plain heads": dict(num_key_value_heads=4),
    "one shared head": dict(num_key_value_heads=1),
    "biases": dict(attention_bias=True, mlp_bias=True),
    "wide heads": dict(head_dim=12),
    "linear": dict(rope_parameters=dict(rope_type="linear", rope_theta=5e3, factor=4.0)),
    "llama3": dict(rope_parameters=dict(rope_type="llama3", rope_theta=5e3, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                        original_max_position_embeddings=16)),
}
PACKER = sn.Packer(row=96, end=END)
GIVEN = [([1, 20, 21, 22, 23, 9, 8], [30, 31, 32, 33]), ([1, 12, 25], [40, 41, *range(4, 40)])]


def reference(**changes: Any) -> Any:
    config = transformers.LlamaConfig(**{**dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=60, rms_norm_eps=1e-5,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=END, pad_token_id=0), **changes})
    return shaken(transformers.LlamaForCausalLM(config))


def packed(samples: list[tuple[list[int], list[int]]], answers: bool = True, alone: bool = False) -> sn.Batch:
    parts = [[sn.Arrays("text", ask)] + [sn.Arrays("text", answer, target=True)] * answers for ask, answer in samples]
    return PACKER.pack([PACKER.segment(sample) for sample in parts], alone=alone)


def their_inputs(samples: list[tuple[list[int], list[int]]], answers: bool = True) -> list[dict[str, torch.Tensor]]:
    """The same samples as the reference reads them."""
    out = []
    for ask, answer in samples:
        ids = torch.tensor([[*ask, *answer, END] if answers else ask])
        labels = {"labels": ids.masked_fill(torch.arange(ids.shape[1]) < len(ask), -100)} if answers else {}
        out.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), **labels})
    return out


@pytest.mark.parametrize("edition", EDITIONS)
def test_forward_and_backward(edition: str, tmp_path: Path) -> None:
    theirs, report = reference(**EDITIONS[edition]), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not report.ignored
    batch = packed(GIVEN)  # both samples share a row
    assert len(batch.token_BT) == 1
    assert_same_scores(model, theirs, batch, their_inputs(GIVEN))
    assert_same_gradients(model, theirs, tmp_path / "gradients")


@pytest.mark.parametrize("edition", ["tied", "llama3"])
def test_generation(edition: str, tmp_path: Path) -> None:
    theirs = reference(**EDITIONS[edition])
    model = sn.load(saved(theirs, tmp_path))
    assert_same_answers(model, theirs, packed(GIVEN, answers=False, alone=True), their_inputs(GIVEN, answers=False), END, 40)


def test_older_configs_say_the_same(tmp_path: Path) -> None:
    """``rope_scaling`` and ``rope_theta`` beside it, as configs were written before ``rope_parameters``."""
    folder = saved(reference(**EDITIONS["llama3"]), tmp_path)
    spec = sn.load(folder).spec
    assert spec.decoder.read.rope_scaling == RopeScaling(8.0, context=16)
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (folder / "config.json").write_text(json.dumps(config))
    assert sn.load(folder).spec == spec


def test_a_head_that_repeats_the_embeddings_is_named(tmp_path: Path) -> None:
    """Some tied checkpoints store the head as well."""
    theirs, report = reference(), sn.Coverage()
    with torch.no_grad():
        theirs.lm_head.weight.copy_(theirs.model.embed_tokens.weight)
    folder = saved(theirs, tmp_path)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    assert sn.load(folder, report=report).spec.heads["text"].tied
    assert report.ignored == {"lm_head.weight": "the embeddings again"}


def test_a_stored_head_that_is_not_the_embeddings_counts(tmp_path: Path) -> None:
    """transformers 5.23.0 (``tie_weights``) does not tie two tensors that are both stored and differ, whatever the settings say."""
    folder = saved(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    ours, theirs = sn.load(folder), transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert not ours.spec.heads["text"].tied
    ids = torch.tensor([[1, 20, 21, 22]])
    with torch.inference_mode():
        wanted = theirs(ids).logits
        torch.testing.assert_close(ours.logits(ours.read(sn.Batch(token_BT=ids, media_BT=torch.zeros_like(ids)))), wanted, **CLOSE)
        assert not torch.allclose(wanted, theirs.model(ids).last_hidden_state @ theirs.model.embed_tokens.weight.T, atol=0.1)


def test_a_tied_head_that_is_stored_alone_is_the_embeddings(tmp_path: Path) -> None:
    """transformers 5.23.0 (``tie_weights``): the two are tied to the one that is there."""
    theirs = reference(tie_word_embeddings=True)
    folder = saved(theirs, tmp_path)
    stored = tensors(folder)
    save_file({"lm_head.weight" if name == "model.embed_tokens.weight" else name: value for name, value in stored.items()},
              folder / "model.safetensors", {"format": "pt"})
    again = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(again.model.embed_tokens.weight, theirs.model.embed_tokens.weight)
    assert torch.equal(sn.load(folder).state_dict()["encoders.text.token.weight"], theirs.model.embed_tokens.weight)


@pytest.mark.parametrize(("theta", "says"), [(1e4, None), (5e5, "model.layers.0.self_attn.rotary_emb.inv_freq is stored with other numbers")])
def test_stored_frequencies_are_held_against_the_settings(theta: float, says: str | None, tmp_path: Path) -> None:
    """Older files hold them in each layer: base ** (-2 i / width of a head)."""
    folder = saved(reference(), tmp_path)
    stored = tensors(folder) | {"model.layers.0.self_attn.rotary_emb.inv_freq": 1 / theta ** (torch.arange(0, 8, 2) / 8)}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    if says is None:
        assert sn.load(folder) is not None
    else:
        with pytest.raises(CheckpointError, match=says):
            sn.load(folder)


@pytest.mark.parametrize("change", [("silu", "gelu", "hidden_act"), ("llama3", "yarn", "yarn")])
def test_what_is_not_built_is_refused(change: tuple[str, str, str], tmp_path: Path) -> None:
    folder = saved(reference(**EDITIONS["llama3"]), tmp_path)
    old, new, says = change
    (folder / "config.json").write_text((folder / "config.json").read_text().replace(f'"{old}"', f'"{new}"'))
    with pytest.raises(sn.ConfigError, match=says):
        sn.load(folder)


PROMPTS = ["What is the capital of France?", "Write a haiku about rain.", "Count from one to ten.", "Why is the sky blue?",
           "def fibonacci(n):", "Once upon a time", "The three primary colours are", "Translate to French: good morning",
           "List four animals.", "How do I boil an egg?", "2 + 2 =", "Explain gravity to a child.", "Who wrote Hamlet?",
           "Give me a synonym for happy.", "Name a planet.", "My name is", "The opposite of hot is", "Tell me a joke.",
           "What year did the war end?", "Summarise: cats sleep a lot."]


@pytest.fixture(scope="module")
def real() -> tuple[sn.ModelNet, Any, Any]:
    """SmolLM2 from its GGUF here, and by transformers' own reading of the same file."""
    if not catalog.ready("smollm2-135m-instruct"):
        pytest.skip("needs: sensorium pull smollm2-135m-instruct")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    folder = catalog.find("smollm2-135m-instruct")
    path = next(Path(folder).glob("*.gguf"))
    config = load_gguf_checkpoint(str(path))["config"]
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    stored = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=theirs)["tensors"]
    assert not theirs.load_state_dict(stored, strict=False).unexpected_keys
    theirs.tie_weights()
    report = sn.Coverage()
    model = sn.load(folder, report=report)
    assert len(report.used) == 272 and not report.ignored and model.spec == smollm2_135m()
    return model, theirs, transformers.AutoTokenizer.from_pretrained(folder, gguf_file=path.name)


@pytest.mark.slow
def test_smollm2_scores_are_the_reference_s(real: tuple[sn.ModelNet, Any, Any]) -> None:
    model, theirs, tokenizer = real
    text = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :512]
    assert ids.shape[1] == 512
    with torch.inference_mode():
        ours = model.logits(model.read(sn.Batch(token_BT=ids, media_BT=torch.zeros_like(ids))))
        torch.testing.assert_close(ours, theirs(ids).logits, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_smollm2_goes_on_as_the_reference(real: tuple[sn.ModelNet, Any, Any]) -> None:
    model, theirs, tokenizer = real
    for prompt in PROMPTS:
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(text, return_tensors="pt").input_ids
        wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=2)[0, ids.shape[1] :]
        packer = replace(PACKER, row=1024)
        batch = packer.pack([packer.segment([sn.Arrays("text", ids[0].tolist())])], alone=True)
        assert continue_text(model, batch, Sampling(max_tokens=64, end=2))[0] == [i for i in wanted.tolist() if i != 2], prompt


@pytest.mark.slow
def test_smollm2_s_tokenizer_is_rebuilt(real: tuple[sn.ModelNet, Any, Any]) -> None:
    from tokenizers import Tokenizer

    files = read_published(catalog.find("smollm2-135m-instruct"))
    ours, theirs = Tokenizer.from_str(files.tokenizer), real[2]
    for text in ("Hello world", "def f(x):\n    return x * 2\n", "  spaces   and\ttabs\n\n\nnew", "2024 was 12345.678", "你好，世界！🎉", "e\u0301",
                 "<|im_start|>user\nhi<|im_end|>", "don't we'll I'm"):
        assert ours.encode(text).ids == theirs(text).input_ids and ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text
    assert files.special == {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>", "unk": "<|endoftext|>"}
    assert "add_generation_prompt" in files.template
