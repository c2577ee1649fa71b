"""Speed of the published models that hear, think and embed, each in turns with a peer that has the same weights. Run through bench/run.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
TEXT = ROOT / "sensorium" / "evals" / "texts"
PROMPT, NEW, PREFILL = 32, 64, 128


def in_turns(works: dict[str, Callable[[], float]], rounds: int = 5) -> dict[str, float]:
    """Median of what each work returns, taken in turns so that a noisy machine disturbs all alike."""
    for work in works.values():
        work()
    seen: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seen[name].append(work())
    return {name: statistics.median(values) for name, values in seen.items()}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bandwidth() -> float:
    """Bytes a second that all threads together read from memory: the best of five sums over 512 MB."""
    block = torch.ones(128 << 20, dtype=torch.float32)
    return block.nbytes / min(seconds(block.sum) for _ in range(5))


def reference_llama(dtype: torch.dtype) -> Any:
    """transformers' Llama with the same dequantised tensors."""
    import transformers

    from sensorium.catalog import find
    from sensorium.checkpoint import read_published

    files = read_published(find("smollm2-135m-instruct"))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{k: v for k, v in files.config.items() if k != "architectures"}))
    state = {name: value.float() for name, value in files.tensors.items()}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    return model.eval().to(dtype)


def llama_cpp() -> Any:
    """llama.cpp on the same file with the same threads."""
    from llama_cpp import Llama

    from sensorium.catalog import find

    return Llama(str(find("smollm2-135m-instruct") / "model.gguf"), n_ctx=1024, n_threads=torch.get_num_threads(),
                 n_threads_batch=torch.get_num_threads(), verbose=False)


def prompt_ids(count: int) -> list[int]:
    from sensorium.engine import codecs_of
    from sensorium.named import open_model

    text = (TEXT / "alice.txt").read_text(encoding="utf-8")
    return codecs_of(open_model("smollm2-135m-instruct")).text.encode(text)[:count]


def smollm2() -> dict[str, float]:
    """SmolLM2-135M at batch 1: tokens a second after a prompt of 32, and seconds to read 128, beside llama.cpp (Q4_1) and transformers."""
    from sensorium.fused import open_reader
    from sensorium.named import open_model

    model, other = open_model("smollm2-135m-instruct"), llama_cpp()
    plain, half = reference_llama(torch.float32), reference_llama(torch.bfloat16)
    ids, long = prompt_ids(PROMPT), prompt_ids(PREFILL)
    reader = open_reader(model, rows=1, room=1024)

    def ours() -> float:
        reader.rewind(0)
        token = reader.extend(torch.tensor([ids])).argmax(-1)
        start = time.perf_counter()
        for _ in range(NEW):
            token = reader.extend(token[:, None]).argmax(-1)
        return NEW / (time.perf_counter() - start)

    def cpp() -> float:
        other.reset()
        other.eval(ids)
        token = other.sample(temp=0.0)
        start = time.perf_counter()
        for _ in range(NEW):
            other.eval([token])
            token = other.sample(temp=0.0)
        return NEW / (time.perf_counter() - start)

    @torch.inference_mode()
    def theirs(net: Any) -> float:
        out = net(torch.tensor([ids]), use_cache=True)
        start = time.perf_counter()
        for _ in range(NEW):
            out = net(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
        return NEW / (time.perf_counter() - start)

    def read_ours() -> None:
        reader.rewind(0)
        reader.extend(torch.tensor([long]))

    def read_cpp() -> None:
        other.reset()
        other.eval(long)

    def read_theirs(net: Any) -> None:
        with torch.inference_mode():
            net(torch.tensor([long]), use_cache=True, logits_to_keep=1)

    decode = in_turns({"ours": ours, "llama_cpp": cpp, "transformers_float32": lambda: theirs(plain), "transformers_bfloat16": lambda: theirs(half)})
    prefill = in_turns({"ours": lambda: seconds(read_ours), "llama_cpp": lambda: seconds(read_cpp),
                        "transformers_float32": lambda: seconds(lambda: read_theirs(plain)),
                        "transformers_bfloat16": lambda: seconds(lambda: read_theirs(half))})
    moved = sum(x.nbytes for x in {id(x): x for x in [*model.parameters(), *model.buffers()]}.values())
    limit = bandwidth()
    return {**{f"{name}_tokens_s": value for name, value in decode.items()},
            "ratio_llama_cpp": decode["ours"] / decode["llama_cpp"], "ratio_transformers_float32": decode["ours"] / decode["transformers_float32"],
            **{f"{name}_prefill_s": value for name, value in prefill.items()},
            "prefill_ratio_llama_cpp": prefill["llama_cpp"] / prefill["ours"],
            "prefill_ratio_transformers": min(prefill["transformers_float32"], prefill["transformers_bfloat16"]) / prefill["ours"],
            "MB_moved_a_token": moved / 1e6, "memory_GB_s": limit / 1e9, "share_of_memory_limit": moved * decode["ours"] / limit}


def minilm() -> dict[str, float]:
    """all-MiniLM-L6-v2: sentences of a book to unit vectors, from text, beside transformers (sorted by length, batches of 32)."""
    import re

    import transformers

    import sensorium as sn
    from sensorium.catalog import find
    from sensorium.named import open_model

    folder = find("minilm-l6")
    text = (TEXT / "alice.txt").read_text(encoding="utf-8").replace("\n", " ")
    sentences = [s for s in re.split(r"(?<=[.!?]) +", text) if 10 < len(s) < 900][:128]
    model, net = open_model("minilm-l6"), transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", model_max_length=256)

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
        out = torch.zeros(len(sentences), 384)
        for start in range(0, len(order), 32):
            some = order[start : start + 32]
            given = tokenizer([sentences[i] for i in some], padding=True, truncation=True, return_tensors="pt")
            kept = given["attention_mask"][..., None]
            state = net(given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
            out[some] = torch.nn.functional.normalize((state * kept).sum(1) / kept.sum(1), dim=-1)
        return out

    cosine = float((sn.embed(model, sentences) * theirs()).sum(-1).min())
    one = sentences[0]
    times = in_turns({"ours": lambda: seconds(lambda: sn.embed(model, sentences)), "transformers": lambda: seconds(theirs)})
    return {**{f"{name}_s": value for name, value in times.items()}, "ratio": times["transformers"] / times["ours"],
            "least_cosine": cosine, "sentences": len(sentences), "one_s": seconds(lambda: sn.embed(model, [one]))}


def whisper() -> dict[str, float]:
    """Whisper base: ten real clips one by one, and the same clips joined to ten minutes, beside faster-whisper int8; seconds and error rates."""
    import sensorium as sn
    from sensorium.catalog import find
    from sensorium.codecs.audio import load_audio
    from sensorium.evals.clips import fetch_clips
    from sensorium.evals.speech import errors, own_ears, peer_ears, words_of
    from sensorium.named import open_model

    clips = fetch_clips(ROOT / "corpus" / "clips")
    ears = {"ours": own_ears(open_model("whisper-base")), "faster_whisper": peer_ears(find("whisper-base"))}
    heard: dict[str, list[str]] = {}

    def short(name: str) -> None:
        heard[name] = [ears[name](clip.audio, "en") for clip in clips]

    def rate(texts: list[str], wanted: list[str]) -> float:
        pairs = [(words_of(want, "en"), words_of(got, "en")) for want, got in zip(wanted, texts, strict=True)]
        return sum(errors(*pair) for pair in pairs) / sum(len(want) for want, _ in pairs)

    times = in_turns({name: lambda name=name: seconds(lambda: short(name)) for name in ears})
    pause = torch.zeros(8_000)
    once = torch.cat([torch.cat([load_audio(clip.audio, 16_000), pause]) for clip in clips if clip.name.startswith(("jfk", "austen"))])
    copies = round(600 * 16_000 / len(once))
    talk = sn.Audio(once.repeat(copies), rate_hz=16_000)
    said = " ".join(clip.text for clip in clips if clip.name.startswith(("jfk", "austen")))
    long = in_turns({name: lambda name=name: seconds(lambda: heard.update({f"{name}_talk": [ears[name](talk, "en")]})) for name in ears}, rounds=1)
    return {**{f"{name}_clips_s": value for name, value in times.items()}, "clips_ratio": times["faster_whisper"] / times["ours"],
            **{f"{name}_clips_wer": rate(heard[name], [clip.text for clip in clips]) for name in ears},
            **{f"{name}_talk_s": value for name, value in long.items()}, "talk_ratio": long["faster_whisper"] / long["ours"],
            **{f"{name}_talk_wer": rate(heard[f"{name}_talk"], [" ".join([said] * copies)]) for name in ears}}


TALK = {"smollm2": smollm2, "whisper": whisper, "minilm": minilm}
