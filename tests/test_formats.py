"""Formats of published models: GGUF and CTranslate2 beside safetensors, whole, torn and lying."""

from __future__ import annotations

import json
import random
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

import sensorium as sn
from sensorium import catalog
from sensorium.checkpoint import read_published
from sensorium.types import CheckpointError
from sensorium.zoo.gguf import rebuild_tokenizer

from .parity.reference import saved
from .parity.test_llama import EDITIONS
from .parity.test_llama import reference as llama
from .parity.test_whisper import reference as whisper
from .toys import tokenizer


def words() -> tuple[list[str], list[str], Tokenizer]:
    """Ids, merges and the tokenizer of a small byte-level vocabulary."""
    inner = Tokenizer.from_str(tokenizer().to_json())
    model = json.loads(inner.to_str())["model"]
    names = [inner.id_to_token(i) for i in range(inner.get_vocab_size())]
    return names, [" ".join(pair) for pair in model["merges"]], inner


def permuted(weight: torch.Tensor, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of queries and keys, as its converter makes it."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape).numpy()


def write_gguf(theirs: Any, path: Path, kind: str = "F32", rope_freqs: bool = False, changes: dict[str, Any] | None = None) -> Path:
    """A toy Llama as llama.cpp's converter writes it."""
    config, names = theirs.config, gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, theirs.config.num_hidden_layers)
    out = gguf.GGUFWriter(path, "llama")
    out.add_block_count(config.num_hidden_layers)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_rope_dimension_count(config.head_dim)
    out.add_key_length(config.head_dim)
    if config.rope_parameters["rope_type"] == "linear":
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(config.rope_parameters["factor"])
    tokens, merges, _ = words()
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(tokens)
    out.add_token_types([3 if token.startswith("<") and len(token) > 2 else 1 for token in tokens])
    out.add_token_merges(merges)
    out.add_bos_token_id(2)
    out.add_eos_token_id(3)
    out.add_chat_template("{{ messages }}")
    for key, value in (changes or {}).items():
        (out.add_string if isinstance(value, str) else out.add_uint32)(key, value)
    tied = config.tie_word_embeddings
    for name, value in theirs.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        array = permuted(value, heads) if heads else value.numpy()
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if kind != "F32" and array.ndim == 2:
            quant = gguf.GGMLQuantizationType[kind]
            out.add_tensor(place, gguf.quants.quantize(array, quant), raw_dtype=quant)
        else:
            out.add_tensor(place, np.ascontiguousarray(array))
    if rope_freqs:
        rope = theirs.model.rotary_emb
        plain = 1 / (config.rope_parameters["rope_theta"] ** (torch.arange(0, config.head_dim, 2) / config.head_dim))
        out.add_tensor("rope_freqs.weight", (plain / rope.inv_freq).numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.mark.parametrize("edition", ["grouped", "tied", "biases", "wide heads", "linear"])
def test_a_gguf_is_the_folder_it_was_made_of(edition: str, tmp_path: Path) -> None:
    theirs, report = llama(**EDITIONS[edition]), sn.Coverage()
    if edition == "biases":  # llama.cpp's own loader knows them too
        theirs.config.head_dim = theirs.config.hidden_size // theirs.config.num_attention_heads
    path = write_gguf(theirs, tmp_path / "toy.gguf")
    ours, whole = sn.load(path, report=report), sn.load(saved(theirs, tmp_path / "folder"))
    assert not report.ignored and ours.spec.to_json() == whole.spec.to_json()
    for name, value in whole.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert ours.folder == path and sn.load(tmp_path).spec == ours.spec  # the folder that holds the file will do


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1", "Q4_0"])
def test_few_bits_come_back_as_the_library_reads_them(kind: str, tmp_path: Path) -> None:
    theirs = llama(hidden_size=64, intermediate_size=96, tie_word_embeddings=True)
    tensors = read_published(write_gguf(theirs, tmp_path / "toy.gguf", kind)).tensors
    quant = gguf.GGMLQuantizationType[kind]
    for name, value in theirs.state_dict().items():
        if value.dim() == 2 and name != "lm_head.weight":
            heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
            stored = gguf.quants.dequantize(gguf.quants.quantize(permuted(value, heads) if heads else value.numpy(), quant), quant)
            assert tensors[name].dtype == torch.float32
            assert np.array_equal(permuted(tensors[name], heads) if heads else tensors[name].numpy(), stored), name


def test_llama3_scaling_is_read_from_the_table_it_left(tmp_path: Path) -> None:
    rope = EDITIONS["llama3"]["rope_parameters"] | {"original_max_position_embeddings": 8192, "rope_theta": 5e5}
    theirs, report = llama(rope_parameters=rope, max_position_embeddings=131_072), sn.Coverage()
    model = sn.load(write_gguf(theirs, tmp_path / "toy.gguf", rope_freqs=True), report=report)
    assert model.spec.to_json() == sn.load(saved(theirs, tmp_path / "folder")).spec.to_json()
    assert list(report.ignored) == ["rope_freqs.weight"]
    other = llama(rope_parameters=rope | {"high_freq_factor": 400.0}, max_position_embeddings=131_072)
    with pytest.raises(CheckpointError, match="not Llama 3's"):
        sn.load(write_gguf(other, tmp_path / "other.gguf", rope_freqs=True))


def test_a_ggufs_words_come_out_of_it(tmp_path: Path) -> None:
    files = read_published(write_gguf(llama(), tmp_path / "toy.gguf"))
    rebuilt, original = Tokenizer.from_str(files.tokenizer), words()[2]
    for text in ("a red apple, 12 of them", "小狗 🐶\n\tx", "<say>hi<end>"):
        assert rebuilt.encode(text).ids == original.encode(text).ids
        assert rebuilt.decode(rebuilt.encode(text).ids) == original.decode(original.encode(text).ids)
    assert files.template == "{{ messages }}" and files.special == {"bos": "<say>", "eos": "<end>"}
    other = read_published(write_gguf(llama(), tmp_path / "other.gguf", changes={"tokenizer.ggml.pre": "tekken"}))
    assert len(other.tensors) == len(files.tensors)  # its weights can be read all the same
    with pytest.raises(CheckpointError, match="tekken"):
        _ = other.tokenizer
    (tmp_path / "tokenizer.json").write_text("given")
    assert other.tokenizer == "given"


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_vocabulary_cuts_as_sentencepiece_does(prefix: bool, tmp_path: Path) -> None:
    """Llama 2's kind: pieces with scores, bytes for what is not among them."""
    import io

    import sentencepiece

    text = (Path(sn.__file__).parent / "evals" / "texts" / "alice.txt").read_text(encoding="utf-8")
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=made, vocab_size=600, model_type="bpe", byte_fallback=True, minloglevel=2,
        add_dummy_prefix=prefix, remove_extra_whitespaces=False, normalization_rule_name="identity", user_defined_symbols=["<tool>"])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    numbers = range(theirs.get_piece_size())
    kinds = [2 if theirs.is_unknown(i) else 3 if theirs.is_control(i) else 6 if theirs.is_byte(i) else 4 if theirs.id_to_piece(i) == "<tool>" else 1
             for i in numbers]
    meta = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": [theirs.id_to_piece(i) for i in numbers],
            "tokenizer.ggml.scores": np.array([theirs.get_score(i) for i in numbers], np.float32), "tokenizer.ggml.token_type": np.array(kinds),
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_space_prefix": prefix}
    ours = Tokenizer.from_str(rebuild_tokenizer(meta))
    for line in [*text.splitlines()[:40], "Zürich 漢字 🙂 and  two spaces", "x", "a call <tool> here"]:
        wanted = theirs.encode(line)
        assert ours.encode(line, add_special_tokens=False).ids == wanted, line
        assert ours.encode(line).ids == [1, *wanted]
        assert ours.decode(wanted) == theirs.decode(wanted)
    with pytest.raises(CheckpointError, match="as many of each"):
        rebuild_tokenizer(meta | {"tokenizer.ggml.scores": np.zeros(3)})


@pytest.mark.parametrize(("changes", "says"), [
    ({"general.architecture": "mamba"}, "'mamba'"), ({"llama.expert_count": 8}, "experts"), ({"llama.rope.dimension_count": 4}, "turns 4 of 8"),
    ({"llama.block_count": 0}, "block_count"), ({"llama.block_count": 1 << 31}, "num_hidden_layers"), ({"llama.block_count": 3}, "missing tensor"),
    ({"llama.attention.head_count": 0}, "head_count"), ({"llama.embedding_length": 64}, "wanted"),
    ({"llama.embedding_length": (1 << 32) - 4}, "built|wanted"), ({"general.alignment": 0}, "alignment"),
    ({"llama.feed_forward_length": "many"}, "feed_forward_length"),
    ({"llama.rope.scaling.type": "yarn", "llama.rope.scale_linear": 2}, "factor"),
])
def test_settings_that_make_no_model_are_named(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, sn.ConfigError), match=says):
        sn.load(write_gguf(llama(), tmp_path / "toy.gguf", changes=changes))


def refused(path: Path, data: bytes) -> None:
    """Refused with a sentence, in no time."""
    path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises((CheckpointError, sn.ConfigError)):
        sn.load(path.parent if path.suffix == ".bin" else path)
    assert time.perf_counter() - start < 5


def test_a_gguf_that_lies_is_refused(tmp_path: Path) -> None:
    data = write_gguf(llama(), tmp_path / "toy.gguf").read_bytes()
    path, name = tmp_path / "bad.gguf", b"blk.0.ffn_up.weight"
    info = data.index(name) + len(name)  # axes (u32), sizes (u64 each), format (u32), offset (u64)
    assert struct.unpack_from("<I", data, info)[0] == 2

    def with_(form: str, at: int, value: int) -> bytes:
        return data[:at] + struct.pack(f"<{form}", value) + data[at + struct.calcsize(f"<{form}") :]

    for bad in (
        with_("Q", 8, 1 << 60), with_("Q", 16, 1 << 60), with_("Q", 8, 60_000), with_("Q", 16, 60_000),  # counts of tensors and settings
        with_("Q", 24, 1 << 63), with_("Q", 24, len(data)),  # length of the first name
        with_("I", info, 1 << 31), with_("I", info, 4), with_("Q", info + 4, 1 << 62), with_("Q", info + 12, 1 << 40), with_("Q", info + 4, 0),
        with_("I", info + 20, 999), with_("Q", info + 24, 1 << 62), with_("Q", info + 24, len(data) - 8),
        with_("I", 4, 1), with_("I", 4, 1 << 24), b"", b"GGUF", b"PK\x03\x04" + data[4:], data[:-1], data[:-5000],
        data.replace(name, b"blk.0.ffn_up.weighs"), data.replace(b"blk.1.ffn_up.weight", name),
    ):
        refused(path, bad)
    items = data.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type")  # array (u32), of what (u32), how many (u64)
    assert struct.unpack_from("<II", data, items) == (9, 5)
    for bad in (with_("Q", items + 8, 1 << 60), with_("Q", items + 8, 1 << 23), with_("I", items + 4, 9), with_("I", items + 4, 77)):
        refused(path, bad)
    for at in range(0, data.index(name), 97):  # torn anywhere in the header
        refused(path, data[:at])


def test_tensors_may_not_share_their_bytes(tmp_path: Path) -> None:
    """A small file whose tensors all lie on the same bytes would grow without limit in memory."""
    data = bytearray(write_gguf(llama(), tmp_path / "toy.gguf").read_bytes())
    start = data.index(b"blk.0.ffn_up.weight") - 8
    info = struct.pack("<Q", 8) + b"again.%02d" + struct.pack("<IQQIQ", 2, 32, 48, 0, 0)
    data[start:start] = b"".join(info % i for i in range(40))
    data[8:16] = struct.pack("<Q", struct.unpack_from("<Q", data, 8)[0] + 40)
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match="several tensors"):
        read_published(tmp_path / "bad.gguf")


def fuzzed(path: Path, data: bytes, header: int, count: int = 150) -> None:
    """Bytes changed at random in a header: a model, or a sentence."""
    generator = random.Random(0)
    for _ in range(count):
        bad = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            bad[generator.randrange(header)] = generator.choice([0, 1, 127, 255, generator.randrange(256)])
        path.write_bytes(bad)
        try:
            sn.load(path.parent if path.suffix == ".bin" else path)
            _ = read_published(path.parent if path.suffix == ".bin" else path).tokenizer
        except (CheckpointError, sn.ConfigError):
            pass


def test_a_gguf_with_random_damage_is_read_or_refused(tmp_path: Path) -> None:
    data = write_gguf(llama(), tmp_path / "toy.gguf").read_bytes()
    fuzzed(tmp_path / "bad.gguf", data, data.index(b"tokenizer.ggml.tokens"))
    tail = data.index(b"tokenizer.ggml.merges")
    start = data.index(b"tokenizer.chat_template", tail)
    generator = random.Random(1)
    for _ in range(100):  # and in the list of tensors, which stands behind the words
        bad = bytearray(data)
        bad[generator.randrange(start, start + 2000)] = generator.randrange(256)
        (tmp_path / "bad.gguf").write_bytes(bad)
        try:
            sn.load(tmp_path / "bad.gguf")
        except (CheckpointError, sn.ConfigError):
            pass


def write_ctranslate2(theirs: Any, folder: Path, dtype: str = "float32", config: dict[str, Any] | None = None) -> Path:
    """A toy Whisper as CTranslate2's converter lays it out."""
    state, out = {name: value.numpy() for name, value in theirs.state_dict().items()}, {}

    def linear(ours: str, *names: str) -> None:
        weight, bias = np.concatenate([state[f"{name}.weight"] for name in names]), None
        biases = [state.get(f"{name}.bias", np.zeros(len(state[f"{name}.weight"]), np.float32)) for name in names]
        bias = np.concatenate(biases)
        if dtype == "int8":
            scale = 127 / np.abs(weight).max(1)
            out[f"{ours}/weight"], out[f"{ours}/weight_scale"] = np.rint(weight * scale[:, None]).astype(np.int8), scale.astype(np.float32)
        else:
            out[f"{ours}/weight"] = weight.astype(dtype)
        out[f"{ours}/bias"] = bias.astype(np.float32 if dtype == "int8" else dtype)

    def plain(ours: str, name: str, suffixes: tuple[str, str] = ("gamma", "beta")) -> None:
        for suffix, other in zip(suffixes, ("weight", "bias"), strict=True):
            out[f"{ours}/{suffix}"] = state[f"{name}.{other}"].astype(np.float32 if dtype == "int8" else dtype)

    for side in ("encoder", "decoder"):
        for i in range(theirs.config.to_dict()[f"{side}_layers"]):
            layer, place = f"model.{side}.layers.{i}", f"{side}/layer_{i}"
            plain(f"{place}/self_attention/layer_norm", f"{layer}.self_attn_layer_norm")
            linear(f"{place}/self_attention/linear_0", *(f"{layer}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{place}/self_attention/linear_1", f"{layer}.self_attn.out_proj")
            if side == "decoder":
                plain(f"{place}/attention/layer_norm", f"{layer}.encoder_attn_layer_norm")
                linear(f"{place}/attention/linear_0", f"{layer}.encoder_attn.q_proj")
                linear(f"{place}/attention/linear_1", f"{layer}.encoder_attn.k_proj", f"{layer}.encoder_attn.v_proj")
                linear(f"{place}/attention/linear_2", f"{layer}.encoder_attn.out_proj")
            plain(f"{place}/ffn/layer_norm", f"{layer}.final_layer_norm")
            linear(f"{place}/ffn/linear_0", f"{layer}.fc1")
            linear(f"{place}/ffn/linear_1", f"{layer}.fc2")
        plain(f"{side}/layer_norm", f"model.{side}.layer_norm")
        out[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        out[f"{side}/num_heads"] = np.int16(theirs.config.to_dict()[f"{side}_attention_heads"])
    for i in (1, 2):
        plain(f"encoder/conv{i}", f"model.encoder.conv{i}", ("weight", "bias"))
    out["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    out |= {"decoder/pre_norm": np.int8(1), "decoder/activation": np.int8(3), "decoder/scale_embeddings": np.int8(0)}
    kinds = ["float32", "int8", "int16", "int32", "float16"]

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(out))
    for name, value in sorted(out.items()):
        value = np.asarray(value)
        data += text(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", kinds.index(value.dtype.name), value.nbytes) + value.tobytes()
    data += struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(data)
    said = {"alignment_heads": [[2, 1], [0, 3]], "suppress_ids": [5, 6], "suppress_ids_begin": [7], "lang_ids": [8, 9]}
    (folder / "config.json").write_text(json.dumps(said if config is None else config))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_ctranslate2_folder_is_the_folder_it_was_made_of(dtype: str, tmp_path: Path) -> None:
    theirs, report = whisper(), sn.Coverage()
    folder = write_ctranslate2(theirs, tmp_path / "made", dtype)
    ours, whole = sn.load(folder, report=report), sn.load(saved(theirs, tmp_path / "folder"))
    assert ours.spec == whole.spec
    assert {name.rsplit(".", 2)[-2] for name in report.ignored} == {"embed_positions", "k_proj"}
    for name, value in whole.state_dict().items():
        close = {"float32": 0, "float16": 1e-3, "int8": float(value.abs().max()) / 250}[dtype]
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=close, atol=close, msg=name)
    config = read_published(folder).config
    assert (config["suppress_tokens"], config["begin_suppress_tokens"], config["lang_ids"]) == ([5, 6], [7], [8, 9])


def test_what_ctranslate2_itself_writes_is_read(tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    theirs = whisper()
    folder = saved(theirs, tmp_path / "folder")
    spec = ctranslate2.specs.WhisperSpec(2, 2, 3, 4)
    loader = ctranslate2.converters.transformers.WhisperLoader()
    loader.set_conv1d(spec.encoder.conv1, theirs.model.encoder.conv1)
    loader.set_conv1d(spec.encoder.conv2, theirs.model.encoder.conv2)
    loader.set_common_layers(spec.encoder, theirs.model.encoder)
    for layer, other in zip(spec.encoder.layer, theirs.model.encoder.layers, strict=True):
        loader.set_attention(layer.self_attention, other.self_attn, self_attention=True)
        loader.set_layer_norm(layer.self_attention.layer_norm, other.self_attn_layer_norm)
        loader.set_linear(layer.ffn.linear_0, other.fc1)
        loader.set_linear(layer.ffn.linear_1, other.fc2)
        loader.set_layer_norm(layer.ffn.layer_norm, other.final_layer_norm)
    loader.set_decoder(spec.decoder, theirs.model.decoder)
    loader.set_linear(spec.decoder.projection, theirs.proj_out)
    spec.register_vocabulary([str(i) for i in range(60)])
    spec.validate()
    spec.optimize()
    (tmp_path / "made").mkdir()
    spec.save(str(tmp_path / "made"))
    ours, whole = sn.load(tmp_path / "made"), sn.load(folder)
    for name, value in whole.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_a_ctranslate2_file_that_lies_is_refused(tmp_path: Path) -> None:
    data = (write_ctranslate2(whisper(), tmp_path / "bad") / "model.bin").read_bytes()
    path, name = tmp_path / "bad" / "model.bin", b"decoder/embeddings/weight\0"
    info = data.index(name) + len(name)  # axes (u8), sizes (u32 each), format (u8), bytes (u32)

    def with_(form: str, at: int, value: int) -> bytes:
        return data[:at] + struct.pack(f"<{form}", value) + data[at + struct.calcsize(f"<{form}") :]

    for bad in (with_("I", 22, 1 << 31), with_("I", 22, 60_000), with_("B", info, 255), with_("I", info + 1, 1 << 31), with_("B", info + 9, 9),
                with_("I", info + 10, 1 << 31), with_("I", info + 10, 8), with_("I", 0, 5), data[:-1], data[: len(data) // 2], data + b"x",
                data.replace(b"decoder/layer_norm/gamma", b"decoder/layer_norm/gamme"), data.replace(b"WhisperSpec", b"WhisparSpec"),
                data.replace(b"decoder/pre_norm\0\0\x01\x01\0\0\0\x01", b"decoder/pre_norm\0\0\x01\x01\0\0\0\0"), b"", b"\x80\x04."):
        assert bad != data
        refused(path, bad)
    for at in range(0, info, 97):
        refused(path, data[:at])
    fuzzed(path, data, 2000)
    path.write_bytes(data)
    (path.parent / "config.json").write_text("{")
    refused(path, data)


def test_int16_matrices_are_refused(tmp_path: Path) -> None:
    data = (write_ctranslate2(whisper(), tmp_path / "bad", "float16") / "model.bin").read_bytes()
    at = data.index(b"decoder/layer_0/ffn/linear_0/weight\0") + 36
    assert data[at + 9] == 4  # float16
    refused(tmp_path / "bad" / "model.bin", data[: at + 9] + b"\x02" + data[at + 10 :])


@pytest.mark.parametrize("data", [b"\x80\x04\x95", b"PK\x03\x04" + bytes(64), struct.pack("<Q", 1 << 62) + b"{}", b"",
                                  struct.pack("<Q", 2) + b"{}" + b"x"])
def test_what_is_no_safetensors_file_is_refused(data: bytes, tmp_path: Path) -> None:
    """A pickle, a zip of torch's, and headers that lie, under the name of a safetensors file."""
    saved(llama(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="model.safetensors"):
        sn.load(tmp_path)


@pytest.mark.parametrize(("change", "says"), [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"), ({"hidden_size": "wide"}, "can be built"), ({"num_attention_heads": 0}, "heads 0"),
    ({"hidden_size": -32}, "can be built"), ({"hidden_size": 1 << 62, "head_dim": 8}, "can be built"), ({"num_hidden_layers": 2.0}, "of kind"),
    ({"rope_parameters": "yarn"}, "of kind"),
])
def test_settings_that_lie_are_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises((CheckpointError, sn.ConfigError), match=says):
        sn.load(folder)


def test_an_index_that_lies_is_refused(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    (folder / "model.safetensors").unlink()  # beside a whole model its index is not looked at
    for index, says in (("{", "not JSON"), ("{}", "weight_map"), ('{"weight_map": {"a": 3}}', "weight_map"),
                        ('{"weight_map": {"a": "b.safetensors"}}', "missing")):
        (folder / "model.safetensors.index.json").write_text(index)
        with pytest.raises(CheckpointError, match=says):
            sn.load(folder)


def test_words_beside_safetensors(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    assert (read_published(folder).tokenizer, read_published(folder).template) == (None, None)
    (folder / "tokenizer.json").write_text(tokenizer().to_json())
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None,
        "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]}))
    files = read_published(folder)
    assert files.tokenizer == tokenizer().to_json() and files.template == "yes" and files.special == {"bos": "<s>", "eos": "</s>"}
    (folder / "chat_template.jinja").write_text("newer")
    assert read_published(folder).template == "newer"


def test_tensors_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    theirs = llama()
    path = saved(theirs, tmp_path) / "model.safetensors"
    tensors = read_published(tmp_path).tensors
    assert len(tensors) == len(theirs.state_dict()) and "surprise" not in tensors
    value = dict(theirs.state_dict())["model.norm.weight"]
    assert torch.equal(tensors["model.norm.weight"], value)
    assert path.is_file()


def test_what_is_nothing_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="safetensors, CTranslate2, .*GGUF"):
        sn.load(tmp_path)
    with pytest.raises(CheckpointError, match="neither"):
        sn.load(tmp_path / "nowhere")
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="name one of them"):
        sn.load(tmp_path)


@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny-en"])
def test_published_whispers_fill_every_parameter(name: str) -> None:
    if not catalog.ready(name):
        pytest.skip(f"needs: sensorium pull {name}")
    files, report = read_published(catalog.find(name)), sn.Coverage()
    model = sn.load(catalog.find(name), dtype=torch.float16, report=report)
    assert set(report.used) | set(report.ignored) == set(files.tensors)
    assert len(model.spec.fuse["cross"].timing) == 8 and files.special["eos"] in files.tokenizer
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert transformers.WhisperConfig(**{k: v for k, v in files.config.items() if k != "model_type"}).d_model == model.spec.decoder.width
