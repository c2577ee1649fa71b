"""Layers against their naive twins and by their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sensorium as sn
from sensorium.layers import kernels
from sensorium.layers.attention import Attention, attend, attend_naive
from sensorium.layers.cache import Cache
from sensorium.layers.masks import key_mask, visible
from sensorium.layers.patches import patchify, unpatchify
from sensorium.layers.positions import Rope, apply_rope, grid_sinusoids
from sensorium.layers.stack import Stack
from sensorium.optim import Muon, orthogonal
from sensorium.types import ConfigError, Layout, ShapeError


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.sampled_from([(4, 4), (4, 2), (6, 1)]),
       st.sampled_from(["none", "mask", "causal"]))
def test_fast_attention_is_the_formula(batch: int, target: int, source: int, heads: tuple[int, int], kind: str) -> None:
    source = target if kind == "causal" else source
    query, key, value = randn(batch, target, heads[0], 8), randn(batch, source, heads[1], 8, seed=1), randn(batch, source, heads[1], 8, seed=2)
    mask = None
    if kind == "mask":
        mask = torch.rand(batch, target, source, generator=torch.Generator().manual_seed(3)) < 0.5
        mask[..., 0] = True
    for scale in (None, 0.3):
        one, two = (way(query, key, value, mask, kind == "causal", scale) for way in (attend, attend_naive))
        torch.testing.assert_close(one, two)


def test_cross_attention_reads_sources_of_another_width() -> None:
    net = Attention(16, 4, source_width=10).build().double()
    assert net(randn(2, 3, 16), randn(2, 5, 10)).shape == (2, 3, 16)
    with pytest.raises(ShapeError, match="wanted"):
        net(randn(2, 3, 10))


def test_rotary_positions_keep_length_and_turn_by_distance() -> None:
    x, y = randn(1, 1, 1, 16), randn(1, 1, 1, 16, seed=1)

    def at(z: torch.Tensor, place: int) -> torch.Tensor:
        return apply_rope(z, Rope(16).angles(torch.tensor([[place]])))

    assert float(at(x, 9).norm()) == pytest.approx(float(x.norm()), rel=1e-6)
    assert float((at(x, 3) * at(y, 5)).sum()) == pytest.approx(float((at(x, 13) * at(y, 15)).sum()), rel=1e-5)  # only the distance counts
    assert torch.allclose(at(x, 0), x)


def test_multi_axis_rotary_positions_with_equal_axes_are_the_plain_ones() -> None:
    place = torch.tensor([[3, 7]])
    plain, several = Rope(16).angles(place), Rope(16, axes=(2, 3, 3)).angles(place, place[..., None].expand(1, 2, 3))
    assert all(torch.equal(a, b) for a, b in zip(plain, several, strict=True))
    moved = place[..., None].expand(1, 2, 3).clone()
    moved[..., 1] += 1  # a row down: only the second axis's frequencies turn further
    other = Rope(16, axes=(2, 3, 3)).angles(place, moved)[0]
    assert (other != plain[0]).any(dim=1).squeeze().tolist() == [False] * 2 + [True] * 3 + [False] * 3
    with pytest.raises(ConfigError, match="sum to"):
        Rope(16, axes=(2, 2))


def test_grid_sinusoids_are_the_published_table() -> None:
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    wanted = get_2d_sincos_pos_embed(24, 5, base_size=5, output_type="pt").float()
    torch.testing.assert_close(grid_sinusoids(5, 5, 24), wanted, rtol=1e-5, atol=1e-5)


def test_masks_say_who_sees_whom() -> None:
    layout = Layout(torch.tensor([[0, 0, 0, 0, 1, -1]]), torch.tensor([[0, 1, 2, 3, 0, 0]]), torch.tensor([[0, 1, 1, 0, 0, 0]]))
    causal = visible(layout, layout, "causal")[0].int().tolist()
    assert causal[:4] == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    mixed = visible(layout, layout, "mixed")[0].int().tolist()
    assert mixed[1] == [1, 1, 1, 0, 0, 0] and mixed[0] == causal[0] and mixed[4] == [0, 0, 0, 0, 1, 0]
    assert visible(layout, layout, "full")[0, 0].int().tolist() == [1, 1, 1, 1, 0, 0]
    assert visible(layout, layout, "causal").any(dim=-1).all(), "a row that sees nothing becomes NaN"
    with pytest.raises(ConfigError, match="mask rule"):
        visible(layout, layout, "sideways")
    near = visible(layout, layout, "causal", window=2)[0].int().tolist()
    assert near[:5] == [*causal[:2], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], causal[4]]
    assert visible(layout, layout, "mixed", window=2)[0, 1].int().tolist() == mixed[1]
    assert key_mask(torch.tensor([[1, 0], [0, 0]]))[:, 0].tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("rule", ["causal", "mixed"])
def test_a_stack_with_a_cache_is_the_stack_without(rule: str) -> None:
    net = Stack(16, 2, 4, kv_heads=2, norm="rms", gated=True, act="silu", bias=False, qk_norm=True, rope_theta=1e4, rule=rule).build().double()
    x = randn(2, 6, 16)
    whole, cache = net(x), Cache()
    pieces = [net(x[:, :4], cache=cache), net(x[:, 4:5], cache=cache), net(x[:, 5:], cache=cache)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    assert cache.length == 6 and cache.bytes() == 2 * 2 * 2 * 6 * 2 * 4 * 8
    before = cache.length
    net(x[:, :1], cache=cache, keep=False)
    assert cache.length == before, "a look that is not kept changed the cache"


@pytest.mark.parametrize("rule", ["causal", "mixed"])
@pytest.mark.parametrize("extra", [{}, {"parallel": True, "norm_bias": False}, {"sandwich": True, "score_cap": 2.0, "score_scale": 0.3}])
def test_windows_with_a_cache_see_what_they_see_without(rule: str, extra: dict) -> None:
    """Two samples in the first row, a padded one in the second, read in pieces that cut both; what a cache forgot changes nothing."""
    net = Stack(16, 4, 4, windows=(3, None, 4, 3), window_theta=50.0, rule=rule, **extra).build().double()
    segment = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, 2, -1, -1, -1]])
    position = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0]])
    span = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0]])
    x, real, cache = randn(2, 11, 16), segment >= 0, Cache()
    whole = net(x, Layout(segment, position, span))
    pieces = [net(x[:, a:b], Layout(segment[:, a:b], position[:, a:b], span[:, a:b]), cache=cache)
              for a, b in ((0, 4), (4, 5), (5, 8), (8, 9), (9, 11))]
    torch.testing.assert_close(torch.cat(pieces, 1)[real], whole[real])
    torch.testing.assert_close(net(x[:1, :5])[0], whole[0, :5])  # alone, and without a layout
    assert cache.bytes() == 2 * 2 * 16 * 8 * (11 + 2 * 6 + 9), "places that no window sees again are remembered"
    assert cache.rows(torch.tensor([1, 1])).bytes() == cache.bytes()


def test_windows_that_make_no_sense_are_refused() -> None:
    for windows, rule in (((3,), "causal"), ((1, None), "causal"), ((3, None), "full")):
        with pytest.raises(ConfigError, match="windows"):
            Stack(16, 2, 4, windows=windows, rule=rule)
    for changes in ({"parallel": True, "mlp_eps": 1e-4}, {"parallel": True, "post_norm": True}, {"sandwich": True, "post_norm": True}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            Stack(16, 2, 4, **changes).build()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_patches_come_back(channels: int, patch: int, rows: int, columns: int) -> None:
    image = randn(2, channels, rows * patch, columns * patch)
    assert torch.equal(unpatchify(patchify(image, patch), patch, rows, columns), image)


def test_a_picture_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ShapeError, match="does not divide"):
        patchify(randn(1, 3, 7, 8), 4)


def test_experts_of_unequal_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads"):
        sn.Decoder(Stack(16, 2, 4), Stack(16, 2, 2))


@pytest.mark.parametrize("rule", ["full", "causal"])
def test_a_stack_asked_for_few_places_gives_these(rule: str) -> None:
    net, x_BTD = Stack(8, 2, 2, rope_theta=1e4, rule=rule).build().double(), randn(2, 6, 8)
    seen_BTS = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    for mask_BTS in (None, seen_BTS | torch.eye(6, dtype=torch.bool)):
        assert torch.allclose(net(x_BTD, mask_BTS=mask_BTS, targets=2), net(x_BTD, mask_BTS=mask_BTS)[:, :2], rtol=1e-12, atol=1e-12)


def test_a_norm_before_the_mlp_may_have_its_own_eps() -> None:
    net = Stack(8, 1, 2, eps=1e-6, mlp_eps=0.5).build()
    assert (net.blocks[0].attention_norm.eps, net.blocks[0].mlp_norm.eps) == (1e-6, 0.5)


def test_mixed_precision_attention_is_close_to_float32() -> None:
    net = Stack(32, 2, 4, norm="rms", qk_norm=True, rope_theta=1e4, rule="causal").build()
    x = randn(2, 9, 32).float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x)
    assert float((mixed.float() - net(x)).detach().norm() / net(x).detach().norm()) < 0.02


def test_muon_makes_updates_orthogonal() -> None:
    for shape in ((1, 12, 30), (2, 30, 12)):
        values = torch.linalg.svdvals(orthogonal(randn(*shape).float()))
        assert float(values.min()) > 0.3 and float(values.max()) < 1.4, values
    weight = torch.nn.Parameter(randn(6, 6).float())
    weight.grad = randn(6, 6, seed=1).float()
    before = weight.detach().clone()
    Muon([weight], lr=0.1).step()
    size = float((weight.detach() - before).square().mean().sqrt())
    assert size == pytest.approx(0.1 * 0.2 * math.sqrt(6) * math.sqrt(1 / 6), rel=0.3)  # as large as AdamW's


@pytest.mark.parametrize(("targets", "sources", "heads", "kv_heads", "width"), (
    (256, 257, 2, 2, 40), (301, 520, 6, 2, 72), (256, 256, 3, 1, 128), (257, 300, 1, 1, 17)))
def test_many_keys_take_the_kernel(targets: int, sources: int, heads: int, kv_heads: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, heads, targets, width).bfloat16().transpose(1, 2) * 3
    key, value = torch.randn(2, sources, kv_heads, 2 * width).bfloat16().chunk(2, dim=-1)
    exact = attend_naive(query.float(), key.float(), value.float(), scale=0.2)

    def off(found: torch.Tensor) -> float:
        return float((found.float() - exact).norm() / exact.norm())

    found = attend(query, key, value, scale=0.2)
    made = kernels.library()
    if made is not None and made.sensorium_attention_width():
        assert torch.equal(found, kernels.attend(query, key, value, 0.2)), "the kernel was not asked"
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert off(found) < 1.2 * off(attend(query, key, value, scale=0.2)) < 0.01
    assert found.shape == query.shape and found.dtype == torch.bfloat16


def test_attention_keeps_a_gradient_and_what_is_not_a_number() -> None:
    query, key, value = torch.randn(3, 1, 256, 2, 16).bfloat16()
    assert attend(query.requires_grad_(), key, value).requires_grad
    key = key.clone()
    key[0, 5, 0] = float("nan")
    found = attend(query.detach(), key, value)
    assert found[..., 0, :].isnan().all() and not found[..., 1, :].isnan().any()
