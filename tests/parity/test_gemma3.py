"""Gemma 3 (text) against transformers: scores, loss, gradients and generation beyond the windows, and what its layers remember."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sensorium as sn
from sensorium.fused import Plain, open_reader, why_plain
from sensorium.layers.attention import attend
from sensorium.layers.cache import Cache
from sensorium.layers.packed import INT8
from sensorium.layers.positions import RopeScaling
from sensorium.layers.stack import Stack
from sensorium.zoo.gemma3 import SIZES, gemma3_sized

from .reference import CLOSE, assert_same_answers, assert_same_gradients, assert_same_scores, saved, shaken
from .test_llama import END, GIVEN, packed, their_inputs

EDITIONS = {
    "windows": {},
    "slowed": dict(rope_parameters=dict(sliding_attention=dict(rope_type="default", rope_theta=50.0),
                                        full_attention=dict(rope_type="linear", factor=8.0, rope_theta=900.0))),
    "capped": dict(final_logit_softcapping=3.0, query_pre_attn_scalar=3),
    "not tied": dict(tie_word_embeddings=False),
}


def reference(**changes: Any) -> Any:
    config = transformers.Gemma3TextConfig(**{**dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=12, vocab_size=60,
        sliding_window=6, sliding_window_pattern=2, query_pre_attn_scalar=10, bos_token_id=1, eos_token_id=END, pad_token_id=0), **changes})
    return shaken(transformers.Gemma3ForCausalLM(config))


@pytest.mark.parametrize("edition", EDITIONS)
def test_forward_and_backward(edition: str, tmp_path: Path) -> None:
    theirs, report = reference(**EDITIONS[edition]), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not report.ignored and model.spec.decoder.read.windows == (6, None, 6)
    batch = packed(GIVEN)  # both samples share a row, and the second is longer than the windows
    assert len(batch.token_BT) == 1
    assert_same_scores(model, theirs, batch, their_inputs(GIVEN))
    for given in their_inputs(GIVEN):  # no layout: another way to the same masks
        alone = model.read(sn.Batch(token_BT=given["input_ids"], media_BT=torch.zeros_like(given["input_ids"])))
        torch.testing.assert_close(model.logits(alone), theirs(input_ids=given["input_ids"]).logits, **CLOSE)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "norm" in name:
                parameter.grad -= 1  # the folder of gradients is read as weights, and to those of norms one is added
    assert_same_gradients(model, theirs, tmp_path / "gradients")


@pytest.mark.parametrize("edition", ["windows", "slowed", "capped"])
def test_generation(edition: str, tmp_path: Path) -> None:
    theirs = reference(**EDITIONS[edition])
    model = sn.load(saved(theirs, tmp_path))
    assert_same_answers(model, theirs, packed(GIVEN, answers=False, alone=True), their_inputs(GIVEN, answers=False), END, 40)


def test_capped_scores() -> None:
    """No Gemma 3 caps its scores, as Gemma 2 and Grok-1 do: the formula alone against the reference's."""
    from transformers.models.gemma3.modeling_gemma3 import eager_attention_forward

    query, key, value = (torch.randn(2, 7, heads, 12, generator=torch.Generator().manual_seed(heads)) * 3 for heads in (4, 2, 2))
    mask = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 7, 7)
    module = torch.nn.Module().eval()
    module.num_key_value_groups, module.head_dim = 2, 12
    given = torch.zeros(2, 1, 7, 7).masked_fill(~mask[:, None], float("-inf"))
    wanted, _ = eager_attention_forward(module, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), given, scaling=0.4, softcap=2.0)
    torch.testing.assert_close(attend(query, key, value, mask, scale=0.4, cap=2.0), wanted, **CLOSE)


def test_older_configs_say_the_same(tmp_path: Path) -> None:
    """``rope_theta``, ``rope_local_base_freq``, ``rope_scaling`` and a pattern, as configs were first written."""
    folder = saved(reference(**EDITIONS["slowed"]), tmp_path)
    spec = sn.load(folder).spec
    assert (spec.decoder.read.rope_theta, spec.decoder.read.window_theta, spec.decoder.read.rope_scaling) == (900.0, 50.0, RopeScaling(8.0))
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
        config.pop(key, None)
    config |= {"rope_theta": 900.0, "rope_local_base_freq": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window_pattern": 2}
    (folder / "config.json").write_text(json.dumps(config))
    assert sn.load(folder).spec == spec


@pytest.mark.parametrize("change", [("use_bidirectional_attention", True), ("hidden_activation", "silu"), ("rms_norm_eps", 1e-5),
                                    ("attn_logit_softcapping", 50.0)])
def test_what_is_not_built_is_refused(change: tuple[str, Any], tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, change[0]: change[1]}))
    with pytest.raises(sn.ConfigError, match=change[0]):
        sn.load(folder)


@pytest.mark.parametrize(("size", "count"), [("270m", 268_098_176), ("1b", 999_885_952), ("4b", 3_880_263_168), ("12b", 11_766_034_176),
                                             ("27b", 27_009_346_304)])
def test_sizes(size: str, count: int) -> None:
    """Published counts; of the larger three 4,300,079,472, 12,187,325,040 and 27,432,406,640, less their eyes: 416,866,032 of the tower and
    1,153 times the width (less one for each: 1,152) of the way to the decoder."""
    assert sum(p.numel() for p in gemma3_sized(size).build(device="meta").parameters()) == count
    whole = {"4b": 4_300_079_472, "12b": 12_187_325_040, "27b": 27_432_406_640}.get(size)
    assert whole is None or count == whole - 416_866_032 - 1152 * SIZES[size][0] - 1152


def remembered(stack: Stack, length: int) -> int:
    """Numbers that a cache holds of ``length`` places of one text."""
    attention = stack.block.attention
    places = sum(length if window is None else min(length, window - 1) for window in stack.windows)
    return places * 2 * (attention.kv_heads or attention.heads) * attention.head


def test_what_layers_with_windows_remember(tmp_path: Path) -> None:
    """No more than a later token can see; at the published size, of 32,768 places, less than a fifth of what all layers would hold."""
    model, cache = sn.load(saved(reference(), tmp_path)), Cache()
    ids = torch.tensor([[*GIVEN[1][0], *GIVEN[1][1]]])
    with torch.inference_mode():
        for start, stop in ((0, 3), (3, 9), *((place, place + 1) for place in range(9, ids.shape[1]))):
            model.read(sn.Batch(token_BT=ids[:, start:stop], media_BT=torch.zeros_like(ids[:, start:stop])), cache)
            assert cache.bytes() == 4 * remembered(model.spec.decoder.read, stop)
    stack, places = gemma3_sized("1b").decoder.read, 32_768
    assert remembered(stack, 1) == 26 * 2 * 256  # 26,624 bytes a place in two-byte numbers
    assert remembered(stack, places) / (places * remembered(stack, 1)) == pytest.approx(0.1671, abs=1e-4)


def test_a_reader_says_what_it_forgot(tmp_path: Path) -> None:
    """Rewinding: what the windows still hold stays, and where they have forgotten, all is to be read again. The kernels know no windows."""
    model = sn.load(saved(reference(), tmp_path))
    assert {"windows", "sandwich", "scaled embeddings"} <= set(why_plain(sn.load(tmp_path, packed=INT8)).split(" has ")[1].split(", "))
    reader, ids = open_reader(model, room=64), torch.tensor([[*GIVEN[1][0], *GIVEN[1][1]]])
    assert isinstance(reader, Plain)
    reader.extend(ids[:, :5])
    assert reader.rewind(3) == 3 and reader.length == 3
    reader.extend(ids[:, 3:20])
    assert reader.rewind(20) == 20
    torch.testing.assert_close(reader.extend(ids[:, 20:]), model.logits(model.read(sn.Batch(token_BT=ids, media_BT=torch.zeros_like(ids))))[:, -1],
                               **CLOSE)
    assert reader.rewind(20) == 0 and reader.length == 0
    reader.extend(ids)
