"""Settings: what becomes of each key of a published model's settings files: built, harmless, or refused by name.

    file -> settings + the Keys that a family declares -> nothing, or one error that names every key that is not built

``docs/published-settings.md`` is made of the same declarations. A key that is declared nowhere and says nothing (null, false, 0, or empty) passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sensorium.types import ConfigError

__all__ = ["ANY", "because", "check_settings", "CONFIG", "GENERATION", "Keys", "NOTES", "PICTURES", "rows", "SPECIAL_TOKENS", "TOKENIZER", "TRAINING"]

OFF: tuple[Any, ...] = (None, False, 0, "", [], {})


@dataclass(frozen=True)
class Keys:
    """What becomes of the keys of one settings file, or of one object in it.

    Args:
        built: keys whose value changes what is built, whatever it is (a reader may still refuse a value).
        only: key -> the one value that is built; a tuple holds several.
        harmless: key -> why its value makes no difference.
        parts: key -> the keys of the object that stands there; "*" is every key that is named nowhere else.
        endings: ends of further keys that are built.
    """

    built: tuple[str, ...] = ()
    only: Mapping[str, Any] = field(default_factory=dict)
    harmless: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Keys] = field(default_factory=dict)
    endings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [*self.built, *self.only, *self.harmless, *self.parts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"the keys {', '.join(twice)} are declared twice; say one thing of each")

    def __or__(self, other: Keys) -> Keys:
        """Both; of a key that both name, what ``other`` says."""
        later = {*other.built, *other.only, *other.harmless, *other.parts}
        return Keys((*(key for key in self.built if key not in later), *other.built),
                    *({**{k: v for k, v in mine.items() if k not in later}, **more} for mine, more in (
                        (self.only, other.only), (self.harmless, other.harmless), (self.parts, other.parts))), (*self.endings, *other.endings))


ANY = Keys(parts={"*": Keys()})
"""An object whose keys are names of its own, such as labels."""


def check_settings(found: Mapping[str, Mapping[str, Any]], declared: Mapping[str, Keys]) -> None:
    """Refuse what is not built.

    Args:
        found: file -> its settings. A file that nobody declared is not looked at.
        declared: file -> its keys.

    Raises:
        ConfigError: keys that are not built, by file and name; all in one error.
    """
    problems = [problem for file, keys in declared.items() for problem in _problems(f"{file} sets ", found.get(file, {}), keys)]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ConfigError(f"{'; '.join(problems[:4])}{more}. Take a model without it, or delete the key if the model does the same without it")


def _problems(path: str, settings: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    for key, value in settings.items():
        part = keys.parts.get(key)
        if key in keys.built or key in keys.harmless or key not in keys.only and key.endswith(keys.endings or ("\0",)):
            continue
        if key in keys.only:
            wanted = keys.only[key] if isinstance(keys.only[key], tuple) else (keys.only[key],)
            if not any(_same(value, one) for one in wanted):
                yield f"{path}{key} to {_short(value)}; only {' or '.join(map(repr, wanted))} is built"
        elif part is not None:  # what is no object there, its reader refuses
            yield from _problems(f"{path}{key}.", value, part) if isinstance(value, Mapping) else ()
        elif value not in OFF and "*" not in keys.parts:
            yield f"{path}{key} to {_short(value)}, which is not built"


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(value, int | float):
        return math.isclose(value, wanted, rel_tol=1e-6)
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def rows(keys: Keys, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path of its object, key, what becomes of it) of every declared key, for the documentation."""
    for key in keys.built:
        yield path, key, "built"
    for ending in keys.endings:
        yield path, f"*{ending}", "built"
    for key, wanted in keys.only.items():
        yield path, key, f"only {' or '.join(repr(one) for one in (wanted if isinstance(wanted, tuple) else (wanted,)))}; else refused"
    for key, part in keys.parts.items():
        yield from rows(part, f"{path}{key}.")
    for key, why in keys.harmless.items():
        yield path, key, f"harmless: {why}"


def because(why: str, *names: str) -> dict[str, str]:
    """The same reason for several keys."""
    return dict.fromkeys(names, why)


TRAINING = because(
    "for training from nothing, or dropout, which no model here has switched on", "initializer_range", "initializer_factor", "init_std",
    "attention_dropout", "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout",
    "activation_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "gradient_checkpointing", "neftune_noise_alpha", "hidden_dropout_rate",
    "projection_dropout", "drop_path_rate")
"""Keys that are about training."""

NOTES = Keys(harmless={
    **because("who wrote the file, and with what", "_name_or_path", "name_or_path", "architectures", "transformers_version", "_commit_hash",
               "auto_map", "transformers.js_config", "resume_path", "unsloth_version", "unsloth_fixed", "model_name", "_class_name",
               "_diffusers_version"),
    **because("numbers are loaded as load(dtype=...) says", "torch_dtype", "dtype", "use_bfloat16"),
    **because("how the published program computes or reports, not what", "return_dict", "use_return_dict", "output_hidden_states",
               "output_attentions", "torchscript", "use_cache", "use_reentrant_checkpointing", "chunk_size_feed_forward", "_attn_implementation",
               "_attn_implementation_autoset", "attn_implementation", "_attn_implementation_internal", "_flash_attn_2_enabled",
               "_experts_implementation", "pretraining_tp", "tf_legacy_loss", "ep_size", "output_router_logits", "use_mems_eval", "device_map",
               "problem_type", "finetuning_task", "tokenizer_class", "id2label", "label2id", "num_labels", "keys_to_ignore_at_inference",
               "ignore_index", "is_llama_config", "rope_interleaved", "task_specific_params"),
    **TRAINING})
"""Keys that say nothing of the model: any config.json may have them."""

_TOKENS = Keys(built=("eos_token_id",), harmless=because(
    "the tokenizer's files and the chat template say which tokens stand where", "bos_token_id", "pad_token_id", "sep_token_id",
    "decoder_start_token_id", "unk_token_id", "cls_token_id", "mask_token_id"))

_CHOICE = Keys(
    only={**dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), (1, None)),
          **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale"), (1.0, None)),
          **dict.fromkeys(("encoder_no_repeat_ngram_size", "no_repeat_ngram_size"), (0, None)),
          **dict.fromkeys(("diversity_penalty", "penalty_alpha"), (0.0, None))},
    harmless={
        **because("how a token is chosen is what the request says (temperature, top_k, top_p, min_p, repetition, seed)", "do_sample", "temperature",
                   "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h", "repetition_penalty", "renormalize_logits"),
        **because("how long an answer may be is what the request says", "max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time"),
        **because("of a search by beams, which is refused", "length_penalty", "early_stopping", "constraints", "low_memory"),
        **because("how the published program computes or reports, not what", "output_scores", "output_logits", "return_dict_in_generate",
                   "cache_implementation", "cache_config", "prefill_chunk_size", "return_legacy_cache", "compile_config", "disable_compile",
                   "max_cache_len", "remove_invalid_values", "_from_model_config", "continuous_batching_config", "assistant_confidence_threshold",
                   "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind", "is_assistant",
                   "num_assistant_tokens", "num_assistant_tokens_schedule", "prompt_lookup_num_tokens", "max_matching_ngram_size",
                   "speculation_type", "use_mtp", "chat_format", "max_window_size", "token_healing"),
        **because("a mark for finding machine-made text again", "watermarking_config"),
        "prefix": "a text put before every prompt of one task of the published program"})
"""How an answer is chosen; older files have these keys in config.json."""

CONFIG = NOTES | _CHOICE | _TOKENS | Keys(
    built=("model_type", "quantization_config", "compression_config", "transformers_weights"),
    only={"is_encoder_decoder": False, "is_decoder": False, "add_cross_attention": False})
"""Keys that config.json of any family may have."""

GENERATION = NOTES | _CHOICE | _TOKENS
"""generation_config.json; also refused when they are set: bad_words_ids, suppress_tokens, stop_strings, forced and biased tokens."""

SPECIAL_TOKENS = Keys(built=("extra_special_tokens",), endings=("_token",), harmless=because("tokens that tokenizer.json has too",
                                                                                             "additional_special_tokens"))
"""special_tokens_map.json."""

TOKENIZER = SPECIAL_TOKENS | NOTES | Keys(built=("chat_template", "added_tokens_decoder", "model_specific_special_tokens"), harmless={
    **because("tokenizer.json says it", "add_prefix_space", "do_lower_case", "do_basic_tokenize", "never_split",
               "strip_accents", "tokenize_chinese_chars", "legacy", "use_default_system_prompt", "sp_model_kwargs", "errors",
               "split_special_tokens", "normalize", "spaces_between_special_tokens", "trim_offsets", "vocab_file", "merges_file", "tokenizer_file",
               "special_tokens_map_file", "tokenizer_object", "backend", "is_local", "local_files_only", "from_slow", "use_fast", "tokenizer_type",
               "add_special_tokens", "do_word_tokenize", "subword_tokenizer_type", "word_tokenizer_type", "word_tokenizer", "token", "vocab_size",
               "unk_id", "bos_id", "eos_id", "pad_id"),
    **because("a chat template writes what stands before and after a text; without one, tokenizer.json does", "add_bos_token", "add_eos_token"),
    **because("texts are cut and padded as the model's context says", "model_max_length", "max_length", "padding_side", "truncation_side", "stride",
               "truncation_strategy", "pad_to_multiple_of", "pad_token_type_id", "padding", "truncation", "model_input_names"),
    **because("what was decoded stays as the tokenizer decodes it", "clean_up_tokenization_spaces"),
    **because("of the program that joins pictures and texts", "processor_class", "return_token_type_ids", "language", "task", "predict_timestamps",
              "response_schema", "padding_side_left", "image_seq_length", "return_tensors", "add_generation_prompt"),
    **because("of kinds of tokenizers that tokenizer.json says otherwise, and of other tasks", "fix_mistral_regex", "add_dummy_prefix_space",
              "keep_accents", "remove_space", "do_split_by_punct", "vocab_type", "wordpieces_prefix", "src_lang", "tgt_lang", "legacy_behaviour",
              "cls_token_box", "sep_token_box", "pad_token_box", "pad_token_label", "only_label_first_subword", "token_type_ids", "init_inputs",
              "max_len", *(f"{name}_token_id" for name in ("bos", "eos", "pad", "unk", "cls", "sep", "mask")))})
"""tokenizer_config.json."""

PICTURES = NOTES | Keys(
    built=("image_mean", "image_std", "resample", "size"),
    only={"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "do_convert_rgb": (True, None)},
    harmless=because("which program wrote the file, and how it computes", "image_processor_type", "feature_extractor_type", "processor_class",
                      "_processor_class", "_valid_processor_keys", "_valid_kwargs_names", "use_fast", "device", "input_data_format", "data_format",
                      "return_tensors", "disable_grouping", "default_to_square", "aspect_ratio_setting", "video_processor_type",
                      "image_processor_class", "video_processor_class"))
"""preprocessor_config.json: keys that the settings of any model's pictures may have."""
