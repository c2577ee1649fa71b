"""Published folders in several editions: which file counts is what transformers 5.23.0 does, asked in the same test."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import sensorium as sn
from sensorium.checkpoint import read_published
from sensorium.desk import Codecs
from sensorium.engine import write_texts
from sensorium.types import CheckpointError

from .chats import SMOL, byte_level
from .parity.reference import saved, tensors
from .parity.test_bert import reference as bert
from .parity.test_deepseek import reference as deepseek
from .parity.test_llama import reference as llama
from .parity.test_llava import reference as llava
from .test_formats import write_gguf


def write(folder: Path, name: str, value: Any) -> None:
    """A file of JSON, or of text."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def theirs(folder: Path) -> dict[str, torch.Tensor]:
    """What transformers reads."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()


def assert_same_weights(folder: Path) -> None:
    """Every tensor as transformers reads it."""
    wanted, stored = theirs(folder), read_published(folder).tensors
    assert set(stored) == set(wanted)
    for name, value in wanted.items():
        assert torch.equal(stored[name], value), name


@pytest.mark.parametrize("stray", ["original", "consolidated", "model.fp16", "adapter_model", "anything"])
def test_a_whole_model_is_read_alone(stray: str, tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    save_file({name: torch.full_like(value, 0.5) for name, value in tensors(folder).items()}, folder / f"{stray}.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "consolidated.00.pth").write_bytes(b"a pickle")
    assert_same_weights(folder)
    assert sn.load(folder) is not None


def test_a_whole_model_comes_before_the_index_of_shards(tmp_path: Path) -> None:
    """A save in shards over a whole one leaves the old file, which then loads; so does one whose shards are gone."""
    saved(llama(), tmp_path)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path).float().save_pretrained(tmp_path / "other", max_shard_size="8KB")
    for path in (tmp_path / "other").glob("model*safetensors*"):
        path.rename(tmp_path / path.name)
    save_file({name: value + 1 for name, value in tensors_of(tmp_path / "model.safetensors").items()}, tmp_path / "model.safetensors",
              {"format": "pt"})
    assert_same_weights(tmp_path)
    for path in tmp_path.glob("model-*.safetensors"):
        path.unlink()
    assert_same_weights(tmp_path)


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """What a file holds."""
    return {name: value.clone() for name, value in sn.checkpoint.read_tensors(path).items()}


def test_the_file_that_the_settings_name_comes_first(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    save_file({name: value + 1 for name, value in tensors(folder).items()}, folder / "better.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write(folder, "config.json", config | {"transformers_weights": "better.safetensors"})
    assert_same_weights(folder)
    write(folder, "config.json", config | {"transformers_weights": "../better.safetensors"})
    with pytest.raises(CheckpointError, match="name of a file"):
        sn.load(folder)


def test_files_of_which_nothing_says_which_is_the_model_are_named(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    stored = tensors(folder)
    (folder / "model.safetensors").rename(folder / "first.safetensors")
    assert len(sn.load(folder).state_dict()) > 0  # the only one
    save_file(stored, folder / "second.safetensors")
    with pytest.raises(CheckpointError, match="first.safetensors, second.safetensors, and nothing says"):
        sn.load(folder)
    for name in ("first", "second"):
        (folder / f"{name}.safetensors").unlink()
    names = sorted(stored)
    save_file({name: stored[name] for name in names[:5]}, folder / "part-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="lacks part-00002-of-00002.safetensors"):
        sn.load(folder)
    save_file({name: stored[name] for name in names[5:]}, folder / "part-00002-of-00002.safetensors")
    assert len(sn.load(folder).state_dict()) > 0


def test_safetensors_come_before_a_gguf_beside_them(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    write_gguf(llama(tie_word_embeddings=True), folder / "other.gguf")
    assert not sn.load(folder).spec.heads["text"].tied and sn.load(folder / "other.gguf").spec.heads["text"].tied


TEMPLATES = {  # file: how it says the template
    "chat_template.jinja": lambda text: text, "additional_chat_templates/default.jinja": lambda text: text,
    "chat_template.json": lambda text: {"chat_template": text}, "processor_config.json": lambda text: {"chat_template": text},
    "tokenizer_config.json": lambda text: {"chat_template": text, "tokenizer_class": "PreTrainedTokenizerFast"}}


@pytest.mark.parametrize("files", [
    ("tokenizer_config.json",), ("chat_template.jinja",), ("chat_template.json", "tokenizer_config.json"), ("chat_template.jinja",
                                                                                                            "chat_template.json"),
    ("chat_template.jinja", "tokenizer_config.json"), ("additional_chat_templates/default.jinja", "tokenizer_config.json"),
    ("additional_chat_templates/default.jinja", "chat_template.jinja")], ids=" ".join)
@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # transformers leaves its files open
def test_the_chat_template_that_counts(files: tuple[str, ...], sees: bool, tmp_path: Path) -> None:
    folder = saved(llava() if sees else llama(), tmp_path)
    write(folder, "tokenizer.json", byte_level().to_str())
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    for file in files:
        write(folder, file, TEMPLATES[file](f"from {file}"))
    if sees:
        write(folder, "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"})
        said = transformers.LlavaProcessor.get_processor_dict(folder)[0].get("chat_template")  # what is left to the tokenizer it does not say
    else:
        said = None
    said = said or transformers.AutoTokenizer.from_pretrained(folder).chat_template
    assert read_published(folder).template == (said["default"] if isinstance(said, dict) else said)


def test_templates_without_a_default_are_named(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    write(folder, "additional_chat_templates/rag.jinja", "x")
    with pytest.raises(CheckpointError, match="rag, and none called default"):
        read_published(folder)


def test_a_model_that_sees_may_have_its_template_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = saved(llava(), tmp_path)
    write(folder, "tokenizer.json", byte_level().to_str())
    write(folder, "preprocessor_config.json", {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}})
    write(folder, "chat_template.json", {"chat_template": SMOL})
    assert Codecs.load(folder).template.source == SMOL and Codecs.load(folder).end == "<|im_end|>"


def test_of_two_settings_of_pictures_the_inner_ones_count(tmp_path: Path) -> None:
    """transformers 5 writes them into processor_config.json, and reads them there first."""
    folder = saved(llava(), tmp_path)
    square = {"size": {"height": 16, "width": 16}, "image_processor_type": "SiglipImageProcessor"}
    write(folder, "preprocessor_config.json", square | {"image_mean": [0.1] * 3})
    assert read_published(folder).pictures["image_mean"] == [0.1] * 3
    write(folder, "processor_config.json", {"image_processor": square | {"image_mean": [0.2] * 3}})
    wanted = transformers.SiglipImageProcessor.get_image_processor_dict(folder)[0]["image_mean"]
    assert read_published(folder).pictures["image_mean"] == wanted == [0.2] * 3


def test_tokens_that_stand_beside_the_tokenizer_are_its_own(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    inner = byte_level()
    number = inner.get_vocab_size()
    write(folder, "tokenizer.json", inner.to_str())
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {
        str(number): {"content": "<|tool|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}}})
    ours, wanted = Codecs.load(folder).text, transformers.AutoTokenizer.from_pretrained(folder)
    text = "What<|tool|>is"
    assert ours.encode(text, special=True) == wanted(text, add_special_tokens=False).input_ids and number in ours.encode(text, special=True)


@pytest.mark.parametrize("listed", [False, True])
def test_which_file_says_what_a_special_token_is(listed: bool, tmp_path: Path) -> None:
    """The map's word counts, unless the tokenizer's own settings list all added tokens."""
    folder = saved(llama(), tmp_path)
    inner = byte_level()
    write(folder, "tokenizer.json", inner.to_str())
    decoder = {str(number): {"content": token.content, "special": token.special} for number, token in inner.get_added_tokens_decoder().items()}
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "a"}
          | ({"added_tokens_decoder": decoder} if listed else {}))
    write(folder, "special_tokens_map.json", {"pad_token": "b"})
    assert read_published(folder).special["pad"] == transformers.AutoTokenizer.from_pretrained(folder).pad_token == ("a" if listed else "b")


def test_a_template_may_write_any_token_that_has_a_name(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    write(folder, "tokenizer.json", byte_level().to_str())
    source = "{{ bos_token }}{% for m in messages %}{{ think_token }}{{ m.content }}{% endfor %}"
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": source, "bos_token": "<|begin_of_text|>",
                                            "extra_special_tokens": {"think_token": "<think>"}})
    wanted = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert Codecs.load(folder).template.render([sn.user("hi")]) == wanted == "<|begin_of_text|><think>hi"


@pytest.mark.parametrize("files", [
    {"config.json": 1, "generation_config.json": [2, 0]}, {"config.json": [1, 0]}, {"generation_config.json": 0},
    {"tokenizer_config.json": "<|endoftext|>"}, {"special_tokens_map.json": {"content": "<|endoftext|>"}}, {"config.json": 0}, {"config.json": 40}])
def test_every_end_token_that_any_file_names_ends_an_answer(files: dict[str, Any], tmp_path: Path) -> None:
    """All weights are zero but what makes the scores of one token the highest: that is all it ever says."""
    said = 40 if files == {"config.json": 40} else 0  # any token of the vocabulary may end an answer, not only a special one
    model = llama(vocab_size=byte_level().get_vocab_size(), num_hidden_layers=1, eos_token_id=7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name in ("model.embed_tokens.weight", "model.norm.weight") else 0.0)
        model.lm_head.weight[said] = 1.0
    folder = saved(model, tmp_path)
    write(folder, "tokenizer.json", byte_level().to_str())
    for name in ("config.json", "generation_config.json"):
        write(folder, name, json.loads((folder / name).read_text()) | {"eos_token_id": files.get(name, 7)})
    write(folder, "tokenizer_config.json", {"chat_template": SMOL, "eos_token": files.get("tokenizer_config.json", "<|im_end|>")})
    write(folder, "special_tokens_map.json", {"eos_token": files.get("special_tokens_map.json", "<|im_end|>")})
    from sensorium.desk import Desk

    ours = sn.load(folder)
    assert said in Desk(ours).ends
    batch = Desk(ours).packer.pack([Desk(ours).prompt([sn.user("What is this?")], "text")], alone=True)
    assert sn.generate.continue_text(ours, batch, sn.generate.Sampling(max_tokens=5, end=Desk(ours).ends)) == [[]]
    assert write_texts(ours, [["What is this?"]], max_tokens=5) == [""]


def test_a_gguf_in_parts_is_read_from_any_of_them(tmp_path: Path) -> None:
    """As the ``gguf`` library writes them: 21 tensors, 8 in each part, the settings in the first."""
    (tmp_path / "split").mkdir()
    model = llama()
    write_gguf(model, tmp_path / "whole.gguf")
    write_gguf(model, tmp_path / "split" / "toy.gguf", split=8)
    paths = sorted((tmp_path / "split").glob("*.gguf"))
    assert [path.name for path in paths] == [f"toy-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    whole = sn.load(tmp_path / "whole.gguf")
    for path in (*paths, paths[0].parent):
        model = sn.load(path)
        assert model.spec == whole.spec
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())
        assert read_published(path).tokenizer == read_published(tmp_path / "whole.gguf").tokenizer
    paths[1].rename(tmp_path / "away.gguf")
    with pytest.raises(CheckpointError, match="one of 3 parts, and toy-00002-of-00003.gguf is not beside it"):
        sn.load(paths[2])
    with pytest.raises(CheckpointError, match="wanted a name that ends in -00001-of-00003.gguf"):
        sn.load(tmp_path / "away.gguf")
    paths[0].rename(paths[1])
    paths[2].rename(paths[0])
    (tmp_path / "away.gguf").rename(paths[2])
    with pytest.raises(CheckpointError):  # the parts in a wrong order: the first has no settings
        sn.load(paths[0])


def test_end_tokens_of_a_gguf(tmp_path: Path) -> None:
    path = write_gguf(llama(), tmp_path / "toy.gguf", changes={"tokenizer.ggml.eot_token_id": 1, "tokenizer.ggml.eom_token_id": 0})
    codecs = Codecs.load(path)
    assert {codecs.text.number(name) for name in (codecs.end, *codecs.ends)} == {3, 1, 0}


def test_settings_of_a_gguf_that_are_not_built_are_refused(tmp_path: Path) -> None:
    with pytest.raises(sn.ConfigError, match="header of a GGUF sets llama.attention.sliding_window to 16"):
        sn.load(write_gguf(llama(), tmp_path / "toy.gguf", changes={"llama.attention.sliding_window": 16}))
    with pytest.raises(CheckpointError, match="twice, by 'linear' and by a table"):
        sn.load(write_gguf(llama(rope_parameters=dict(rope_type="linear", rope_theta=5e3, factor=4.0)), tmp_path / "two.gguf", rope_freqs=True))


def test_fp8_in_blocks_is_multiplied_by_its_scales(tmp_path: Path) -> None:
    """As DeepSeek-V3 is published: what is stored times ``weight_scale_inv`` of its block; here blocks of 16 x 16, cut at the edges."""
    folder = saved(deepseek("v3"), tmp_path)
    stored, wanted = tensors(folder), {}
    for name, value in list(stored.items()):
        if value.dim() == 2 and "proj" in name:
            rows, columns = (-(-size // 16) for size in value.shape)
            scale = torch.rand(rows, columns, generator=torch.Generator().manual_seed(len(name))) + 0.5
            spread = scale.repeat_interleave(16, 0)[: value.shape[0]].repeat_interleave(16, 1)[:, : value.shape[1]]
            stored[name] = (value / spread).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"], wanted[name] = scale, stored[name].float() * spread
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}
    write(folder, "config.json", config | {"quantization_config": fp8})
    files = read_published(folder)
    assert wanted and all(torch.equal(files.tensors[name], value) for name, value in wanted.items())
    assert not any(name.endswith("_scale_inv") for name in files.tensors)
    assert sn.load(folder) is not None
    for said, error in (({**fp8, "weight_block_size": [8, 8]}, "wanted .* for blocks of"), ({**fp8, "activation_scheme": "static"},
                                                                                            "activation_scheme"),
                        ({"quant_method": "gptq", "bits": 4}, "stored by 'gptq'"), ({"quant_method": "mxfp4"}, "stored by 'mxfp4'")):
        write(folder, "config.json", config | {"quantization_config": said})
        with pytest.raises((CheckpointError, sn.ConfigError), match=error):
            sn.load(folder)


def test_other_positions_than_sinusoids_are_refused(tmp_path: Path) -> None:
    from .parity.test_whisper import reference as whisper

    folder = saved(whisper(), tmp_path)
    stored = {name: value.half() for name, value in tensors(folder).items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    assert sn.load(folder) is not None  # but for rounding they are what they should be
    stored["model.encoder.embed_positions.weight"] = stored["model.encoder.embed_positions.weight"] + 0.1
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="embed_positions.weight is stored with other numbers"):
        sn.load(folder)


@pytest.mark.parametrize(("pooling", "pool"), [({"pooling_mode_mean_tokens": True}, "mean"), ({"pooling_mode_cls_token": True}, "first"),
                                               ({"pooling_mode": "cls"}, "first"), ({"pooling_mode_max_tokens": True}, "pools by max"),
                                               ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "pools by cls and mean")])
def test_how_sentences_are_pooled(pooling: dict[str, Any], pool: str, tmp_path: Path) -> None:
    """As sentence-transformers writes modules.json and 1_Pooling/config.json."""
    folder = saved(bert(), tmp_path)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write(folder, "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
                                   for i, (path, name) in enumerate(steps)])
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 24, "pooling_mode_mean_sqrt_len_tokens": False} | pooling)
    if not pool.startswith("pools"):
        assert sn.load(folder).spec.align["text"].pool == pool
        return
    with pytest.raises(CheckpointError, match=pool):
        sn.load(folder)
    write(folder, "modules.json", [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    with pytest.raises(CheckpointError, match="step Dense"):
        sn.load(folder)


def test_aliases_of_ctranslate2(tmp_path: Path) -> None:
    """CTranslate2 4.8.5 writes equal variables once, and the others as aliases of it: here two biases of zeros, under the name of one."""
    from .parity.test_whisper import reference as whisper
    from .test_formats import write_ctranslate2

    model = whisper()
    with torch.no_grad():
        for side in (model.model.encoder, model.model.decoder):
            side.layers[0].fc1.bias.zero_()
    model.model.decoder.layers[0].fc1 = torch.nn.Linear(24, 40)  # as wide as the encoder's
    model.model.decoder.layers[0].fc1.bias.data.zero_()
    folder = write_ctranslate2(model, tmp_path)
    data = (folder / "model.bin").read_bytes()

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    name, kept = "decoder/layer_0/ffn/linear_0/bias", "encoder/layer_0/ffn/linear_0/bias"
    start = data.index(text(name))
    size = len(text(name)) + 1 + 4 + 5 + 40 * 4
    assert data[start + size - 160 : start + size] == bytes(160)
    (count,) = struct.unpack_from("<I", data, at := 4 + len(text("WhisperSpec")) + 4)
    data = data[:at] + struct.pack("<I", count - 1) + data[at + 4 : start] + data[start + size :]
    last = data.rindex(text("decoder/projection/weight")) - 4
    data = data[:last] + struct.pack("<I", 2) + data[last + 4 :] + text(name) + text(kept)
    (folder / "model.bin").write_bytes(data)
    tensor = read_published(folder).tensors["model.decoder.layers.0.fc1.bias"]
    assert tensor.shape == (40,) and not tensor.any()
    (folder / "model.bin").write_bytes(data.replace(text(name) + text(kept), text(name) + text("encoder/layer_9/ffn/linear_0/bias")))
    with pytest.raises(CheckpointError, match="the alias 'decoder/layer_0/ffn/linear_0/bias' is of 'encoder/layer_9"):
        read_published(folder)
