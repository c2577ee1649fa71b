"""Settings of published folders: every key is built, harmless, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import transformers

import sensorium as sn
from sensorium.checkpoint import CODEC_FILES, PUBLISHED
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


CLIP_L = {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model", "num_attention_heads": 16,
          "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32_000}
SEES = {"crop_size": {"height": 336, "width": 336}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 336}}
REAL = {  # as they are published, by what stands in each of their files
    "SmolLM2-135M-Instruct": {"config.json": {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": True,
        "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
        "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100_000, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}}, "use_cache": True, "vocab_size": 49_152}},
    "SmolVLM2-500M-Video-Instruct": {"config.json": {
        "architectures": ["SmolVLMForConditionalGeneration"], "image_token_id": 49_190, "model_type": "smolvlm", "pad_token_id": 128_002,
        "scale_factor": 4, "text_config": {
            "architectures": ["VLlama3ForCausalLM"], "head_dim": 64, "hidden_size": 960, "intermediate_size": 2560, "is_llama_config": True,
            "max_position_embeddings": 8192, "model_type": "llama", "neftune_noise_alpha": 0.0, "num_attention_heads": 15, "num_hidden_layers": 32,
            "num_key_value_heads": 5, "pad_token_id": 2, "pixel_shuffle_factor": 4, "qk_layer_norms": False, "rms_norm_eps": 1e-05,
            "rope_interleaved": False, "rope_theta": 100_000, "torch_dtype": "bfloat16", "use_resampler": False, "vocab_size": 49_280},
        "tie_word_embeddings": False, "torch_dtype": "float32", "transformers_version": "4.47.1", "use_cache": False,
        "use_reentrant_checkpointing": False, "vision_config": {
            "hidden_size": 768, "image_size": 512, "max_image_size": {"longest_edge": 512}, "model_type": "smolvlm_vision", "num_attention_heads": 12,
            "patch_size": 16, "size": {"longest_edge": 2048}, "tie_word_embeddings": False, "use_base_siglip": False},
        "vocab_size": 49_280}},
    "llava-1.5-7b-hf": {"config.json": {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32_000, "model_type": "llava",
        "pad_token_id": 32_001, "projector_hidden_act": "gelu", "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "model_type": "llama",
            "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32_064},
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0", "vision_config": CLIP_L,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32_064},
        "preprocessor_config.json": SEES | {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}},
    "llava-v1.6-mistral-7b-hf": {"config.json": {
        "architectures": ["LlavaNextForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32_000, "model_type": "llava_next",
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], "projector_hidden_act": "gelu", "text_config": {
            "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2", "architectures": ["MistralForCausalLM"], "intermediate_size": 14_336,
            "max_position_embeddings": 32_768, "model_type": "mistral", "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1e6,
            "sliding_window": None, "torch_dtype": "bfloat16", "vocab_size": 32_064},
        "torch_dtype": "float16", "transformers_version": "4.39.0.dev0", "use_image_newline_parameter": True, "vision_config": CLIP_L,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32_064},
        "preprocessor_config.json": SEES | {
            "aspect_ratio_setting": "anyres", "do_pad": True, "image_processor_type": "LlavaNextImageProcessor",
            "processor_class": "LlavaNextProcessor", "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]}},
    "Qwen2.5-VL-7B-Instruct": {"config.json": {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0, "bos_token_id": 151_643, "eos_token_id": 151_645,
        "hidden_act": "silu", "hidden_size": 3584, "image_token_id": 151_655, "initializer_range": 0.02, "intermediate_size": 18_944,
        "max_position_embeddings": 128_000, "max_window_layers": 28, "model_type": "qwen2_5_vl", "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"}, "rope_theta": 1e6,
        "sliding_window": 32_768, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": True,
        "use_sliding_window": False, "video_token_id": 151_656, "vision_end_token_id": 151_653, "vision_start_token_id": 151_652,
        "vision_token_id": 151_654, "vocab_size": 152_064, "vision_config": {
            "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
            "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2}},
        "generation_config.json": {"bos_token_id": 151_643, "pad_token_id": 151_643, "do_sample": True, "eos_token_id": [151_645, 151_643],
                                   "repetition_penalty": 1.05, "temperature": 0.000001, "transformers_version": "4.49.0"},
        "preprocessor_config.json": {"min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
                                     "image_mean": SEES["image_mean"], "image_std": SEES["image_std"],
                                     "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}},
}


@pytest.mark.parametrize("name", REAL)
def test_settings_as_they_are_published_are_taken(name: str) -> None:
    files = REAL[name]
    layout = PUBLISHED[files["config.json"]["model_type"]]
    check_settings(files, {**CODEC_FILES, **layout.keys})
    assert made(files["config.json"]["model_type"], files["config.json"]).startswith("{")
    if "preprocessor_config.json" in files:
        assert layout.image(files["config.json"], files["preprocessor_config.json"]).to_json()


@pytest.mark.parametrize(("change", "says"), [
    ({"do_rescale": False}, "do_rescale to False"), ({"do_pad": True}, "do_pad to True"), ({"size": {"shortest_edge": 384}}, "set size to"),
    ({"do_center_crop": False}, "do_center_crop to False"), ({"crop_size": {"height": 224, "width": 224}}, "crop_size to"), ({"resample": 5},
                                                                                                                             "resample"),
    ({"do_reduce_labels": True}, "do_reduce_labels to True"), ({"size": 224}, "set size to 224")])
def test_settings_of_pictures_that_are_not_built_are_refused(change: dict, says: str) -> None:
    layout, config = PUBLISHED["llava"], REAL["llava-1.5-7b-hf"]["config.json"]
    with pytest.raises(sn.ConfigError, match=says):
        check_settings({"preprocessor_config.json": SEES | change}, layout.keys)
        layout.image(config, SEES | change)


@pytest.mark.parametrize(("kind", "config", "settings"), [
    ("llava", {}, SEES), ("llava_next", {}, {**SEES, "image_grid_pinpoints": [[336, 672]]}),
    ("smolvlm", {}, {"image_mean": [0.4] * 3, "image_std": [0.4] * 3, "resample": 1, "size": {"longest_edge": 2048}, "do_image_splitting": True,
                     "max_image_size": {"longest_edge": 512}, "do_pad": True}),
    ("aya_vision", {}, {"image_mean": [0.4] * 3, "image_std": [0.4] * 3, "resample": 3, "size": {"height": 364, "width": 364}, "min_patches": 1,
                        "max_patches": 12, "crop_to_patches": True}),
    ("idefics", {}, {"image_mean": [0.4] * 3, "image_std": [0.4] * 3, "image_size": 224, "image_num_channels": 3}),
    ("qwen2_5_vl", {}, REAL["Qwen2.5-VL-7B-Instruct"]["preprocessor_config.json"]),
    ("deepseek_vl_v2", {}, {"image_mean": [0.4] * 3, "image_std": [0.4] * 3, "candidate_resolutions": [[384, 384], [384, 768]], "patch_size": 14})])
def test_a_built_key_of_pictures_changes_their_codec(kind: str, config: dict, settings: dict) -> None:
    layout = PUBLISHED[kind]
    keys = layout.keys["preprocessor_config.json"]
    assert every(settings, keys) == []

    def codec(value: dict) -> str:
        try:
            return layout.image(config, value).to_json()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return repr(error)

    for key, value in settings.items():
        if key in {*keys.built, *keys.harmless}:
            other = {edge: size * 2 for edge, size in value.items()} if isinstance(value, dict) else changed(value)
            other = [[2 * side for side in sides] for sides in value] if key in ("candidate_resolutions", "image_grid_pinpoints") else other
            assert (codec({**settings, key: other}) != codec(settings)) == (key in keys.built), key


def test_how_a_picture_becomes_a_square() -> None:
    """CLIP's program cuts the middle out, SigLIP's squeezes; each has means of its own where the file names none."""
    layout, config = PUBLISHED["llava"], REAL["llava-1.5-7b-hf"]["config.json"]
    assert (layout.image(config, SEES).fit, layout.image(config, {"size": 336, "crop_size": 336}).fit) == ("crop", "crop")
    assert layout.image(config, {}).mean == tuple(SEES["image_mean"])
    squeezed = layout.image(config, {"size": {"height": 336, "width": 336}, "image_processor_type": "SiglipImageProcessor"})
    assert (squeezed.fit, squeezed.mean) == ("squash", (0.5, 0.5, 0.5))


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


def test_endings_of_keys_are_built_but_for_those_that_are_named() -> None:
    keys = {"a.json": Keys(only={"image_token": "<image>"}, endings=("_token",))}
    check_settings({"a.json": {"eos_token": "</s>", "image_token": "<image>"}}, keys)
    for settings in ({"image_token": "<img>"}, {"tokens": 1}):
        with pytest.raises(sn.ConfigError):
            check_settings({"a.json": settings}, keys)


@pytest.mark.parametrize("older", [{"hidden_size": 256, "num_attention_heads": 4}, {}, None])
def test_old_clip_files_say_a_tower_twice(older: dict | None) -> None:
    """transformers 5.23.0 takes ``text_config_dict`` where it is there, and its class's defaults for what that leaves out."""
    config = {"text_config": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}, "text_config_dict": older}
    wanted = transformers.CLIPConfig(**copy.deepcopy(config)).text_config
    text = PUBLISHED["clip"].spec(config).encoders["text"]
    assert (text.width, text.depth, text.heads) == (wanted.hidden_size, wanted.num_hidden_layers, wanted.num_attention_heads)
