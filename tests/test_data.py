"""Data: the one sample format from every container, mixtures that know their place, packing that does not leak."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch

import sensorium as sn
from sensorium.samples import parse_sample

LINE = {"parts": [{"image": "dog.png"}, {"text": "a dog"}, {"text": "小狗", "target": True}], "id": "dog"}


def shape_of(sample: sn.Sample) -> list[tuple[str, bool]]:
    return [(part.modality, part.target) for part in sample.parts]


def test_jsonl_reads_parts_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(LINE) + "\n\n" + json.dumps(LINE) + "\n", encoding="utf-8")
    source = sn.open_source(tmp_path / "a.jsonl")
    assert len(source) == 2
    assert shape_of(source[1]) == [("image", False), ("text", False), ("text", True)]
    assert source[0].parts[0].value.source == tmp_path.resolve() / "dog.png"
    assert str(source[0].parts[2].value) == "小狗" and source[0].extra == {"id": "dog"}


def test_tar_reads_the_same_sample(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for key in ("000", "001"):
            line = {"parts": [{"image": "png"}, {"text": key, "target": True}]}
            for name, data in ((f"{key}.json", json.dumps(line).encode()), (f"{key}.png", key.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    source = sn.open_source(tmp_path / "shard.tar")
    assert len(source) == 2
    assert source[1].parts[0].value.source == b"001" and str(source[1].parts[1].value) == "001"


def test_parquet_reads_the_same_sample(tmp_path: Path) -> None:
    line = json.dumps({"parts": [{"image": "picture"}, {"text": "a dog", "target": True}]})
    parquet.write_table(arrow.table({"sample": [line, line], "picture": [b"one", b"two"]}), tmp_path / "a.parquet")
    source = sn.open_source(tmp_path / "a.parquet")
    assert len(source) == 2 and source[1].parts[0].value.source == b"two" and source[1].parts[1].target


@pytest.mark.parametrize(("data", "says"), [
    ([], "no parts"), ({"parts": []}, "no parts"), ({"parts": [{}]}, "part 0"), ({"parts": [{"text": 3}]}, "part 0"),
    ({"parts": [{"text": "a", "image": "b"}]}, "part 0"), ({"parts": [{"text": "a", "target": "yes"}]}, "target true or false"),
])
def test_bad_samples_say_where(data: object, says: str) -> None:
    with pytest.raises(sn.MediaError, match=says):
        parse_sample(data, "a.jsonl, sample 1", Path)


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{not json\n" + json.dumps({"parts": [{"image": "../../etc/passwd"}]}))
    source = sn.open_source(tmp_path / "a.jsonl")
    with pytest.raises(sn.MediaError, match="sample 1: not JSON"):
        source[0]
    with pytest.raises(sn.MediaError, match="outside its folder"):
        source[1]
    (tmp_path / "b.tar").write_bytes(b"nonsense" * 100)
    (tmp_path / "b.parquet").write_bytes(b"nonsense" * 100)
    for name in ("b.tar", "b.parquet", "c.zip", "none.jsonl"):
        with pytest.raises(sn.MediaError):
            sn.open_source(tmp_path / name)


def test_a_mixture_keeps_shares_and_covers_every_epoch() -> None:
    mixture = sn.Mixture((10, 30), weights=(3.0, 1.0), seed=5, block=64)
    places = [mixture.place(k) for k in range(640)]
    assert Counter(source for source, _ in places) == {0: 480, 1: 160}
    first = [index for source, index in places if source == 0]
    assert all(sorted(first[start : start + 10]) == list(range(10)) for start in range(0, 480, 10))
    assert [mixture.place(k) for k in (639, 3, 77)] == [places[639], places[3], places[77]]
    assert places != [sn.Mixture((10, 30), weights=(3.0, 1.0), seed=6, block=64).place(k) for k in range(640)]


def test_a_mixture_refuses_nonsense() -> None:
    for sizes, weights in (((), None), ((3, 0), None), ((3,), (1.0, 2.0)), ((3,), (-1.0,))):
        with pytest.raises(sn.ConfigError, match="mixture got"):
            sn.Mixture(sizes, weights)


def packer(**changes: object) -> sn.Packer:
    return sn.Packer(**{"places": {"image": 4}, "row": 24, "embed": 1, "say": 2, "end": 3, "axes": True, **changes})


def test_a_segment_is_laid_out_as_documented() -> None:
    picture = torch.zeros(3, 8, 8)
    segment = packer().segment([sn.Arrays("image", picture), sn.Arrays("text", [10]), sn.Arrays("text", [20, 21], target=True)])
    assert segment.token == [0, 0, 0, 0, 1, 10, 1, 2, 20, 21, 3]
    assert segment.media == [2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0]
    assert segment.span == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert segment.label == [-100] * 7 + [20, 21, 3, -100]
    assert segment.embeds == [4, 6]
    assert segment.axes[:4] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]


def test_labels_follow_the_context_where_there_is_no_say_token() -> None:
    segment = packer(embed=None, say=None, end=9).segment([sn.Arrays("text", [10, 11]), sn.Arrays("text", [20], target=True)])
    assert segment.token == [10, 11, 20, 9] and segment.label == [-100, 20, 9, -100]


def test_packing_fills_rows_and_keeps_media_in_reading_order() -> None:
    pictures = [torch.full((3, 8, 8), float(i)) for i in range(5)]
    segments = [packer().segment([sn.Arrays("image", p), sn.Arrays("text", [10] * i)]) for i, p in enumerate(pictures)]
    batch = packer().pack(segments, {"image": list(range(5))}, list(range(5)))
    order = [i for row in batch.layout.segment_BT.tolist() for i in dict.fromkeys(row) if i >= 0]
    assert sorted(order) == list(range(5)) and len(batch.token_BT) < 5
    assert batch.media["image"][:, 0, 0, 0].tolist() == [float(i) for i in order]
    flat = batch.layout.segment_BT.flatten()
    assert flat[batch.pairs["image"]].tolist() == list(range(5))
    assert (batch.token_BT.flatten()[batch.pairs["image"]] == 1).all()


def test_what_is_decoded_after_a_short_row_sees_what_its_end_saw() -> None:
    packer = sn.Packer(places={"image": 0}, row=16, markers={"image": 5})
    picture = sn.Arrays("image", torch.zeros(3, 2, 2))
    long, short = [sn.Arrays("text", [1] * 6)], [picture, sn.Arrays("text", [1]), picture, sn.Arrays("text", [2])]
    sees = packer.pack([packer.segment(short), packer.segment(long), packer.segment(short)], alone=True).sees_BT
    assert sees.tolist() == [[0, 0, 1, 1, 1, 1], [-1] * 6, [2, 2, 3, 3, 3, 3]]


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(sn.ConfigError, match="a row holds 24"):
        packer().segment([sn.Arrays("text", [10] * 30)])
    with pytest.raises(sn.ModalityError, match="not audio"):
        packer().segment([sn.Arrays("audio", torch.zeros(1, 1, 1))])
    with pytest.raises(sn.ConfigError, match="starts with a target"):
        packer(say=None).segment([sn.Arrays("text", [1], target=True)])


def test_tiles_are_picked_out_of_all_that_a_row_holds() -> None:
    """Tiles of four features and learned vectors, in any order and number, in two samples that share a row."""
    tiles = sn.Arrays("image", torch.randn(3, 3, 8, 8), pick=torch.tensor([8, 9, -1, 0, 3, -2]))
    plain, alone = sn.Arrays("image", torch.randn(3, 8, 8)), packer(embed=None)
    batch = alone.pack([alone.segment([plain, sn.Arrays("text", [10]), tiles]), alone.segment([tiles, sn.Arrays("text", [10, 11])])])
    assert batch.media["image"].shape == (7, 3, 8, 8) and len(batch.token_BT) == 1
    assert batch.pick["image"].tolist() == [0, 1, 2, 3, 12, 13, -1, 4, 7, -2, 24, 25, -1, 16, 19, -2]
    net, features, here = sn.Splice(own=2, width=5).build(), torch.randn(7, 4, 5), batch.media_BT == 2
    out = net(torch.zeros(*here.shape, 5), here, features, batch.pick["image"])[here]
    for place, pick in enumerate(batch.pick["image"].tolist()):
        assert torch.equal(out[place], features[pick // 4, pick % 4] if pick >= 0 else net.own[-1 - pick])
    with pytest.raises(sn.ShapeError, match="picks from -2"):
        sn.Splice(own=1, width=5).build()(torch.zeros(*here.shape, 5), here, features, batch.pick["image"])


def test_media_at_their_own_sizes_say_how_far_the_next_token_is() -> None:
    """Four joined features of one still, six of another; coordinates go on behind the longest side, not behind the places."""
    small, large = sn.Patches(torch.zeros(16, 5), (1, 4, 4), join=2), sn.Patches(torch.ones(24, 5), (1, 4, 6), join=2)
    axes = [torch.tensor([[0, i // wide, i % wide] for i in range(2 * wide)]) for wide in (2, 3)]
    parts = [sn.Arrays("image", small, axes=axes[0], after=2), sn.Arrays("text", [7]), sn.Arrays("image", large, axes=axes[1], after=3)]
    alone = packer(embed=None)
    segment = alone.segment([*parts, sn.Arrays("text", [8])])
    assert segment.axes[3:6] == [(0, 1, 1), (2, 2, 2), (3, 3, 3)] and segment.axes[-2:] == [(3, 4, 5), (6, 6, 6)]
    batch = alone.pack([segment, alone.segment(parts[:1])], alone=True)
    assert batch.media["image"].grid_L3.tolist() == [[1, 4, 4], [1, 4, 6], [1, 4, 4]] and len(batch.media["image"].value_PN) == 56
    assert batch.next_B.tolist() == [7, 2] and not batch.pick
    with pytest.raises(sn.ShapeError, match="do not fill"):
        sn.Patches(torch.zeros(15, 5), (1, 4, 4))
    with pytest.raises(sn.ShapeError, match="axes have shape"):
        alone.segment([sn.Arrays("image", small, axes=axes[1])])
    with pytest.raises(sn.ShapeError, match="pick goes to 4"):
        alone.segment([sn.Arrays("image", small, pick=torch.tensor([4]))])
