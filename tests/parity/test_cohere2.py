"""Cohere2 against transformers: scores, loss, gradients and generation beyond the windows, from its own saved folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import sensorium as sn
from sensorium.zoo.cohere2 import cohere2_7b

from .reference import assert_same_answers, assert_same_gradients, assert_same_scores, saved, shaken
from .test_gemma3 import remembered
from .test_llama import END, GIVEN, packed, their_inputs

EDITIONS = {
    "windows": {},
    "biases": dict(attention_bias=True, num_key_value_heads=1),
    "not tied": dict(tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=70.0)),
}


def reference(**changes: Any) -> Any:
    config = transformers.Cohere2Config(**{**dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=60, logit_scale=0.5,
        sliding_window=6, sliding_window_pattern=2, bos_token_id=1, eos_token_id=END, pad_token_id=0), **changes})
    return shaken(transformers.Cohere2ForCausalLM(config))


@pytest.mark.parametrize("edition", EDITIONS)
def test_forward_and_backward(edition: str, tmp_path: Path) -> None:
    theirs, report = reference(**EDITIONS[edition]), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not report.ignored and model.spec.decoder.read.windows == (6, None, 6)
    batch = packed(GIVEN)  # both samples share a row, and the second is longer than the windows
    assert len(batch.token_BT) == 1
    assert_same_scores(model, theirs, batch, their_inputs(GIVEN))
    assert_same_gradients(model, theirs, tmp_path / "gradients")


@pytest.mark.parametrize("edition", EDITIONS)
def test_generation(edition: str, tmp_path: Path) -> None:
    theirs = reference(**EDITIONS[edition])
    model = sn.load(saved(theirs, tmp_path))
    assert_same_answers(model, theirs, packed(GIVEN, answers=False, alone=True), their_inputs(GIVEN, answers=False), END, 40)


def test_older_configs_say_the_same(tmp_path: Path) -> None:
    """A pattern and ``rope_theta``, as configs were first written."""
    folder = saved(reference(**EDITIONS["not tied"]), tmp_path)
    spec = sn.load(folder).spec
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types"):
        config.pop(key)
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 70.0, "sliding_window_pattern": 2}))
    assert sn.load(folder).spec == spec


@pytest.mark.parametrize("change", [("hidden_act", "gelu"), ("use_qk_norm", True), ("rope_scaling", {"rope_type": "linear", "factor": 2.0})])
def test_what_is_not_built_is_refused(change: tuple[str, Any], tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps({**config, change[0]: change[1]}))
    with pytest.raises(sn.ConfigError, match="scaling" if change[0] == "rope_scaling" else change[0]):
        sn.load(folder)


def test_what_the_published_size_remembers() -> None:
    """131,072 bytes a place in two-byte numbers; of 131,072 places little more than a quarter, as three of four layers keep 4,095."""
    stack = cohere2_7b().decoder.read
    assert 2 * remembered(stack, 1) == 131_072
    assert remembered(stack, 131_072) / (131_072 * remembered(stack, 1)) == pytest.approx(0.2734, abs=1e-4)
