"""Settings of published folders: every key is built, harmless, or refused by name."""

from __future__ import annotations

import pytest
import transformers

import sensorium as sn
from sensorium.checkpoint import PUBLISHED
from sensorium.settings import GENERATION, Keys, check_settings, rows

KEYS = Keys(built=("width",), only={"act": "silu", "scale": 1 / 255, "bias": (False, None)}, harmless={"note": "a remark"},
            parts={"rope": Keys(built=("theta",)), "labels": Keys(parts={"*": Keys()})})


@pytest.mark.parametrize("settings", [
    {}, {"width": 3, "act": "silu", "scale": 0.00392156862745098, "bias": None, "note": [1], "rope": {"theta": 2.0}, "labels": {"0": "cat"}},
    {"rope": None}, {"else": None, "more": False, "other": {}, "some": [], "text": "", "none": 0.0}, {"rope": {"else": None}}])
def test_what_is_declared_or_says_nothing_passes(settings: dict) -> None:
    check_settings({"config.json": settings}, {"config.json": KEYS})


@pytest.mark.parametrize(("settings", "says"), [
    ({"act": "gelu"}, "sets act to 'gelu'; only 'silu' is built"), ({"act": None}, "act to None"), ({"scale": 1 / 256}, "scale to 0.0039"),
    ({"bias": True}, "bias to True; only False or None"), ({"bias": 0}, "bias to 0"), ({"other": 3}, "sets other to 3, which is not built"),
    ({"rope": {"theta": 1, "yarn": 4}}, "sets rope.yarn to 4"),
    ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "sets a to 1, which is not built;.*; and 1 more")])
def test_anything_else_is_refused_by_file_and_name(settings: dict, says: str) -> None:
    with pytest.raises(sn.ConfigError, match=f"config.json .*{says}"):
        check_settings({"config.json": settings}, {"config.json": KEYS})
    check_settings({"other.json": settings}, {"config.json": KEYS})  # a file that nobody declared


def test_of_two_declarations_the_later_counts() -> None:
    both = KEYS | Keys(built=("act",), harmless={"width": "unused"}, parts={"note": Keys()})
    assert both == Keys(("act",), {"scale": 1 / 255, "bias": (False, None)}, {"width": "unused"}, {**KEYS.parts, "note": Keys()})
    assert [what for *_, what in rows(both)][:2] == ["built", f"only {1 / 255!r}; else refused"]


CLASSES = {
    "llama": "LlamaConfig", "qwen2": "Qwen2Config", "gemma3_text": "Gemma3TextConfig", "cohere2": "Cohere2Config", "deepseek_v2": "DeepseekV2Config",
    "deepseek_v3": "DeepseekV3Config", "whisper": "WhisperConfig", "bert": "BertConfig", "clip": "CLIPConfig", "siglip": "SiglipConfig", "vit": "ViTConfig",
    "llava": "LlavaConfig", "llava_next": "LlavaNextConfig", "idefics3": "Idefics3Config", "smolvlm": "SmolVLMConfig", "aya_vision": "AyaVisionConfig",
    "idefics": "IdeficsConfig", "janus": "JanusConfig", "qwen2_5_vl": "Qwen2_5_VLConfig"}
"""Layout -> the class of transformers that names its keys. DeepSeek-VL2 is in no version of it."""


def every(settings: dict, keys: Keys, path: str = "") -> list[str]:
    """Keys that are declared nowhere."""
    out = []
    for key, value in settings.items():
        if key in keys.parts and isinstance(value, dict):
            out += every(value, keys.parts[key], f"{path}{key}.")
        elif not {key, "*"} & {*keys.built, *keys.only, *keys.harmless, *keys.parts}:
            out.append(f"{path}{key}")
    return out


@pytest.mark.parametrize("kind", CLASSES)
def test_every_key_of_the_library_s_class_is_declared(kind: str) -> None:
    """Whatever its value: ``to_dict`` names all keys of the class, with the defaults of transformers 5.23.0."""
    settings = getattr(transformers, CLASSES[kind])().to_dict()
    assert every(settings, PUBLISHED[kind].keys["config.json"]) == []
    check_settings({"config.json": settings}, PUBLISHED[kind].keys)


def test_every_key_of_answers_is_declared() -> None:
    """Set in transformers 5.23.0's GenerationConfig: each is declared, or refused as soon as it is set."""
    refused = {"bad_words_ids", "force_words_ids", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias", "stop_strings", "suppress_tokens",
               "begin_suppress_tokens", "exponential_decay_length_penalty", "dola_layers"}
    assert set(every(vars(transformers.GenerationConfig()), GENERATION)) == refused
    with pytest.raises(sn.ConfigError, match="sets bad_words_ids to"):
        check_settings({"generation_config.json": {"bad_words_ids": [[3]]}}, {"generation_config.json": GENERATION})
