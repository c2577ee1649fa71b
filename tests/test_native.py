"""Media at their own sizes: windows are the masked form, nobody sees another medium, and files become patches."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sensorium as sn
from sensorium.codecs.native import from_config
from sensorium.encoders_native import NativeEncoderNet, Sight
from sensorium.layers.attention import attend_naive
from sensorium.layers.positions import Rope

CLOSE = dict(rtol=1e-9, atol=1e-10)  # float64: only the order of sums differs
CODEC = sn.NativeCodec(patch=2)
SIZES = ((1, 8, 12), (3, 20, 8), (1, 4, 4), (2, 12, 28))  # frames, height and width


def tower(**changes: Any) -> NativeEncoderNet:
    torch.manual_seed(0)
    spec = sn.NativeEncoder(**{**dict(patch=2, width=24, depth=3, heads=2, hidden=40, window=4, full=(1,)), **changes})
    return spec.build().double()


def media() -> list[sn.Patches]:
    generator = torch.Generator().manual_seed(1)
    frames = [torch.randn(length, 3, high, wide, generator=generator, dtype=torch.float64) for length, high, wide in SIZES]
    return [CODEC.arrays("video", x).value for x in frames]


def naive(net: NativeEncoderNet, patches: sn.Patches) -> torch.Tensor:
    """Every patch against every other, with masks; positions row by row from the grid."""
    frame, row, column, number = [], [], [], 0
    for length, rows, columns in patches.grid_L3.tolist():
        for _ in range(length):
            for r in range(0, rows, 2):
                for c in range(0, columns, 2):
                    for dr, dc in ((0, 0), (0, 1), (1, 0), (1, 1)):
                        frame.append(number)
                        row.append(r + dr)
                        column.append(c + dc)
            number += 1
    frame, row, column = (torch.tensor(x) for x in (frame, row, column))
    whole = frame[:, None] == frame[None]
    side = net.spec.window
    near = whole if side is None else whole & (row[:, None] // side == row[None] // side) & (column[:, None] // side == column[None] // side)
    quarter = net.spec.width // net.spec.heads // 4
    speed = net.spec.theta ** (-torch.arange(quarter).double() / quarter)
    angle = torch.cat([row[:, None] * speed, column[:, None] * speed], dim=-1)[None, :, None]
    x = net.patch(patches.value_PN)[None]
    for index, block in enumerate(net.stack.blocks):
        mask = whole if index in net.spec.full else near
        query, key, value = block.first(x, None, (angle.cos(), angle.sin()))
        x = block.second(x, attend_naive(query, key, value, mask[None]), None)
    return x


@pytest.mark.parametrize("changes", [{}, dict(window=None, full=()), dict(window=6, full=()), dict(window=2, full=(0, 2)),
                                     dict(gated=False, norm="layer")], ids=str)
def test_windows_are_the_masked_form(changes: dict[str, Any]) -> None:
    net, patches = tower(**changes), sn.Patches.joined(media())
    torch.testing.assert_close(net(patches).x_BPD, naive(net, patches), rtol=1e-6, atol=1e-6)  # angles are worked out in float32


def test_together_is_alone() -> None:
    """A medium, and the gradients that go through it, are the same whatever stands beside it."""
    net, each = tower(), media()
    together = net(sn.Patches.joined(each)).x_BPD[0].split([len(p.value_PN) for p in each])
    for one, patches in zip(together, each, strict=True):
        torch.testing.assert_close(one, net(patches).x_BPD[0], **CLOSE)
    values = [p.value_PN.clone().requires_grad_() for p in each]
    net(sn.Patches.joined([sn.Patches(v, p.grid_L3, 2) for v, p in zip(values, each, strict=True)])).x_BPD[0, : len(values[0])].sum().backward()
    assert values[0].grad.abs().sum() > 0 and all(value.grad.abs().max() == 0 for value in values[1:])


def test_nothing_is_padded() -> None:
    net, patches = tower(), sn.Patches.joined(media())
    frame, place = net.places(patches.grid_L3)
    for number in (frame, net.windows(frame, place)):
        sight = Sight.of(number)
        assert torch.equal(torch.cat([group.flatten() for group in sight.groups])[sight.back_P], torch.arange(len(frame)))
        assert all((number[group] == number[group[:, :1]]).all() for group in sight.groups)
    assert len(sight.groups) < len(number.unique())  # windows of one size go together


def test_each_axis_may_have_a_whole_range_of_frequencies() -> None:
    assert torch.equal(Rope(16, axes=(4, 4), restart=True).frequencies(), Rope(8).frequencies().repeat(2))
    assert torch.equal(Rope(16, axes=(4, 4)).frequencies(), Rope(16).frequencies())


def test_what_does_not_fit_is_refused() -> None:
    net = tower()
    with pytest.raises(sn.ShapeError, match="native encoder got patches"):
        net(sn.Patches(torch.zeros(6, 24), (1, 2, 3), join=2))
    with pytest.raises(sn.ShapeError, match="native encoder got patches"):
        net(sn.Patches(torch.zeros(4, 23), (1, 2, 2), join=2))
    with pytest.raises(sn.ShapeError, match="groups of 4"):
        sn.Merge(8, 8, grouped=True).build()(sn.types.Features(torch.zeros(1, 6, 8)))
    for wrong in (dict(width=20), dict(window=5), dict(full=(7,))):
        with pytest.raises(sn.ConfigError):
            tower(**wrong)
    model = sn.zoo.ENTRIES["qwen_vl_7b"].toy()
    with pytest.raises(sn.ConfigError, match="through sends video"):
        sn.Model(encoders=model.encoders, through={"video": "film"})
    assert model.reads == ("text", "image", "video") and model.places("video") == 1 and "video: through encoders.image" in model.describe()


@pytest.mark.parametrize("setting", [dict(do_resize=False), dict(resample=2), dict(rescale_factor=1.0)])
def test_settings_that_are_not_built_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(sn.ConfigError, match="picture settings"):
        from_config(setting)


def test_sizes_are_whole_groups_within_limits() -> None:
    codec = sn.NativeCodec(least=3136, most=50_000)
    for wide, high in ((5, 900), (640, 480), (28, 28), (3000, 40), (1, 1)):
        size = codec.size(wide, high)
        assert all(side % 28 == 0 and side > 0 for side in size) and (size[0] * size[1] <= 50_000 or min(size) == 28)
    with pytest.raises(sn.MediaError, match="at most 200 times"):
        codec.size(1000, 4)


def film(frames: int = 30, rate: int = 10, kind: str = "mp4") -> bytes:
    """A film whose picture grows lighter from frame to frame."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, mode="w", format=kind) as container:
        track = container.add_stream("mpeg4" if kind == "mp4" else "gif", rate=rate)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p" if kind == "mp4" else "rgb8"
        for index in range(frames):
            picture = np.full((48, 64, 3), 255 * index // frames, dtype=np.uint8)
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=track.pix_fmt)))
        container.mux(track.encode())
    return file.getvalue()


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_film_becomes_patches_with_times(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{kind}").write_bytes(film(kind=kind))
    codec = sn.ClipCodec(sn.NativeCodec(patch=4, least=64, most=4096, mean=(0.0,) * 3, std=(1.0,) * 3), beats_hz=3.0)
    for source in (tmp_path / f"a.{kind}", film(kind=kind)):
        made = codec.encode(sn.Video(source))
        assert made.value.grid_L3.tolist() == [[3, 12, 16]] and made.value.seconds == pytest.approx(1.0)  # 6 of 30 frames in 3 seconds
        assert made.axes[:: 48].tolist() == [[0, 0, 0], [3, 0, 0], [6, 0, 0]] and made.after == 8
        assert made.axes[-1].tolist() == [6, 5, 7]
        light = made.value.value_PN.reshape(3, -1, 3, 2, 16).mean(dim=(1, 2, 4)).flatten()  # of frames 0, 5, 10, ...
        assert light.tolist() == pytest.approx([5 * i / 30 for i in range(6)], abs=0.06)


def test_broken_films_are_named(tmp_path: Path) -> None:
    codec = sn.ClipCodec()
    for source, says in ((tmp_path / "none.mp4", "is missing"), (b"nonsense" * 99, "not a video"), (b"", "not a video"),
                         (film()[:700], "not a video"), (torch.zeros(3, 8, 8), "decoded video"), (torch.zeros(2, 3, 8, 8), "frames a second")):
        with pytest.raises(sn.MediaError, match=says):
            codec.encode(sn.Video(source))
