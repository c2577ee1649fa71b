"""Generation: choices as transformers makes them, rows that do not feel their neighbours, answers that end where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sensorium as sn
from sensorium.constrain import Constraint
from sensorium.fused import open_reader
from sensorium.generate import Sampling, Stops, choose, continue_text, stream_ids, stream_text
from sensorium.types import Batch, ConfigError

from . import chats


def prompts(count: int = 3) -> tuple[sn.ModelNet, sn.Codecs, list[list[int]]]:
    model, codecs = chats.speaker(seed=2)
    return model, codecs, [codecs.text.encode(text) for text in ("The capital", "你好", "What is the capital of France?", "a")[:count]]


def batch(rows: list[list[int]]) -> Batch:
    packer = sn.Packer()
    return packer.pack([packer.segment([sn.Arrays("text", ids)]) for ids in rows], alone=True)


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=1.0), Sampling(temperature=0.5), Sampling(temperature=1.5, top_k=5), Sampling(temperature=1.0, top_p=0.6),
    Sampling(temperature=2.0, min_p=0.2), Sampling(temperature=1.3, top_k=9, top_p=0.8), Sampling(temperature=1.1, top_k=20, top_p=0.9, min_p=0.1),
    Sampling(temperature=1.0, top_p=0.999), Sampling(temperature=1.0, top_k=400), Sampling(temperature=1.0, top_p=1e-6),
], ids=str)
def test_choices_have_the_odds_that_transformers_gives_them(sampling: Sampling) -> None:
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 400, generator=torch.Generator().manual_seed(1)) * 3
    wanted = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    if sampling.top_k:
        wanted = TopKLogitsWarper(sampling.top_k)(None, wanted)
    if sampling.top_p < 1:
        wanted = TopPLogitsWarper(sampling.top_p)(None, wanted)
    if sampling.min_p:
        wanted = MinPLogitsWarper(sampling.min_p)(None, wanted)
    odds, count = wanted.softmax(-1)[0], 3000
    generator = torch.Generator().manual_seed(0)
    found = torch.bincount(torch.cat([choose(logits, sampling, [generator]) for _ in range(count)]), minlength=400) / count
    assert not found[odds == 0].any()
    spread = (odds * (1 - odds) / count).sqrt()
    assert ((found - odds).abs() <= 5 * spread + 2 / count).all()


def test_a_share_held_by_many_is_found_whole() -> None:
    """Even odds over more tokens than are looked at first."""
    generator, sampling = torch.Generator().manual_seed(0), Sampling(temperature=1.0, top_p=0.9)
    found = {int(choose(torch.zeros(1, 2000), sampling, [generator])) for _ in range(3000)}
    assert 1300 < len(found) <= 1800


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(repetition=1.3), Sampling(repetition=0.8)], ids=["greedy", "repeats less", "more"])
def test_continuations_are_those_of_transformers(sampling: Sampling) -> None:
    """The toy's weights in their Llama; prompt and answer both count as said."""
    import transformers

    model, _, rows = prompts()
    spec = model.spec.decoder.read
    config = transformers.LlamaConfig(
        vocab_size=model.spec.heads["text"].vocab, hidden_size=spec.width, intermediate_size=spec.hidden, num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads, num_key_value_heads=spec.kv_heads, rms_norm_eps=spec.eps, rope_theta=spec.rope_theta,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    theirs = transformers.LlamaForCausalLM(config).double().eval()
    from sensorium.checkpoint import PUBLISHED

    rules = PUBLISHED["llama"].rules(model.spec, config.to_dict())
    theirs.load_state_dict({rules[name].source[0]: value for name, value in model.state_dict().items()}, strict=False)
    ours = continue_text(model, batch(rows), replace(sampling, max_tokens=12))
    for ids, answer in zip(rows, ours, strict=True):
        given_ids = torch.tensor([ids])
        out = theirs.generate(given_ids, attention_mask=torch.ones_like(given_ids), max_new_tokens=12, do_sample=False,
                              repetition_penalty=sampling.repetition)
        assert out[0, len(ids) :].tolist() == answer


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=10), Sampling(max_tokens=10, temperature=1.0, repetition=1.2, top_p=0.9)])
def test_an_answer_does_not_depend_on_its_neighbours(sampling: Sampling) -> None:
    model, codecs, rows = prompts(4)
    sampling = replace(sampling, seed=(5, 9, 5, 7))
    sampling = replace(sampling, end=(continue_text(model, batch(rows), sampling)[2][3],))  # one row ends early, and others need not
    together = continue_text(model, batch(rows), sampling)
    assert len({len(row) for row in together}) > 1
    for ids, answer, seed in zip(rows, together, sampling.seed, strict=True):
        assert continue_text(model, batch([ids]), replace(sampling, seed=seed)) == [answer]
    assert continue_text(model, batch(rows), replace(sampling, seed=3))[1] == continue_text(model, batch([rows[1]]), replace(sampling, seed=4))[0]
    with pytest.raises(ConfigError, match="4 seeds were given for 3 rows"):
        continue_text(model, batch(rows[:3]), sampling)


def test_reading_on_is_reading_at_once() -> None:
    model, _, rows = prompts()
    ids, sampling = rows[2], Sampling(max_tokens=8, temperature=1.0, repetition=1.1)
    wanted = continue_text(model, batch([ids]), sampling)[0]
    reader = open_reader(model, room=40)
    reader.extend(torch.tensor([ids[:4]]))
    found = [int(t) for t in stream_ids(reader, torch.tensor([ids[4:]]), sampling, said_BT=torch.tensor([ids]))]
    assert found == wanted
    reader.rewind(4)
    assert [int(t) for t in stream_ids(reader, torch.tensor([ids[4:]]), sampling, said_BT=torch.tensor([ids]))] == wanted


def test_constraints_are_a_row_each_and_end_it() -> None:
    model, codecs, rows = prompts()
    ends = (codecs.text.special(codecs.end),)
    schemas = [{"const": "a"}, {"enum": ["The capital of France", 3]}, {"type": "boolean"}]
    made = [Constraint(schema, codecs.text, ends) for schema in schemas]
    sampling = Sampling(max_tokens=30, end=ends, temperature=1.0)
    answers: list[list[int]] = [[], [], []]
    for token_B in stream_text(model, batch(rows), sampling, made):
        for ids, token in zip(answers, token_B.tolist(), strict=True):
            ids += [token] if token >= 0 else []
    texts = [codecs.text.decode(ids) for ids in answers]
    assert texts[0] == '"a"' and texts[1] in ('"The capital of France"', "3") and texts[2] in ("true", "false")


def test_a_picture_is_not_something_said() -> None:
    """With media in the prompt: their places count as no token."""
    from sensorium.zoo import ENTRIES

    entry = next(e for e in ENTRIES.values() if "text" in e.toy().heads and "image" in e.toy().encoders and "splice" in e.toy().fuse)
    model, one = entry.toy().build(seed=0).eval(), entry.batch([0], alone=True)
    assert (one.media_BT > 0).any()
    sampling = Sampling(max_tokens=6, repetition=1e9)
    ids = continue_text(model, one, sampling)[0]
    said = set(one.token_BT[(one.media_BT == 0) & (one.layout.segment_BT >= 0)].tolist())
    assert len(set(ids)) == len(ids) and not said & set(ids)


@settings(max_examples=200, deadline=None)
@given(st.text("ab.\n", max_size=12), st.lists(st.text("ab.\n", min_size=1, max_size=4), max_size=3), st.integers(0, 2**32))
def test_what_might_be_a_stop_is_held_back(text: str, texts: list[str], seed: int) -> None:
    """Whatever pieces a text comes in, it is cut at the stop that is whole first, and nothing of a stop is ever given out."""
    wholes = [(place + len(stop), place) for stop in texts for place in range(len(text)) if text.startswith(stop, place)]
    wanted = text[: min(wholes)[1]] if wholes else text
    generator, stops, out, rest = torch.Generator().manual_seed(seed), Stops(texts), "", text
    while rest:
        size = int(torch.randint(1, 4, (), generator=generator))
        out += stops.push(rest[:size])
        rest = rest[size:]
        assert wanted.startswith(out)
        if stops.found:
            break
    assert stops.found == bool(wholes) and out + stops.finish() == wanted


def test_senseless_settings_are_refused() -> None:
    for wrong in ({"max_tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 1.5}, {"repetition": 0.0},
                  {"temperature": float("nan")}, {"temperature": float("inf")}, {"min_p": float("nan")}, {"repetition": float("nan")}):
        with pytest.raises(ConfigError, match="wanted"):
            Sampling(**wrong)
    for wrong in ("text", [""], [1]):
        with pytest.raises(ConfigError, match="wanted a list of texts"):
            Stops(wrong)
