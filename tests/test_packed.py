"""Packed layers: what they hold, what they give, their gradients, and their way to disk and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sensorium as sn
from sensorium.checkpoint import read_tensors, write_tensors
from sensorium.layers import kernels
from sensorium.layers.packed import INT4, INT8, PackedEmbedding, PackedLinear, Packing, pack, pack_matrix, unpack_matrix
from sensorium.spec import from_json
from sensorium.types import CheckpointError, ConfigError

SHAPES = [(48, 64), (50, 70), (5, 3), (130, 96)]


def toy(tied: bool = True) -> sn.Model:
    """A small causal language model whose widths suit the kernels."""
    stack = sn.Stack(width=64, depth=2, heads=4, kv_heads=2, head_width=16, hidden=96, act="silu", gated=True, bias=False, norm="rms",
                     rope_theta=1e4, rule="causal")
    return sn.Model(encoders={"text": sn.Vocabulary(70, 64)}, decoder=sn.Decoder(stack), heads={"text": sn.Tokens(64, 70, tied=tied)},
                    objectives=(sn.NextToken(),))


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Activations as the kernels see them (``Rounded`` of kernels.h): about 12 bits for each group of 32."""
    groups = F.pad(x, (0, -x.shape[-1] % 32)).unflatten(-1, (-1, 32))
    step = groups.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / (119 * 16)
    first, second = (groups / step).chunk(2, dim=-1)
    second = second.round()
    first = second / 16 + (first - second / 16).round()  # two columns share their last bits
    return (torch.cat([first, second], dim=-1) * step).flatten(-2)[..., : x.shape[-1]]


def random_matrix(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    matrix = torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator) * 3
    matrix[rows // 2] = 0
    return matrix


def packed_linear(matrix: torch.Tensor, bits: int, bias: bool = False) -> PackedLinear:
    layer = PackedLinear(*matrix.shape, bits, bias)
    layer.fill(matrix)
    if bias:
        layer.bias.data.copy_(torch.linspace(-1, 1, len(matrix)))
    return layer


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_unpacked_is_near_what_was_packed(bits: int, shape: tuple[int, int]) -> None:
    matrix = random_matrix(*shape)
    back = unpack_matrix(*pack_matrix(matrix, bits), *shape)
    groups = F.pad(matrix, (0, -shape[1] % 32), mode="replicate").unflatten(-1, (-1, 32))
    span = groups.amax(-1) - groups.amin(-1) if bits == 4 else 2 * groups.abs().amax(-1)
    step = (span / (15 if bits == 4 else 254)).repeat_interleave(32, dim=-1)[:, : shape[1]]
    slack = 2**-10 * groups.abs().amax(-1).repeat_interleave(32, dim=-1)[:, : shape[1]]  # scale and low are themselves rounded
    assert bool(((back - matrix).abs() <= 0.5 * step + slack + 1e-7).all())
    assert bool((back[shape[0] // 2] == 0).all())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_was_packed_once_is_packed_again_without_loss(bits: int, shape: tuple[int, int]) -> None:
    once = unpack_matrix(*pack_matrix(random_matrix(*shape), bits), *shape)
    assert torch.equal(unpack_matrix(*pack_matrix(once, bits), *shape), once)


def test_blocks_of_gguf_are_kept_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    code = torch.randint(0, 16, (64, 3, 32), generator=generator)
    code[..., 3], code[..., 17] = 0, 15  # llama.cpp scales from least to greatest
    scale, low = (torch.rand(64, 3, 1, generator=generator) * 0.02).half(), (torch.randn(64, 3, 1, generator=generator) * 0.1).half()
    q4_1 = (code * scale.float() + low.float()).flatten(1)
    assert torch.equal(unpack_matrix(*pack_matrix(q4_1, 4), 64, 96), q4_1)
    code = torch.randint(-127, 128, (64, 3, 32), generator=generator)
    code[..., 5] = -127
    q8_0 = (code * scale.float()).flatten(1)
    assert torch.equal(unpack_matrix(*pack_matrix(q8_0, 8), 64, 96), q8_0)


@pytest.mark.skipif(kernels.library() is None, reason=kernels.state())
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_pack_as_torch_does(bits: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = random_matrix(*shape)
    fast = pack_matrix(matrix, bits)
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert all(torch.equal(one, other) for one, other in zip(fast, pack_matrix(matrix, bits), strict=True))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_product_equals_its_naive_twin(bits: int, shape: tuple[int, int]) -> None:
    layer = packed_linear(random_matrix(*shape), bits, bias=True)
    x = torch.randn(3, 7, shape[1], generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        naive = F.linear((rounded(x) if kernels.library() else x).double(), layer.weight.double(), layer.bias.double())
        assert torch.allclose(layer(x).double(), naive, rtol=1e-4, atol=1e-4 * float(naive.abs().max()))  # sums in float32, in another order
        assert layer(x.bfloat16()).dtype == torch.bfloat16 and layer(x[:0]).shape == (0, 7, shape[0])


@pytest.mark.parametrize("bits", [4, 8])
def test_activations_keep_twelve_bits_of_their_group(bits: int) -> None:
    """Times a matrix that only picks columns, so that nothing but the rounding of x is seen."""
    layer = packed_linear(torch.eye(96) * (15 if bits == 4 else 127), bits)
    x = torch.randn(400, 96, generator=torch.Generator().manual_seed(6)) * torch.logspace(-12, 12, 400)[:, None]
    x[::3, 5], x[1::3, 40], x[::7, 64:] = x[::3].abs().amax(-1) * 50, -x[1::3].abs().amax(-1), x[::7, 64:].sign() * 3  # alone, least, all alike
    with torch.inference_mode():
        given = layer(x) / layer.weight[0, 0]
    most = x.unflatten(-1, (-1, 32)).abs().amax(-1).repeat_interleave(32, dim=-1)
    assert bool(((given - x).abs() <= most / 3800).all())


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_gives_the_same_bits_alone_and_in_a_batch(bits: int) -> None:
    layer = packed_linear(random_matrix(130, 96), bits)
    x = torch.randn(300, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        whole = layer(x)
        if kernels.library() is not None:
            assert all(torch.equal(layer(x[i : i + 1])[0], whole[i]) for i in (0, 1, 6, 127, 128, 299))


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_pass_to_the_input_and_the_bias(bits: int) -> None:
    layer = packed_linear(random_matrix(50, 70), bits, bias=True)
    x = torch.randn(4, 70, requires_grad=True)
    plain = nn.Linear(70, 50)
    plain.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    wanted = torch.autograd.grad((plain(x) ** 2).sum(), [x, plain.bias])
    given = torch.autograd.grad((layer(x) ** 2).sum(), [x, layer.bias])
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-5) for one, other in zip(given, wanted, strict=True))
    assert all(parameter.numel() != 50 * 70 for parameter in layer.parameters())


@pytest.mark.parametrize("bits", [4, 8])
def test_an_embedding_gives_its_rows(bits: int) -> None:
    table = PackedEmbedding(50, 70, bits)
    table.fill(random_matrix(50, 70))
    index = torch.tensor([[0, 49, 7], [16, 15, 33]])
    assert torch.equal(table(index), table.weight[index])


def test_the_first_rule_that_fits_decides() -> None:
    packing = Packing(rules=(("decoder.*.down", 8), ("decoder.*", 4)))
    assert packing.bits("decoder.read.blocks.0.mlp.down") == 8 and packing.bits("decoder.read.blocks.0.mlp.up") == 4
    assert packing.bits("heads.text.out") is None
    with pytest.raises(ConfigError, match="wanted 4 or 8 bits"):
        Packing(rules=(("*", 3),))
    with pytest.raises(ConfigError, match="fits no linear layer"):
        pack(toy().build(), Packing(rules=(("nowhere", 4),)))


@pytest.mark.parametrize("packing", [INT4, INT8], ids=["int4", "int8"])
def test_a_spec_says_how_its_model_is_packed(packing: Packing) -> None:
    spec = replace(toy(), packed=packing)
    assert from_json(spec.to_json()) == spec and "packed: Packing" in spec.describe()
    model = spec.build(seed=3)
    float_model = toy().build(seed=3)
    assert isinstance(model.decoder.read.blocks[0].mlp.up, PackedLinear) and isinstance(model.encoders["text"].token, PackedEmbedding)
    packed = pack(float_model, packing)
    assert packed.spec == spec and float_model.spec == toy() and isinstance(float_model.decoder.read.blocks[0].mlp.up, nn.Linear)
    assert packed.decoder.read.norm.weight is float_model.decoder.read.norm.weight
    assert {k: v.tolist() for k, v in packed.state_dict().items()} == {k: v.tolist() for k, v in model.state_dict().items()}
    with pytest.raises(ConfigError, match="packed already"):
        pack(packed, packing)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_packed_model_says_what_its_float_twin_says(tied: bool) -> None:
    """Tolerance: 8 bits keep a number to about 1/250 of the largest of its group; over two layers that is about 1 % of the scores."""
    model = toy(tied).build(seed=4).eval()
    batch = sn.Batch(token_BT=torch.arange(24).view(2, 12))
    packed = pack(model, INT8)
    with torch.inference_mode():
        wanted, given = (m.logits(m.read(batch)) for m in (model, packed))
    assert given.dtype == torch.float32 and float((given - wanted).norm() / wanted.norm()) < 0.03
    loss = packed.logits(packed.read(batch)).logsumexp(-1).sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in packed.decoder.parameters())


def test_a_packed_model_is_saved_and_loaded_strictly(tmp_path: Path) -> None:
    model = toy(tied=False).build(seed=5).eval()
    sn.save(model, tmp_path / "float")
    sn.save(pack(model, INT4), tmp_path / "packed")
    wanted = {k: v.tolist() for k, v in pack(model, INT4).state_dict().items()}
    for folder, packing in (("packed", None), ("packed", INT4), ("float", INT4)):
        loaded = sn.load(tmp_path / folder, packed=packing)
        assert loaded.spec.packed == INT4 and {k: v.tolist() for k, v in loaded.state_dict().items()} == wanted
    with pytest.raises(ConfigError, match="was saved as"):
        sn.load(tmp_path / "packed", packed=INT8)
    with pytest.raises(ConfigError, match="float32"):
        sn.load(tmp_path / "packed", dtype=torch.bfloat16)
    path = tmp_path / "packed" / "weights.safetensors"
    tensors = read_tensors(path)
    name = "decoder.read.blocks.1.mlp.up.codes"
    for broken, says in (({k: v for k, v in tensors.items() if k != name}, "missing tensor"), (tensors | {name: tensors[name].float()}, "holds"),
                         (tensors | {name: tensors[name][:1]}, "has shape"), (tensors | {name: tensors[name].view(torch.int8)}, "holds")):
        write_tensors(path, broken)
        with pytest.raises(CheckpointError, match=f"{says}.*{name}|{name}.*{says}"):
            sn.load(tmp_path / "packed")


def test_no_compiler_is_said_and_survived(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path))
    for compiler, says in (("no-such-compiler", "there is no g++"), ("false", "failed")):
        monkeypatch.setenv("CXX", compiler)
        made, state = kernels._made.__wrapped__()
        assert made is None and says in state
    assert not list(tmp_path.rglob("*.so"))
