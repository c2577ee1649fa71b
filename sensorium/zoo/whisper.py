"""Whisper: a language model that looks at a sound in the middle of each of its layers.

    log-mel -> two convolutions -> transformer -\\
                                                 cross-attention between self-attention and MLP
    ids -> vocabulary with learned places ----> causal decoder -> next token

Source: 2212.04356; weights openai/whisper-base, MIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.layers.positions import sinusoids
from sensorium.settings import CONFIG, GENERATION, NOTES, Keys, because
from sensorium.types import Batch
from sensorium.zoo.ctranslate2 import FILE as CTRANSLATE2_FILE
from sensorium.zoo.ctranslate2 import KEYS as CTRANSLATE2
from sensorium.zoo.published import filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["SIZES", "whisper", "whisper_base", "whisper_size"]

SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12), "medium": (1024, 24, 16), "large": (1280, 32, 20)}
"""Width, depth and heads of each published size; encoder and decoder are alike."""

DEFAULTS = {"vocab_size": 51_865, "num_mel_bins": 80, "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536,
            "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536, "max_source_positions": 1500,
            "max_target_positions": 448}
FIXED = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
WRITES = Keys(
    built=("suppress_tokens", "begin_suppress_tokens", "alignment_heads"),
    only={"max_initial_timestamp_index": (50, None), "is_encoder_decoder": True},
    harmless={**because("transcribe says which language and task", "forced_decoder_ids", "language", "task", "return_timestamps"),
              **because("the tokenizer says it", "no_timestamps_token_id", "lang_to_id", "task_to_id", "is_multilingual", "prev_sot_token_id"),
              **because("word times are found by a width of their own", "median_filter_width")})
_MASKS = tuple(f"mask_{what}" for what in ("time_prob", "time_length", "time_min_masks", "feature_prob", "feature_length", "feature_min_masks"))
KEYS = CONFIG | WRITES | Keys(built=tuple(DEFAULTS), only=FIXED, harmless={
    **because("for training", "encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment", *_MASKS),
    **because("of classifiers of sounds", "use_weighted_layer_sum", "classifier_proj_size"),
    **because("encoder_layers by another name", "num_hidden_layers")})
SOUND = NOTES | Keys(
    only={"sampling_rate": 16_000, "n_fft": 400, "hop_length": 160, "padding_value": (0.0, None), "dither": (0.0, None)},
    harmless={**because("config.json says it (num_mel_bins, max_source_positions)", "feature_size", "chunk_length", "n_samples", "nb_max_frames"),
              **because("they follow from the number of mel bins", "mel_filters"),
              **because("how the published program computes, not what", "feature_extractor_type", "processor_class", "padding_side",
                        "return_attention_mask")})
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
LAYER = {"attention_norm": "self_attn_layer_norm", "mlp_norm": "final_layer_norm", "mlp.up": "fc1", "mlp.down": "fc2",
         **{f"attention.{mine}": f"self_attn.{other}" for mine, other in ATTENTION.items()}}


def whisper(audio: sn.AudioEncoder, decoder: sn.Decoder, vocab: int, places: int = 448, timing: tuple[tuple[int, int], ...] = ()) -> sn.Model:
    """An encoder of sound and a decoder that looks at it; ``timing``: the heads whose looks follow time."""
    return sn.Model(
        encoders={"text": sn.Vocabulary(vocab, decoder.width, places=places), "audio": audio},
        fuse={"cross": sn.CrossAttend("audio", width=decoder.width, source=audio.width, layers=decoder.depth, place="middle",
                                      heads=decoder.read.heads, bias=True, key_bias=False, gate=None, timing=timing)},
        decoder=decoder,
        heads={"text": sn.Tokens(decoder.width, vocab, tied=True)},
        objectives=(sn.NextToken(),))


def _decoder(width: int, depth: int, heads: int, hidden: int | None = None) -> sn.Decoder:
    return sn.Decoder(sn.Stack(width=width, depth=depth, heads=heads, hidden=hidden, key_bias=False, rule="causal"))


def whisper_size(name: str, vocab: int = 51_865) -> sn.Model:
    """A published size; the English-only ones know 51,864 ids."""
    width, depth, heads = SIZES[name]
    return whisper(sn.AudioEncoder(width=width, depth=depth, heads=heads), _decoder(width, depth, heads), vocab)


def whisper_base() -> sn.Model:
    """The multilingual base size, 74M parameters."""
    return whisper_size("base")


def _toy() -> sn.Model:
    return whisper(sn.AudioEncoder(mels=8, frames=12, width=24, depth=2, heads=2), _decoder(24, 2, 2), 60, places=20, timing=((1, 0), (0, 1)))


def sounds(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of a sound and its transcript; sample ``i`` is always the same."""
    packer = sn.Packer(places={"audio": 0}, row=48, end=3)
    segments = []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        words = torch.randint(8, 60, (5 + number % 3,), generator=generator).tolist()
        segments.append(packer.segment([sn.Arrays("audio", torch.randn(8, 12, generator=generator)), sn.Arrays("text", [1, 4 + number % 2]),
                                        sn.Arrays("text", words, target=True)]))
    return packer.pack(segments, alone=alone)


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    audio = sn.AudioEncoder(mels=c["num_mel_bins"], frames=2 * c["max_source_positions"], width=c["d_model"], depth=c["encoder_layers"],
                            heads=c["encoder_attention_heads"], hidden=_hidden(c, "encoder"))
    decoder = _decoder(c["d_model"], c["decoder_layers"], c["decoder_attention_heads"], _hidden(c, "decoder"))
    timing = tuple((layer, head) for layer, head in c.get("alignment_heads") or ())
    return whisper(audio, decoder, c["vocab_size"], c["max_target_positions"], timing)


def _hidden(config: dict[str, Any], side: str) -> int | None:
    hidden = config[f"{side}_ffn_dim"]
    return None if hidden == 4 * config["d_model"] else hidden


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    audio, text, depth = "encoders.audio", "model.decoder", spec.decoder.depth
    both = {f"{audio}.first": "model.encoder.conv1", f"{audio}.second": "model.encoder.conv2", f"{audio}.stack.norm": "model.encoder.layer_norm",
            "decoder.read.norm": f"{text}.layer_norm"}
    for i in range(depth):
        both[f"fuse.cross.layers.{i}.norm"] = f"{text}.layers.{i}.encoder_attn_layer_norm"
        both |= {f"fuse.cross.layers.{i}.attention.{mine}": f"{text}.layers.{i}.encoder_attn.{other}" for mine, other in ATTENTION.items()}
    names = {f"{mine}.{suffix}": f"{other}.{suffix}" for mine, other in both.items() for suffix in ("weight", "bias")}
    names |= stack_names(f"{audio}.stack", "model.encoder.layers", spec.encoders["audio"].depth, LAYER)
    names |= stack_names("decoder.read", f"{text}.layers", depth, LAYER)
    names = {mine: other for mine, other in names.items() if not mine.endswith("key.bias")}
    return renamed(names | {"encoders.text.token.weight": f"{text}.embed_tokens.weight",
                            "encoders.text.position": f"{text}.embed_positions.weight"})


def _ignored(name: str) -> str | None:
    if name == "model.encoder.embed_positions.weight":
        return "sinusoids, which are computed"
    if name.endswith("k_proj.bias"):
        return "moves all scores of a query alike, and so nothing"
    return "the embeddings again" if name == "proj_out.weight" else None


def _equals(spec: sn.Model, name: str) -> str | torch.Tensor | None:
    if name == "proj_out.weight":
        return "model.decoder.embed_tokens.weight"
    if name != "model.encoder.embed_positions.weight":
        return None
    audio = spec.encoders["audio"]
    return torch.cat(sinusoids(torch.arange(audio.patches), audio.width, shift=1).chunk(2, dim=-1)[::-1], dim=-1)


def _rename(name: str) -> str:
    """WhisperModel's names to those of the model with a head."""
    return f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name


PUBLISHED["whisper"] = Published(_spec, _rules, _ignored, _rename, equals=_equals, 
                                 head=("proj_out.weight", "model.decoder.embed_tokens.weight"), keys={
    "config.json": KEYS, CTRANSLATE2_FILE: CTRANSLATE2, "generation_config.json": GENERATION | WRITES, "preprocessor_config.json": SOUND,
    "processor_config.json": NOTES | Keys(parts={"feature_extractor": SOUND})})
register(Entry(name="whisper", full=whisper_base, toy=_toy, batch=sounds, parameters=72_593_920, unread=1500 * 512,
               source="Whisper base, 2212.04356; openai/whisper-base, MIT"))
