"""Settings of published folders: every key is built, harmless, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

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
    "deepseek_v3": "DeepseekV3Config", "whisper": "WhisperConfig", "bert": "BertConfig", "clip": "CLIPConfig", "siglip": "SiglipConfig",
    "vit": "ViTConfig", "llava": "LlavaConfig", "llava_next": "LlavaNextConfig", "idefics3": "Idefics3Config", "smolvlm": "SmolVLMConfig",
    "aya_vision": "AyaVisionConfig", "idefics": "IdeficsConfig", "janus": "JanusConfig", "qwen2_5_vl": "Qwen2_5_VLConfig"}
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


ELSEWHERE = {"model_type", "quantization_config", "eos_token_id", "max_position_embeddings", "image_token_id", "image_token_index", "video_token_id",
             "image_grid_pinpoints", "tokens_per_second", "suppress_tokens", "begin_suppress_tokens"}
"""Built keys that are read where files are opened, or where codecs are made, and not by the family's own sentence."""


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, dict):
        return {**value, "another": "one"}
    return value + "x" if isinstance(value, str) else [*value, 1] if isinstance(value, list) else value * 2 if value else 3


def places(settings: dict, keys: Keys, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where each declared key of the settings stands, and "built" or "harmless"."""
    for key, value in settings.items():
        if key in keys.parts and isinstance(value, dict):
            yield from places(value, keys.parts[key], (*path, key))
        elif key not in ELSEWHERE and key in {*keys.built, *keys.harmless}:
            yield (*path, key), "built" if key in keys.built else "harmless"


def made(kind: str, settings: dict) -> str:
    """The sentence and the names that a config gives, as text; or why it gives none."""
    config = {**settings, "tensor_names": frozenset()}
    try:
        spec = PUBLISHED[kind].spec(config)
        return f"{spec.to_json()} {sorted((mine, rule.source, rule.make is None) for mine, rule in PUBLISHED[kind].rules(spec, config).items())}"
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        return repr(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_built_key_changes_what_is_built_and_a_harmless_one_does_not(kind: str) -> None:
    settings = getattr(transformers, CLASSES[kind])().to_dict()
    small = {"num_hidden_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "depth": 2, "layer_types": ["sliding_attention", "full_attention"],
             "n_routed_experts": 4, "num_experts_per_tok": 2, "fullatt_block_indexes": [1], "sliding_window": 8, "use_sliding_window": True,
             "max_window_layers": 1, "out_hidden_size": 8192, "n_group": 2, "topk_group": 1, "topk_method": "group_limited_greedy",
             "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "_sliding_window_pattern": 2, "first_k_dense_replace": 1}
    for part in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        part.update({key: value for key, value in small.items() if key in part})
    if kind == "idefics":
        settings |= {"use_resampler": True}
    if kind == "aya_vision":
        settings["vision_config"] |= {"image_size": 364}
    if kind in ("qwen2", "qwen2_5_vl"):
        settings.get("text_config", settings)["layer_types"].reverse()
    older = copy.deepcopy(settings)  # without what says it layer by layer
    for part in (older, *(value for value in older.values() if isinstance(value, dict))):
        part.pop("layer_types", None)
    differs: dict[tuple[tuple[str, ...], str], bool] = {}
    for edition in [settings] if older == settings else [settings, older]:
        plain = made(kind, edition)
        assert plain.startswith("{"), plain
        for place in places(edition, PUBLISHED[kind].keys["config.json"]):
            part = other = copy.deepcopy(edition)
            for key in place[0][:-1]:
                part = part[key]
            part[place[0][-1]] = changed(part[place[0][-1]])
            differs[place] = differs.get(place, False) or made(kind, other) != plain
    assert [(".".join(path), what) for (path, what), differ in differs.items() if differ != (what == "built")] == []
