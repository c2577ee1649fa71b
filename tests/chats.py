"""Tokenizers and chat templates of the published kinds, small, for tests."""

from __future__ import annotations

import json

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

import sensorium as sn
from sensorium.codecs.chat import ChatTemplate
from sensorium.zoo.llama import llama, llama_decoder

WORDS = 4 * [
    "You are a helpful assistant.", "What is the capital of France?", "The capital of France is Paris.", "你好，世界", "user system [] {} 0123"]

SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML = (
    "{%- for message in messages %}\n    {{- '<|im_start|>' ~ message.role ~ '\\n' }}\n    {{- message.content | trim }}\n"
    "    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")
THINKS = """{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not ns.done is defined %}{%- set ns.last = index %}{%- break %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
        {{- '<|im_start|>assistant\\n' }}{% generation %}{{- content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif %}"""
HEADERS = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday: " + strftime_now("%Y") + "\\n\\n" + system + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
INST = """{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}{{- '[INST] ' + message['content'] + ' [/INST]' }}{%- endif %}
    {%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}
{%- endfor %}"""


def byte_level() -> tokenizers.Tokenizer:
    """Like SmolLM2's, Llama 3's and Qwen's: pairs of bytes, special tokens, and two that are added but not called special."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    inner = tokenizers.Tokenizer.from_str(sn.Tokenizer.train(WORDS, 340, specials).to_json())
    inner.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return inner


def pieces(legacy: bool) -> tokenizers.Tokenizer:
    """Like Llama 2's and Mistral's: word pieces that begin with a mark for the blank, and bytes where no piece fits."""
    alphabet = sorted({letter for word in WORDS for letter in word if letter.isascii()} | {"▁"})
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    words = [word for word in WORDS if word.isascii()]
    inner.train_from_iterator(words, trainers.BpeTrainer(
        vocab_size=360, special_tokens=specials, initial_alphabet=alphabet, limit_alphabet=80, show_progress=False))
    data = json.loads(inner.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < 3]
    inner = tokenizers.Tokenizer.from_str(json.dumps(data))
    if legacy:
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.pre_tokenizer = None
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return inner


def word_pieces() -> tokenizers.Tokenizer:
    """Like BERT's."""
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(WORDS, trainers.WordPieceTrainer(
        vocab_size=160, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    inner.decoder = decoders.WordPiece()
    inner.enable_truncation(8)
    inner.enable_padding(length=8)
    return inner


TOKENIZERS = {"bytes": byte_level, "legacy": lambda: pieces(True), "first": lambda: pieces(False)}
KINDS = {  # name: (tokenizer, template, names of special tokens)
    "smol": ("bytes", SMOL, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
    "chatml": ("bytes", CHATML, {"eos_token": "<|im_end|>"}),
    "thinks": ("bytes", THINKS, {"eos_token": "<|im_end|>"}),
    "headers": ("bytes", HEADERS, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "inst": ("first", INST, {"bos_token": "<s>", "eos_token": "</s>"}),
    "inst legacy": ("legacy", INST, {"bos_token": "<s>", "eos_token": "</s>"}),
}


def speaker(seed: int = 0, kind: str = "smol", context: int = 2048) -> tuple[sn.ModelNet, sn.Codecs]:
    """A model that says anything, in float64 so that how it is read changes nothing, and its codecs."""
    which, source, special = KINDS[kind]
    text = sn.Tokenizer.from_text(TOKENIZERS[which]().to_str())
    model = llama(llama_decoder(32, 2, 4, 48, kv_heads=2), text.vocab, tied=True).build(seed=seed, dtype=torch.float64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # far from even odds
    return model, sn.Codecs(text=text, context=context, end=special["eos_token"], template=ChatTemplate(source, special))
