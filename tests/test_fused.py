"""Readers: the fused step against its naive twin, and what both promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import sensorium as sn
from sensorium.fuse import CrossMemory
from sensorium.fused import Fused, Plain, Reader, open_reader, why_plain
from sensorium.generate import Sampling, continue_text
from sensorium.layers import kernels
from sensorium.layers.cache import Cache
from sensorium.layers.packed import INT4, INT8, PackedMatrix, pack
from sensorium.layers.positions import RopeScaling
from sensorium.types import ConfigError, ShapeError
from tests.test_packed import rounded

VOCAB, ROOM = 70, 40
needs_kernels = pytest.mark.skipif(kernels.library() is None, reason=kernels.state())


def llama(**changes: object) -> sn.Model:
    """Grouped queries, turned places, gated MLP, scores tied to the embeddings."""
    stack = sn.Stack(width=96, depth=3, heads=6, kv_heads=2, head_width=16, hidden=160, act="silu", gated=True, bias=False, norm="rms",
                     rope_theta=1e4, rope_scaling=RopeScaling(8.0, context=16), rule="causal")
    return sn.Model(encoders={"text": sn.Vocabulary(VOCAB, 96)}, decoder=sn.Decoder(replace(stack, **changes)),
                    heads={"text": sn.Tokens(96, VOCAB, tied=True)}, objectives=(sn.NextToken(),))


def learned(act: str) -> sn.Model:
    """Learned places, layer norms, biases, one key for all heads, heads that together are wider than the model, scores of their own."""
    stack = sn.Stack(width=64, depth=2, heads=4, kv_heads=1, head_width=80, hidden=96, act=act, rule="causal")
    return sn.Model(encoders={"text": sn.Vocabulary(VOCAB, 64, places=64)}, decoder=sn.Decoder(stack), heads={"text": sn.Tokens(64, VOCAB)},
                    objectives=(sn.NextToken(),))


def whisper() -> sn.Model:
    """Cross-attention in the middle of each layer."""
    stack = sn.Stack(width=64, depth=2, heads=4, key_bias=False, rule="causal")
    cross = sn.CrossAttend("audio", width=64, source=64, layers=2, place="middle", heads=2, bias=True, key_bias=False, gate=None,
                           timing=((1, 0), (0, 1)))
    return sn.Model(encoders={"text": sn.Vocabulary(VOCAB, 64, places=64), "audio": sn.AudioEncoder(mels=8, frames=12, width=64, depth=1, heads=2)},
                    fuse={"cross": cross}, decoder=sn.Decoder(stack), heads={"text": sn.Tokens(64, VOCAB, tied=True)}, objectives=(sn.NextToken(),))


MODELS = {"llama": llama(), "deep heads": llama(heads=12, kv_heads=2), "relu": learned("relu"), "gelu": learned("gelu"),
          "gelu_tanh": learned("gelu_tanh"), "quick_gelu": learned("quick_gelu"), "whisper": whisper()}


def built(name: str, packing: object = INT8) -> sn.ModelNet:
    """The model with weights large enough to matter, norms and biases that are not ones and zeros, packed."""
    model = MODELS[name].build(seed=7).eval()
    generator = torch.Generator().manual_seed(8)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(noise * parameter.shape[-1] ** -0.5 * 1.5 if parameter.dim() == 2 else parameter + 0.2 * noise)
    return pack(model, packing)


def features(name: str, rows: int) -> torch.Tensor | None:
    return torch.randn(rows, 37, 64, generator=torch.Generator().manual_seed(9)) if name == "whisper" else None


def tokens(rows: int, time: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, time), generator=torch.Generator().manual_seed(10))


@pytest.fixture(params=[pytest.param(True, marks=needs_kernels), False], ids=["fused", "plain"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reader]:
    """Opens readers with the kernels, or without."""
    if not request.param:
        monkeypatch.setattr(kernels, "library", lambda: None)

    def opens(model: sn.ModelNet, rows: int = 1, memory: torch.Tensor | None = None, looks: bool = False) -> Reader:
        reader = open_reader(model, rows, ROOM, memory, looks)
        assert isinstance(reader, Fused if request.param else Plain)
        return reader

    return opens


@needs_kernels
@pytest.mark.parametrize("packing", [INT4, INT8], ids=["int4", "int8"])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_the_fused_step_equals_its_naive_twin(name: str, packing: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin is model.read with activations rounded to 12 bits and keys and values to float16, as the kernels do.

    Tolerance: sums in another order differ by 1e-7. Where that moves a number over the edge between two codes, one activation differs by
    1/1904 of its group's largest, which moves others over theirs, and the scores by some thousandths. Of 69 tokens a few meet no edge at all.
    """
    model, memory, token_BT = built(name, packing), features(name, 3), tokens(3, 23)
    reader, extend = open_reader(model, 3, ROOM, memory), Cache.extend
    assert isinstance(reader, Fused)
    given = torch.stack([reader.extend(token_BT[:, t : t + 1]) for t in range(23)])
    seen = None if memory is None else model.remember(memory)
    if seen is not None:
        seen = CrossMemory({layer: (key.half().float(), value.half().float()) for layer, (key, value) in seen.layers.items()})
    monkeypatch.setattr(PackedMatrix, "multiply", lambda self, x, bias=None: F.linear(rounded(x), self.weight, bias))
    monkeypatch.setattr(Cache, "extend", lambda self, i, key, value, *rest: extend(self, i, key.half().float(), value.half().float(), *rest))
    twin = Plain(model, 3, ROOM, seen, looks=False)
    wanted = torch.stack([twin.extend(token_BT[:, t : t + 1]) for t in range(23)])
    apart_TB = (given - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert float(apart_TB.min()) < 1e-5 and float(apart_TB.median()) < 0.003 and float(apart_TB.max()) < 0.006


@needs_kernels
@torch.inference_mode()
def test_spliced_media_are_read_as_the_model_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two conversations of different length with two pictures each: the same continuation, and scores as without the kernels."""
    spec = llama()
    eyes = sn.VisionEncoder(size=8, patch=4, width=32, depth=1, heads=2, first=False)
    spec = replace(spec, encoders={**spec.encoders, "image": eyes}, align={"image": sn.Project(32, 96)}, fuse={"splice": sn.Splice(("image",))})
    model = spec.build(seed=3).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3 if parameter.dim() == 2 else 1)
    model, packer = pack(model, INT8), sn.Packer(places={"image": 4}, row=64, end=3)
    generator = torch.Generator().manual_seed(0)
    shown = [sn.Arrays("image", torch.randn(3, 8, 8, generator=generator)) for _ in range(4)]
    batch = packer.pack([packer.segment([sn.Arrays("text", [5, 6]), shown[0], sn.Arrays("text", [7]), shown[1], sn.Arrays("text", [9, 10])]),
                         packer.segment([shown[2], sn.Arrays("text", [8]), shown[3], sn.Arrays("text", [11])])], alone=True)
    assert why_plain(model) is None
    ids, features_ND = model.shown(batch)
    assert int((ids < 0).sum()) == len(features_ND) == 16
    reader = open_reader(model, 2, ROOM)
    reader.show(features_ND)
    length_B = (batch.layout.segment_BT >= 0).sum(dim=1)
    given = reader.extend(ids, length_B)
    wanted = model.logits(model.read(batch)[torch.arange(2), length_B - 1])
    assert float(((given - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max()) < 0.01
    fast = continue_text(model, batch, Sampling(max_tokens=12))
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert fast == continue_text(model, batch, Sampling(max_tokens=12))


@pytest.mark.parametrize("name", ["llama", "relu", "whisper"])
def test_how_tokens_are_cut_into_steps_and_rows_changes_nothing(name: str, opened: Callable[..., Reader]) -> None:
    model, memory, token_BT = built(name, INT4), features(name, 4), tokens(4, 19)

    def same(one: torch.Tensor, other: torch.Tensor) -> bool:
        return torch.equal(one, other) if isinstance(whole, Fused) else torch.allclose(one, other, rtol=1e-3, atol=1e-3)

    whole, steps, cut = (opened(model, 4, memory) for _ in range(3))
    wanted = whole.extend(token_BT)
    assert whole.length == 19 and wanted.shape == (4, VOCAB) and wanted.dtype == torch.float32
    assert same([steps.extend(token_BT[:, t : t + 1]) for t in range(19)][-1], wanted)
    cut.extend(token_BT[:, :6])
    assert same(cut.extend(token_BT[:, 6:]), wanted)
    assert same(opened(model, 1, None if memory is None else memory[2:3]).extend(token_BT[2:3]), wanted[2:3])


@pytest.mark.parametrize("name", ["llama", "relu", "whisper"])
def test_rows_of_different_lengths_say_what_they_say_alone(name: str, opened: Callable[..., Reader]) -> None:
    model, memory, token_BT, length_B = built(name), features(name, 3), tokens(3, 9), torch.tensor([4, 9, 1])
    more_B2 = tokens(3, 12)[:, -2:]
    reader = opened(model, 3, memory)
    first, resting = reader.extend(token_BT, length_B), reader.extend(more_B2[:, :1], torch.tensor([1, 0, 1]))
    last = reader.extend(more_B2[:, 1:])
    assert reader.length == 10 and not bool(resting[1].any())
    for row, length in enumerate(length_B.tolist()):
        alone = opened(model, 1, None if memory is None else memory[row : row + 1])
        pairs = [(first, alone.extend(token_BT[row : row + 1, :length]))]
        pairs += [(resting, alone.extend(more_B2[row : row + 1, :1]))] if row != 1 else []
        pairs += [(last, alone.extend(more_B2[row : row + 1, 1:]))]
        for given, wanted in pairs:
            assert torch.allclose(given[row], wanted[0], rtol=1e-3, atol=1e-3)


def test_what_was_rewound_is_forgotten(opened: Callable[..., Reader]) -> None:
    model, token_BT, other_BT = built("llama"), tokens(2, 12), tokens(2, 30)[:, 14:]
    used, fresh = opened(model, 2), opened(model, 2)
    used.extend(token_BT, torch.tensor([12, 7]))
    used.rewind(5)
    assert used.length == 5
    fresh.extend(token_BT[:, :5])
    assert torch.allclose(used.extend(other_BT), fresh.extend(other_BT), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="rewind got 22, wanted 0 to the 21"):
        used.rewind(22)
    used.rewind(0)
    assert used.length == 0 and torch.allclose(used.extend(other_BT), opened(model, 2).extend(other_BT), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused_and_changes_nothing(opened: Callable[..., Reader]) -> None:
    reader, token_BT = opened(built("llama"), 2), tokens(2, ROOM)
    reader.extend(token_BT[:, :-1])
    with pytest.raises(ConfigError, match=f"a text of {ROOM + 1} tokens was given to a reader with room for {ROOM}"):
        reader.extend(token_BT[:, :2])
    assert reader.length == ROOM - 1
    reader.extend(token_BT[:, -1:])
    reader.rewind(3)
    for wrong in (token_BT[:1], token_BT[:, :0], token_BT[0], token_BT.float(), token_BT + VOCAB, token_BT - VOCAB):
        with pytest.raises(ShapeError, match="a reader got"):
            reader.extend(wrong)
    for wrong in (torch.tensor([1]), torch.tensor([-1, 1]), torch.tensor([1, ROOM + 1])):
        with pytest.raises(ShapeError, match="length_B"):
            reader.extend(token_BT, wrong)
    assert reader.length == 3


@needs_kernels
@torch.inference_mode()
def test_what_cross_attention_looks_at_is_shown() -> None:
    model, memory, token_BT, length_B = built("whisper"), features("whisper", 2), tokens(2, 5), torch.tensor([5, 3])
    fast, slow = open_reader(model, 2, ROOM, memory, looks=True), Plain(model, 2, ROOM, model.remember(memory), looks=True)
    for reader in (fast, slow):
        reader.extend(token_BT, length_B)
    assert fast.looks_BNTS.shape == slow.looks_BNTS.shape == (2, 2, 5, 37)
    real = torch.arange(5)[None, None, :, None] < length_B[:, None, None, None]
    assert torch.allclose(fast.looks_BNTS * real, slow.looks_BNTS * real, atol=0.002) and float(slow.looks_BNTS.max()) > 0.1
    assert open_reader(model, 2, ROOM, memory).looks_BNTS is None


def test_without_kernels_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, token_BT = built("llama", INT4), tokens(2, 20)
    wanted = open_reader(model, 2, ROOM).extend(token_BT)
    assert torch.equal(open_reader(model, 2, ROOM).extend(token_BT), wanted)
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "state", lambda: "no fast kernels: for this test")
    reader = open_reader(model, 2, ROOM)
    assert isinstance(reader, Plain) and "for this test" in why_plain(model)
    assert float((reader.extend(token_BT) - wanted).norm() / wanted.norm()) < 0.006  # activations in floats, not in 12 bits


def test_what_the_kernels_do_not_serve_goes_the_plain_way() -> None:
    if kernels.library() is not None:
        assert "floats" in why_plain(llama().build())
        for changes, says in (({"qk_norm": True}, "qk_norm"), ({"head_width": 24, "rope_scaling": None}, "widths"), ({"rule": "full"}, "full mask")):
            assert says in why_plain(pack(llama(**changes).build(), INT4))
    reader = open_reader(llama(qk_norm=True).build().eval(), room=8)
    assert isinstance(reader, Plain) and reader.extend(tokens(1, 8)).shape == (1, VOCAB)


def test_a_reader_is_opened_for_what_can_be_read() -> None:
    model = built("whisper")
    with pytest.raises(ConfigError, match="rows=0"):
        open_reader(model, 0)
    with pytest.raises(ConfigError, match="wanted \\(2, S, D\\)"):
        open_reader(model, 2, memory=features("whisper", 1))
    with pytest.raises(ConfigError, match="give memory too"):
        open_reader(model, looks=True)
    with pytest.raises(ConfigError, match="reads and writes text"):
        open_reader(sn.Model(encoders={"text": sn.Vocabulary(8, 8)}, heads={"embed": sn.Unit()}).build())
    reader = open_reader(model, room=2048, memory=features("whisper", 1))
    with pytest.raises(ConfigError, match="room for 64"):
        reader.extend(tokens(1, 65))
