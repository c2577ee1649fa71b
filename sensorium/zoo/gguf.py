"""GGUF: llama.cpp's one-file format, read as a published Llama: settings, tensors, tokenizer and chat template out of one file.

    magic, version, counts | settings (key, type, value) | tensors (name, sizes, type, offset) | padding | data

The header is walked here, and every length, count and offset in it is held against the file's size before it is used; the ``gguf``
library knows the number formats and turns them into floats, a tensor at a time.

Source: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors

from sensorium.formats import FORMATS, Format, LazyTensors, PublishedFiles, Walker
from sensorium.layers.positions import Rope, RopeScaling
from sensorium.settings import Keys, because
from sensorium.types import CheckpointError, ConfigError

__all__ = ["FILE", "KEYS", "rebuild_tokenizer", "read_gguf"]

NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PIECE = 1 << 19  # numbers turned back at once: the steps between stay in the processor's cache
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
LONGEST_PIECE = 64  # characters; nobody trains longer ones, and cutting one in all ways takes time

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
ENDS = ("eos", "eot", "eom")
"""Tokens that end an answer: of the text, of the turn, of a message that calls a tool."""

FILE = "the header of a GGUF"
KEYS = Keys(
    built=(*(f"llama.{name}" for name in (
        "embedding_length", "block_count", "attention.head_count", "attention.head_count_kv", "feed_forward_length", "context_length",
        "rope.freq_base",
        "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length", "rope.dimension_count", "rope.scale_linear",
        "rope.scaling.type", "rope.scaling.factor", "expert_count")), *(f"tokenizer.ggml.{name}" for name in (
            "model", "pre", "tokens", "scores", "token_type", "merges", "add_bos_token", "add_space_prefix", *(f"{short}_token_id" for short in (
                "bos", "eos", "eot", "eom", "unknown", "padding")))), "tokenizer.chat_template", "tokenizer.huggingface.json"),
    only={"llama.rope.scaling.attn_factor": 1.0, "llama.rope.scaling.alpha": 1.0, "tokenizer.ggml.add_eos_token": False,
          "tokenizer.ggml.remove_extra_whitespaces": False, "llama.attention.causal": True},
    harmless={**because("the tensors say it", "llama.vocab_size", "llama.tensor_data_layout", "llama.expert_used_count"),
              **because("of scaling that is refused, or a remark", "llama.rope.scaling.original_context_length", "llama.rope.scaling.finetuned"),
              **because("of other templates than the one that counts", "tokenizer.chat_templates"),
              **because("of kinds of text and tasks that no conversation has", "tokenizer.ggml.token_type_count", *(
                  f"tokenizer.ggml.{name}_token_id" for name in ("seperator", "mask", "cls", "prefix", "suffix", "middle", *(
                      f"fim_{part}" for part in ("pre", "suf", "mid", "pad", "rep", "sep")))), "tokenizer.ggml.add_sep_token")})
"""What llama.cpp's converter writes of the model and of its words; what begins with "general." is who made it."""

NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}

_DIGITS = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
_LLAMA3 = [pre_tokenizers.Split(tokenizers.Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
PRE_TOKENIZERS = {"smollm": _DIGITS, "starcoder": _DIGITS, "refact": _DIGITS, "gpt-2": _DIGITS[1:], "llama-bpe": _LLAMA3, "llama3": _LLAMA3}


class _Header(Walker):
    """A walk through a GGUF's header."""

    def text(self, what: str) -> str:
        """A string."""
        size = self.number("Q", what)
        start = self.take(size, what)
        return self.bytes[start : start + size].decode("utf-8", "replace")

    def value(self, kind: int, what: str) -> Any:
        """A setting's value of type ``kind``."""
        if kind == STRING:
            return self.text(what)
        if kind == ARRAY:
            inner, count = self.number("I", what), self.count("Q", f"items in {what}", 1 << 24)
            if inner == STRING:
                return [self.text(what) for _ in range(count)]
            kind = np.dtype(f"<{self._form(inner, what)}")
            return np.frombuffer(self.bytes, kind, count, self.take(count * kind.itemsize, what)) if count else []
        return self.number(self._form(kind, what), what)

    def _form(self, kind: int, what: str) -> str:
        if kind not in NUMBERS:
            raise self.refuse(f"{what} has a value of type {kind}, which is not known here")
        return NUMBERS[kind]


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies: its shape (rows first), number format, and bytes."""

    shape: tuple[int, ...]
    kind: Any
    start: int
    row_bytes: int


def _walk(header: _Header) -> tuple[dict[str, Any], dict[str, _Stored]]:
    """Settings, and where the tensors lie."""
    if header.bytes[:4] != b"GGUF":
        raise header.refuse(f"it begins with {header.bytes[:4]!r}")
    header.take(4, "the magic")
    if (version := header.number("I", "the version")) not in (2, 3):
        raise header.refuse(f"version {version}, wanted 2 or 3")
    tensors, settings = header.count("Q", "tensors", 1 << 16), header.count("Q", "settings", 1 << 16)
    meta = {}
    for _ in range(settings):
        key = header.text("a setting's name")
        meta[key] = header.value(header.number("I", key), key)
    infos = []
    for _ in range(tensors):
        name = header.text("a tensor's name")
        sizes = tuple(header.number("Q", name) for _ in range(header.count("I", f"axes of {name}", 4)))
        infos.append((name, sizes[::-1], header.number("I", name), header.number("Q", name)))
    alignment = meta.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
        raise header.refuse(f"alignment {alignment!r}")
    start, total, stored = -(-header.at // alignment) * alignment, 0, {}
    for name, shape, kind, offset in infos:
        place = _stored(header, name, shape, kind, start + offset)
        total += math.prod(shape[:-1]) * place.row_bytes
        if name in stored or total > len(header.bytes):
            raise header.refuse(f"{name} stands there twice, or its bytes belong to several tensors")
        stored[name] = place
    return meta, stored


def _stored(header: _Header, name: str, shape: tuple[int, ...], kind: int, start: int) -> _Stored:
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError as error:
        raise ConfigError(f"{header.name} is read through the gguf library ({error}); pip install sensorium[chat]") from error
    known = {int(number): number for number in GGML_QUANT_SIZES}
    if kind not in known:
        raise header.refuse(f"{name} is of number format {kind}, which is not known here")
    block, size = GGML_QUANT_SIZES[known[kind]]
    if not shape or 0 in shape or shape[-1] % block:
        raise header.refuse(f"{name} has sizes {shape}, wanted rows of blocks of {block}")
    row_bytes = shape[-1] // block * size
    bytes_ = math.prod(shape[:-1]) * row_bytes
    if start + bytes_ > len(header.bytes):
        raise header.refuse(f"{name} takes {bytes_:,} bytes at {start:,}, but the file has {len(header.bytes):,}")
    return _Stored(shape, known[kind], start, row_bytes)


def _floats(header: _Header, stored: _Stored, heads: int | None = None) -> torch.Tensor:
    """A tensor as float32; with ``heads``, llama.cpp's order of each head's rows (pairs side by side) is undone."""
    from gguf.quants import dequantize

    rows, out = math.prod(stored.shape[:-1]), np.empty(stored.shape, np.float32)
    raw_RB = np.frombuffer(header.bytes, np.uint8, rows * stored.row_bytes, stored.start).reshape(rows, -1)
    flat_RD, step = out.reshape(rows, -1), max(PIECE // stored.shape[-1], 1)
    try:
        for at in range(0, rows, step):  # a piece is one long row to the library, which would else go through it 16 rows at a time
            flat_RD[at : at + step] = dequantize(raw_RB[at : at + step].reshape(1, -1), stored.kind).reshape(-1, stored.shape[-1])
    except NotImplementedError as error:
        raise CheckpointError(f"{header.name} holds numbers of format {stored.kind.name}, which the gguf library does not turn back") from error
    values = torch.from_numpy(out)
    if heads is None:
        return values
    return values.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _config(header: _Header, meta: dict[str, Any], stored: dict[str, _Stored]) -> dict[str, Any]:
    """The settings as config.json would name them."""
    kind = meta.get("general.architecture")
    if kind != "llama" or meta.get("llama.expert_count"):
        raise CheckpointError(f"{header.name} holds a {kind!r} model" + (" of experts" if kind == "llama" else "") + "; only plain 'llama' is read")
    if "token_embd.weight" not in stored:
        raise header.refuse("it lacks token_embd.weight")

    def number(key: str, default: Any = None, kind: type = int) -> Any:
        value = meta.get(f"llama.{key}", default)
        if not isinstance(value, kind) or not 0 < value < 1 << 32:
            raise header.refuse(f"llama.{key} is {value!r:.40}, wanted a number more than 0")
        return value

    width, depth, heads = number("embedding_length"), number("block_count"), number("attention.head_count")
    config = {
        "model_type": "llama", "hidden_size": width, "num_hidden_layers": depth, "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": heads, "num_key_value_heads": number("attention.head_count_kv", heads),
        "vocab_size": stored["token_embd.weight"].shape[0], "max_position_embeddings": number("context_length", 2048),
        "rms_norm_eps": _short(number("attention.layer_norm_rms_epsilon", kind=float)),
        "tie_word_embeddings": "output.weight" not in stored, "attention_bias": "blk.0.attn_q.bias" in stored,
        "mlp_bias": "blk.0.ffn_up.bias" in stored, "rope_theta": _short(number("rope.freq_base", 1e4, float)),
        "head_dim": number("attention.key_length", max(width // heads, 1)),
        **{f"{name}_token_id": meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}}
    turned = number("rope.dimension_count", config["head_dim"])
    if turned != config["head_dim"]:
        raise CheckpointError(f"{header.name} turns {turned} of {config['head_dim']} numbers of a head; only models that turn all are read")
    if number("attention.value_length", config["head_dim"]) != config["head_dim"]:
        raise CheckpointError(f"{header.name} has values of {meta['llama.attention.value_length']} numbers a head and keys of {config['head_dim']}; "
                              "only models that have as many of both are read")
    old = meta.get("llama.rope.scale_linear", 1.0)
    scaling = meta.get("llama.rope.scaling.type", "none" if old == 1 else "linear")
    if scaling != "none" and "rope_freqs.weight" in stored:
        raise CheckpointError(f"{header.name} slows its rotary positions twice, by {scaling!r} and by a table; only one of both is read")
    if scaling != "none":
        config["rope_scaling"] = {"rope_type": scaling, "factor": number("rope.scaling.factor", old, float)}
    elif "rope_freqs.weight" in stored:
        config["rope_scaling"] = _by_wave(_floats(header, stored["rope_freqs.weight"]), config, header.name)
    return config


def _short(value: float) -> float:
    """A stored float32 as the number that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _by_wave(factor: torch.Tensor, config: dict[str, Any], name: str) -> dict[str, Any]:
    """Llama 3's scaling from the table that it left: what each wave was slowed by."""
    rope = {"rope_type": "llama3", "factor": float(factor.max()), "original_max_position_embeddings": 8192, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0}
    plain = Rope(config["head_dim"], theta=config["rope_theta"]).frequencies()
    wanted = plain / RopeScaling(rope["factor"], context=8192).slowed(plain)
    if factor.shape != wanted.shape or not torch.allclose(factor, wanted, rtol=1e-4):
        raise CheckpointError(f"{name} slows its rotary positions in a way that is not Llama 3's; it is not read")
    return rope


def rebuild_tokenizer(meta: dict[str, Any]) -> str | None:
    """The text of tokenizer.json, from a GGUF's settings; None where they hold no tokenizer.

    Raises:
        CheckpointError: a tokenizer of a kind that cannot be rebuilt.
    """
    if isinstance(meta.get("tokenizer.huggingface.json"), str):
        return meta["tokenizer.huggingface.json"]
    kind, pre = meta.get("tokenizer.ggml.model"), str(meta.get("tokenizer.ggml.pre", "gpt-2"))
    if kind is None:
        return None
    if kind != "llama" and (kind != "gpt2" or pre not in PRE_TOKENIZERS):
        raise CheckpointError(f"the GGUF's tokenizer is {kind!r:.40} with pre-tokenizer {pre!r:.40}; only 'llama', and 'gpt2' with "
                              f"{', '.join(PRE_TOKENIZERS)}, can be rebuilt; put the model's tokenizer.json beside it")
    tokens, kinds = _texts(meta, "tokens"), np.atleast_1d(meta.get("tokenizer.ggml.token_type", ())).tolist()
    try:
        inner = _sentence_pieces(meta, tokens, kinds) if kind == "llama" else _byte_pairs(meta, tokens, pre)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 (the library raises plain Exception, and nothing else)
        raise CheckpointError(f"the GGUF's tokenizer does not hold together ({str(error)[:80]}); fetch it again") from error
    added = [(token, kind) for token, kind in zip(tokens, kinds) if kind in (CONTROL, USER_DEFINED)]
    inner.add_tokens([tokenizers.AddedToken(token, special=kind == CONTROL, normalized=False) for token, kind in added])
    bos = _special(meta, tokens).get("bos")
    if meta.get("tokenizer.ggml.add_bos_token", kind == "llama") and bos is not None:
        inner.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, meta["tokenizer.ggml.bos_token_id"])])
    return inner.to_str()


def _byte_pairs(meta: dict[str, Any], tokens: list[str], pre: str) -> tokenizers.Tokenizer:
    """Byte pairs, with their merges as they stand in the file."""
    merges = [tuple(pair.split(" ", 1)) for pair in _texts(meta, "merges")]
    inner = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=pre.startswith("llama")))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Sequence(PRE_TOKENIZERS[pre]), decoders.ByteLevel()
    return inner


def _sentence_pieces(meta: dict[str, Any], tokens: list[str], kinds: list[int]) -> tokenizers.Tokenizer:
    """SentencePiece's byte pairs: two pieces are joined into the piece of the highest score, so the scores say the order of all merges."""
    scores = np.atleast_1d(meta.get("tokenizer.ggml.scores", ())).tolist()
    if len(scores) != len(tokens) or len(kinds) != len(tokens):
        raise CheckpointError(f"the GGUF's tokenizer has {len(tokens)} tokens, {len(scores)} scores and {len(kinds)} kinds, wanted as many of each; "
                              "fetch it again")
    number = {token: i for i, token in enumerate(tokens)}
    merges = []
    for token, score, kind in zip(tokens, scores, kinds, strict=True):
        if kind not in (NORMAL, USER_DEFINED) or len(token) > LONGEST_PIECE:
            continue
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token)) if token[:cut] in number and token[cut:] in number]
        merges += [(-score, number[left], number[right], (left, right)) for left, right in pairs]
    merges.sort(key=lambda merge: merge[:3])
    unknown = _special(meta, tokens).get("unk", "<unk>")
    inner = tokenizers.Tokenizer(models.BPE(number, [merge[3] for merge in merges], unk_token=unknown, fuse_unk=True, byte_fallback=True))
    start = bool(meta.get("tokenizer.ggml.add_space_prefix", True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first" if start else "never", split=False)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       *([decoders.Strip(" ", 1, 0)] if start else [])])
    return inner


def _texts(meta: dict[str, Any], name: str) -> list[str]:
    texts = meta.get(f"tokenizer.ggml.{name}", [])
    if not isinstance(texts, list):
        raise CheckpointError(f"the GGUF's tokenizer.ggml.{name} is no list of texts; fetch it again")
    return texts


def _special(meta: dict[str, Any], tokens: list[str]) -> dict[str, str]:
    """The special tokens by their short names."""
    ids = {short: meta.get(f"tokenizer.ggml.{name}_token_id")
           for short, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    return {name: tokens[number] for name, number in ids.items() if isinstance(number, int) and 0 <= number < len(tokens)}


def read_gguf(path: Path) -> PublishedFiles:
    """Read a GGUF file, or the folder that holds one.

    Raises:
        CheckpointError: torn, lying about its sizes, or of a kind that is not read.
    """
    path = path if path.is_file() else _only(path)
    header, meta, stored, lies = _parts(path)
    config = _config(header, meta, stored)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    makers = {}
    for tensor, place in stored.items():
        name = tensor
        found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
        part = found.group(2) if found else name.rpartition(".")[0]
        if found and part in LAYER:
            name = f"model.layers.{found.group(1)}.{LAYER[part]}.{found.group(3)}"
        elif part in NAMES:
            name = name.replace(part, NAMES[part], 1)
        makers[name] = partial(_floats, lies[tensor], place, heads.get(part))
    beside, template = path.parent / "tokenizer.json", meta.get("tokenizer.chat_template")
    ends = tuple(meta[key] for key in (f"tokenizer.ggml.{name}_token_id" for name in ENDS) if key in meta)
    return PublishedFiles(config, LazyTensors(makers), lambda: beside.read_text("utf-8") if beside.is_file() else rebuild_tokenizer(meta),
                          template if isinstance(template, str) else None, _special(meta, _texts(meta, "tokens")), ends=ends,
                          settings={FILE: _said(meta)})


def _said(meta: dict[str, Any]) -> dict[str, Any]:
    """The settings of the model and of its words; of a list, how long it is."""
    return {key: f"a list of {len(value)}" if isinstance(value, list | np.ndarray) else value for key, value in meta.items()
            if key.startswith(("llama.", "tokenizer.")) and not key.startswith("tokenizer.chat_template.")}


def _parts(path: Path) -> tuple[_Header, dict[str, Any], dict[str, _Stored], dict[str, _Header]]:
    """A file, or all the files that it is one part of: the first with its settings, the tensors of all, and in which each of them lies.

    Source: the ``gguf`` library's names and keys of splits.
    """
    header = _Header(path, "GGUF")
    meta, stored = _walk(header)
    count, lies = meta.get("split.count", 0), dict.fromkeys(stored, header)
    if not isinstance(count, int) or count < 2:
        return header, meta, stored, lies
    named = _PART.fullmatch(path.name)
    if named is None or int(named[3]) != count:
        raise CheckpointError(f"{path.name} is one of {count} parts of a GGUF; wanted a name that ends in -00001-of-{count:05d}.gguf, by which the "
                              "others are found")
    names = [f"{named[1]}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    if absent := [name for name in names if not (path.parent / name).is_file()]:
        raise CheckpointError(f"{path.name} is one of {count} parts, and {absent[0]} is not beside it; fetch it too")
    headers = [header if name == path.name else _Header(path.parent / name, "GGUF") for name in names]
    walked = [(meta, stored) if each is header else _walk(each) for each in headers]
    joined, lies = {}, {}
    for each, (said, some) in zip(headers, walked, strict=True):
        if said.get("split.count") != count or joined.keys() & some.keys():
            raise CheckpointError(f"{each.name} is no part of the same model as {path.name}; fetch both again")
        joined |= some
        lies |= dict.fromkeys(some, each)
    if walked[0][0].get("split.tensors.count", len(joined)) != len(joined):
        raise CheckpointError(f"{names[0]} says {walked[0][0]['split.tensors.count']} tensors, and its parts hold {len(joined)}; fetch them again")
    return headers[0], walked[0][0], joined, lies


def _only(folder: Path) -> Path:
    paths = sorted(folder.glob("*.gguf"))
    parts = [_PART.fullmatch(path.name) for path in paths]
    if all(parts) and len({(part[1], part[3]) for part in parts}) == 1:
        return paths[0]
    if len(paths) > 1:
        raise CheckpointError(f"{folder} holds {', '.join(path.name for path in paths)}; name one of them")
    return paths[0]


def _claims(path: Path) -> bool:
    return path.suffix == ".gguf" if path.is_file() else path.is_dir() and any(path.glob("*.gguf"))


FORMATS["GGUF"] = Format(_claims, read_gguf)
