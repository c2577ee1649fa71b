"""Samples."""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image as Pillow

import sensorium as sn
from sensorium.desk import Desk
from sensorium.lessons import lay_out, lessons_of

from ..toys import saved_toy

PICTURE = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])  # as datasets 5.2.0 writes Image and Audio
ASK, SAY = {"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A red square."}


def png() -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (32, 32), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def lines(folder: Path, *rows: Any, name: str = "x.jsonl") -> sn.samples.Source:
    """A file of JSON lines beside a red picture and a sound."""
    (folder / "red.png").write_bytes(png())
    (folder / "red.wav").write_bytes(b"RIFF")
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return sn.open_source(folder / name)


def tar(path: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def shown(sample: sn.Sample) -> list[Any]:
    """Texts as they are, media by modality and bytes or file name; answers that are learned end in "!"."""
    out = []
    for part in sample.parts:
        source = None if part.modality == "text" else part.value.source
        said = str(part.value) if source is None else (part.modality, source.name if isinstance(source, Path) else source)
        out.append(f"{said}!" if part.target else f"({said})" if part.role else said)
    return out


def one(folder: Path, row: Any) -> list[Any]:
    return shown(lines(folder, row)[0])


def refused(folder: Path, row: Any) -> str:
    with pytest.raises(sn.MediaError, match=r"^x\.jsonl, sample 1: ") as caught:
        lines(folder, row)[0]
    return str(caught.value)


def labelled(name: str, kind: str = "Image") -> dict[bytes, bytes]:
    """The note that datasets 5.2.0 puts into a schema."""
    features = {name: {"_type": kind}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def test_pictures_and_classes_of_datasets(tmp_path: Path) -> None:
    """Parquet of `datasets` with a picture as struct<bytes, path> and a ClassLabel: the picture, and the class's name as what is learned."""
    cells = arrow.array([{"bytes": b"one", "path": None}, {"bytes": b"two", "path": "b.png"}], PICTURE)
    for name in ("image", "img"):
        table = arrow.table({name: cells, "label": arrow.array([0, 1])}).replace_schema_metadata(labelled(name))
        parquet.write_table(table, tmp_path / "a.parquet")
        source = sn.open_source(tmp_path / "a.parquet")
        assert [shown(source[i]) for i in range(2)] == [[("image", b"one"), "cat!"], [("image", b"two"), "dog!"]]


def test_pictures_by_path_alone(tmp_path: Path) -> None:
    """Parquet of `datasets` whose pictures are paths (`to_parquet` embeds no outside files): the file beside the parquet file."""
    parquet.write_table(arrow.table({"image": arrow.array([{"bytes": None, "path": "red.png"}], PICTURE), "text": ["red"]}), tmp_path / "a.parquet")
    assert shown(sn.open_source(tmp_path / "a.parquet")[0]) == [("image", "red.png"), "red!"]


def test_pictures_named_by_a_sample_column(tmp_path: Path) -> None:
    """Parquet with a `sample` column that names struct<bytes, path> cells: their bytes; a null cell is refused by its row."""
    sample = json.dumps({"parts": [{"image": "picture"}, {"text": "red", "target": True}]})
    cells = arrow.array([{"bytes": b"one", "path": None}, None, {"bytes": None, "path": None}], PICTURE)
    parquet.write_table(arrow.table({"sample": [sample] * 3, "picture": cells, "id": [1, 2, 3]}), tmp_path / "a.parquet")
    source = sn.open_source(tmp_path / "a.parquet")
    assert shown(source[0]) == [("image", b"one"), "red!"] and source[0].extra == {"id": "id"}
    with pytest.raises(sn.MediaError, match="a.parquet, row 1 has no 'picture'"):
        source[1]
    with pytest.raises(sn.MediaError, match="a.parquet, row 2: a medium is empty"):
        source[2]


def test_null_cells(tmp_path: Path) -> None:
    """Parquet with a null picture or a null caption: an error that names the row; a conversation without a picture is one in text."""
    pictures = arrow.array([None, {"bytes": b"one", "path": None}], PICTURE)
    parquet.write_table(arrow.table({"image": pictures, "text": ["red", None]}), tmp_path / "a.parquet")
    source = sn.open_source(tmp_path / "a.parquet")
    for index, says in enumerate(("row 0: image is empty", "row 1: got no parts but image")):
        with pytest.raises(sn.MediaError, match=says):
            source[index]
    parquet.write_table(arrow.table({"image": pictures, "messages": [[ASK, SAY]] * 2}), tmp_path / "b.parquet")
    source = sn.open_source(tmp_path / "b.parquet")
    assert [shown(source[i]) for i in range(2)] == [["What is this?", "A red square.!"], [("image", b"one"), "What is this?", "A red square.!"]]


def test_lists_of_pictures(tmp_path: Path) -> None:
    """Parquet of `datasets` with messages as structs and a list of pictures: each picture where {"type": "image"} stands; nulls are nothing."""
    content = [{"type": "text", "text": "First"}, {"type": "image", "text": None}, {"type": "image", "text": None}]
    said = [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "red"}]}]
    images = arrow.array([[{"bytes": b"one", "path": None}, {"bytes": b"two", "path": None}]], arrow.list_(PICTURE))
    parquet.write_table(arrow.table({"messages": [said], "images": images}), tmp_path / "a.parquet")
    assert shown(sn.open_source(tmp_path / "a.parquet")[0]) == ["First", ("image", b"one"), ("image", b"two"), "red!"]


def test_sounds_of_datasets(tmp_path: Path) -> None:
    """Parquet of `datasets` with a sound as struct<bytes, path>, texts as large_string and as a dictionary: the sound and its sentence."""
    sounds = arrow.array([{"bytes": b"one", "path": "a.wav"}] * 2, PICTURE)
    for number, texts in enumerate((arrow.array(["yes", "no"], arrow.large_string()), arrow.array(["yes", "no"]).dictionary_encode())):
        parquet.write_table(arrow.table({"audio": sounds, "sentence": texts}), tmp_path / f"{number}.parquet")
        assert shown(sn.open_source(tmp_path / f"{number}.parquet")[1]) == [("audio", b"one"), "no!"]


def test_datasets_saved_to_disk(tmp_path: Path) -> None:
    """A folder of `save_to_disk` (arrow streams): its rows; a folder of several splits is refused, with a split to give instead."""
    for name in ("train", "test"):
        folder = tmp_path / "all" / name
        folder.mkdir(parents=True)
        table = arrow.table({"image": arrow.array([{"bytes": name.encode(), "path": None}], PICTURE), "text": [name]})
        for number in range(2):
            with arrow.ipc.new_stream(str(folder / f"data-{number:05d}-of-00002.arrow"), table.schema) as file:
                file.write_table(table)
        (folder / "state.json").write_text("{}")
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = sn.open_source(tmp_path / "all" / "test")
    assert len(source) == 2 and shown(source[1]) == [("image", b"test"), "test!"]
    with pytest.raises(sn.MediaError, match="a dataset in test, train; give one of them"):
        sn.open_source(tmp_path / "all")
    for name in ("train", "test"):
        shutil.rmtree(tmp_path / "all" / name)
    with pytest.raises(sn.MediaError, match="none of the splits"):
        sn.open_source(tmp_path / "all")


@pytest.mark.parametrize("name", ["shells.jsonl", "shells.json", "shells.csv.gz", "shells.parquet", "shells.arrow", "shells.tar", "shells"])
def test_samples_that_are_not_there(tmp_path: Path, name: str) -> None:
    """A file of samples that is missing: refused, with the nearest name there."""
    (tmp_path / "shelves.jsonl").write_text("{}")
    with pytest.raises(sn.MediaError, match="is missing; wanted a file of samples.*shelves.jsonl"):
        sn.open_source(tmp_path / name)


def test_folders_of_shards(tmp_path: Path) -> None:
    """A folder of train-00000-of-00003.parquet and so on: all their rows in order; with one missing, or of two splits, refused by name."""
    for number in (0, 2, 1):
        table = arrow.table({"question": [f"{number}?"] * (number + 1), "answer": [str(number)] * (number + 1)})
        parquet.write_table(table, tmp_path / f"train-{number:05d}-of-00003.parquet")
    source = sn.open_source(tmp_path)
    assert [shown(source[i])[0] for i in range(len(source))] == ["0?", "1?", "1?", "2?", "2?", "2?"]
    parquet.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(sn.MediaError, match="holds test, train; give each a folder"):
        sn.open_source(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(sn.MediaError, match="lacks 1 of 3 shards, as train-00001-of-00003"):
        sn.open_source(tmp_path)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_folders_of_media_with_metadata(ending: str, tmp_path: Path) -> None:
    """A folder of pictures with metadata.jsonl or metadata.csv (`imagefolder`): what `file_name` names, and the row's text."""
    text = '{"file_name": "sub/red.PNG", "text": "red"}\n' if ending == "jsonl" else 'file_name,text\nsub/red.PNG,"red"\n'
    (tmp_path / f"metadata.{ending}").write_text(text)
    source = sn.open_source(tmp_path)
    assert len(source) == 1 and shown(source[0]) == [("image", "red.PNG"), "red!"]


def test_endings_have_no_case(tmp_path: Path) -> None:
    """A webdataset tar with 0.PNG and 0.json that names "png", or 0.png and 0.JSON: one sample each, as webdataset 1.0.2 reads them."""
    data = json.dumps({"parts": [{"image": "png"}, {"text": "red", "target": True}]}).encode()
    for names in (("0.PNG", "0.json"), ("0.png", "0.JSON"), ("./0.Png", "./0.Json")):
        source = sn.open_source(tar(tmp_path / "a.tar", (names[0], b"one"), (names[1], data)))
        assert len(source) == 1 and shown(source[0]) == [("image", b"one"), "red!"]


def test_keys_end_at_the_first_dot_of_the_name(tmp_path: Path) -> None:
    """A webdataset tar with folders, endings of several dots, and samples that alternate: the keys of webdataset 1.0.2; the rest is counted."""
    def parts(name: str) -> bytes:
        return json.dumps({"parts": [{"image": name}, {"text": "red", "target": True}]}).encode()

    source = sn.open_source(tar(tmp_path / "a.tar", ("v1.0/0.png", b"zero"), ("v1.0/1.seg.png", b"mask"), ("v1.0/0.json", parts("png")),
                                ("v1.0/1.png", b"one"), ("v1.0/1.json", parts("seg.png")), (".hidden.png", b"no"), ("README.md", b"no")))
    assert [shown(source[i])[0] for i in range(len(source))] == [("image", b"zero"), ("image", b"mask")]
    assert source[1].extra == {"png": "png"} and "2 files left out, as '.hidden.png'" in source.notes[0]


def test_tars_without_parts(tmp_path: Path) -> None:
    """A webdataset tar with a picture and its .txt or .cls: caption or class is learned; .json and .npy beside them are counted."""
    source = sn.open_source(tar(tmp_path / "a.tar", ("0.jpg", b"one"), ("0.txt", "红".encode()), ("0.json", b'{"url": "x"}'), ("0.npy", b"n"),
                                ("1.cls", b"7"), ("1.webp", b"two"), ("2.wav", b"w"), ("2.npy", b"n")))
    assert [shown(source[i]) for i in range(2)] == [[("image", b"one"), "红!"], [("image", b"two"), "7!"]]
    assert source[0].extra == {"npy": "npy", "url": "x"}
    with pytest.raises(sn.MediaError, match="a.tar, 2: got no parts but wav"):
        source[2]


def test_conversations_in_tars(tmp_path: Path) -> None:
    """A webdataset tar with LLaVA's conversations in .json and the picture beside: the picture where <image> stands."""
    data = {"id": "7", "conversations": [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "red"}]}
    source = sn.open_source(tar(tmp_path / "a.tar", ("7.jpg", b"one"), ("7.json", json.dumps(data).encode())))
    assert shown(source[0]) == ["What?", ("image", b"one"), "red!"] and source[0].extra == {"id": "7"}


def test_long_names_and_packed_tars(tmp_path: Path) -> None:
    """A tar with names over 100 characters (GNU and pax), packed or not: read as the short and plain one."""
    key = "d" * 90 + "/" + "k" * 90
    for name, form in (("a.tar", tarfile.GNU_FORMAT), ("b.tar", tarfile.PAX_FORMAT), ("c.tar.gz", tarfile.PAX_FORMAT), ("d.tgz", tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / name, "w:gz" if "gz" in name else "w", format=form) as file:
            for ending, data in (("png", b"one"), ("txt", b"red")):
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        assert shown(sn.open_source(tmp_path / name)[0]) == [("image", b"one"), "red!"], name


def test_what_a_tar_may_not_hold(tmp_path: Path) -> None:
    """A tar with a link, the same member twice, an empty picture, or text that is not UTF-8: refused by the member's name."""
    with pytest.raises(sn.MediaError, match="'0.png' twice"):
        sn.open_source(tar(tmp_path / "a.tar", ("0.PNG", b"one"), ("0.txt", b"red"), ("0.png", b"two")))
    with tarfile.open(tmp_path / "b.tar", "w") as file:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(sn.MediaError, match="'0.png' as a link"):
        sn.open_source(tmp_path / "b.tar")
    for members, says in (((("0.png", b""), ("0.txt", b"red")), "c.tar, 0: png is empty"), ((("0.png", b"o"), ("0.txt", b"\xe9")), "0.txt: byte 1"),
                          ((("0.png", b"o"), ("0.json", b'{"parts": "\xe9"}')), "c.tar, 0: byte 12 is not UTF-8")):
        with pytest.raises(sn.MediaError, match=says):
            sn.open_source(tar(tmp_path / "c.tar", *members))[0]


def test_rows_that_were_never_downloaded(tmp_path: Path) -> None:
    """Parquet of img2dataset: a null picture with a failed status is left out, counted and named; the others are picture and caption."""
    table = arrow.table({"url": ["a", "b", "c"], "caption": ["one", "two", "three"], "key": ["0", "1", "2"],
                         "status": ["success", "failed_to_download", "success"], "jpg": [b"1", None, b"3"]})
    parquet.write_table(table, tmp_path / "00000.parquet")
    source = sn.open_source(tmp_path)
    assert [shown(source[i]) for i in range(len(source))] == [[("image", b"1"), "one!"], [("image", b"3"), "three!"]]
    assert source.notes == ("00000.parquet: 1 of 3 rows left out, failed_to_download",)


@pytest.mark.parametrize("kind", ["webdataset", "files"])
def test_folders_of_img2dataset(kind: str, tmp_path: Path) -> None:
    """A folder of img2dataset, in tars or in files, with its tables beside: pictures and captions; what was never downloaded is counted."""
    members = [("000000000.jpg", b"1"), ("000000000.txt", b"one"), ("000000000.json", b'{"caption": "one", "key": "000000000"}')]
    if kind == "webdataset":
        tar(tmp_path / "00000.tar", *members)
    else:
        (tmp_path / "00000").mkdir()
        for name, data in members:
            (tmp_path / "00000" / name).write_bytes(data)
    parquet.write_table(arrow.table({"caption": ["one", "two"], "status": ["success", "failed_to_resize"]}), tmp_path / "00000.parquet")
    source = sn.open_source(tmp_path)
    assert len(source) == 1 and shown(source[0]) == [("image", b"1"), "one!"]
    assert source.notes == ("00000.parquet: 1 of 2 rows left out, failed_to_resize",)


def test_pictures_stand_at_their_marks(tmp_path: Path) -> None:
    """Messages with `images` (LLaMA-Factory, TRL): each picture where <image> stands; without marks, before the first question."""
    asks = [{"role": "user", "content": "<image>\nWhat, and\n<image> what?"}, SAY]
    assert one(tmp_path, {"messages": asks, "images": ["red.png", "b.png"]}) == [
        ("image", "red.png"), "What, and", ("image", "b.png"), " what?", "A red square.!"]
    assert one(tmp_path, {"messages": [ASK, SAY], "images": ["red.png"]}) == [("image", "red.png"), "What is this?", "A red square.!"]
    both = [{"role": "user", "content": "<video>Who says <audio>?"}, SAY]
    assert one(tmp_path, {"messages": both, "videos": ["a.mp4"], "audios": ["red.wav"], "images": []}) == [
        ("video", "a.mp4"), "Who says ", ("audio", "red.wav"), "?", "A red square.!"]


def test_marks_without_pictures(tmp_path: Path) -> None:
    """Marks that are more or fewer than the pictures: refused by the sample; <video> where the sample has no videos is text."""
    asks = [{"role": "user", "content": "<image>What <image>?"}, SAY]
    assert "2 marks <image> stand for 1 of images" in refused(tmp_path, {"messages": asks, "images": ["red.png"]})
    assert "2 marks <image> stand for 0 of images" in refused(tmp_path, {"messages": asks})
    inline = [{"role": "user", "content": [{"image": "red.png"}, {"text": "What?"}]}, SAY]
    assert "0 marks <image> stand for 1" in refused(tmp_path, {"messages": inline, "images": ["b.png"]})
    assert "another key both hold image" in refused(tmp_path, {"messages": [ASK, SAY], "images": ["b.png"], "image": "red.png"})
    html = [{"role": "user", "content": "Is <video> a tag?"}, {"role": "assistant", "content": "<image> is none."}]
    assert one(tmp_path, {"messages": html}) == ["Is <video> a tag?", "<image> is none.!"]


def test_contents_given_piece_by_piece(tmp_path: Path) -> None:
    """Messages whose content is a list, as OpenAI and Qwen write it (image_url, input_audio, "image"): the pieces, each in its place."""
    code = base64.b64encode(b"abc").decode()
    pieces = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{code}"}},
              {"type": "image_url", "image_url": "red.png"}, {"image": "file://red.png"}, {"type": "image", "image": "red.png"},
              {"type": "input_audio", "input_audio": {"data": code, "format": "wav"}}, {"type": "video", "path": "a.mp4"}, {"text": "well?"}]
    red = ("image", "red.png")
    wanted = ["Look:", ("image", b"abc"), red, red, red, ("audio", b"abc"), ("video", "a.mp4"), "well?", "A red square.!"]
    pieces[3] = {"image": f"file://{(tmp_path / 'red.png').resolve()}"}
    assert one(tmp_path, {"messages": [{"role": "user", "content": pieces}, SAY]}) == wanted
    for piece, says in (({"type": "image_url", "image_url": {"url": "https://x/a.png"}}, "nothing is fetched"), ({"type": "refusal"}, "'refusal'"),
                        ({"type": "video", "video": ["1.png", "2.png"]}, r"a medium is \['1.png'"),
                        ({"type": "image", "image": "data:image/png;base64,%%"}, "not base64"), ({"type": "image", "image": ""}, "empty")):
        with pytest.raises(sn.MediaError, match=says):
            one(tmp_path, {"messages": [{"role": "user", "content": [piece]}, SAY]})


def test_lists_of_conversations(tmp_path: Path) -> None:
    """A .json file that is a list of ShareGPT or LLaVA conversations: a sample each; `system` is what the model is told first."""
    said = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
    (tmp_path / "a.json").write_text(json.dumps([{"id": 1, "image": "red.png", "conversations": said}] * 2, indent=1))
    source = sn.open_source(tmp_path / "a.json")
    assert len(source) == 2 and shown(source[1]) == [("image", "red.png"), "What?", "red!"]
    assert source[1].extra == {"id": 1, "system": "Be brief."}


def test_questions_and_answers_by_other_names(tmp_path: Path) -> None:
    """Alpaca (instruction, input, output, history), TRL (prompt, completion) and question with answer: what is asked, and what is learned."""
    assert one(tmp_path, {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["a", "b"]]}) == ["a", "b!", "Add.\n1 2", "3!"]
    assert one(tmp_path, {"instruction": "<image>Name it.", "input": "", "output": "red", "images": ["red.png"]}) == [
        ("image", "red.png"), "Name it.", "red!"]
    assert one(tmp_path, {"prompt": "a", "completion": "b"}) == ["a", "b!"]
    assert one(tmp_path, {"prompt": [ASK, SAY, ASK], "completion": [SAY]}) == ["What is this?", "(A red square.)", "What is this?", "A red square.!"]
    assert one(tmp_path, {"image": "red.png", "question": "What?", "answer": "red"}) == [("image", "red.png"), "What?", "red!"]


def test_answers_that_are_not_to_be_learned(tmp_path: Path) -> None:
    """Answers with weight 0, train false or loss false: read and not learned; other weights, and weights of questions, are refused."""
    for key, value in (("weight", 0), ("train", False), ("loss", 0.0)):
        source = lines(tmp_path, {"messages": [ASK, {**SAY, key: value}, ASK, {**SAY, key: 1}]})
        assert shown(source[0]) == ["What is this?", "(A red square.)", "What is this?", "A red square.!"]
    ((messages, answer),) = lessons_of(source[0], "sample 1")
    assert [message.role for message in messages] == ["user", "assistant", "user"] and answer == "A red square."
    assert "to be learned with 0.5" in refused(tmp_path, {"messages": [ASK, {**SAY, "weight": 0.5}]})
    assert "to be learned with True" in refused(tmp_path, {"messages": [{**ASK, "train": True}, SAY]})


def test_conversations_that_cannot_be_learned(tmp_path: Path) -> None:
    """Tool calls, reasoning, preferences, answers that hold pictures, a second system message: refused by the sample, and what it holds."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    for row, says in (({"messages": [ASK, call]}, "message 1 uses tools"), ({"messages": [ASK, {"role": "tool", "content": "3"}]}, "uses tools"),
                      ({"messages": [ASK, {**SAY, "reasoning_content": "hm"}]}, "holds reasoning_content"),
                      ({"messages": [ASK, {"role": "assistant", "content": None}]}, "no content"),
                      ({"prompt": "a", "chosen": "b", "rejected": "c"}, "good and bad answers"),
                      ({"prompt": "a", "completion": "b", "label": False}, "good and bad answers"),
                      ({"messages": [ASK, {"role": "assistant", "content": [{"image": "red.png"}]}]}, "holds image; wanted text"),
                      ({"messages": [ASK, SAY, {"role": "system", "content": "x"}]}, "as the first"),
                      ({"messages": [{"role": "system", "content": "x"}, ASK, SAY], "system": "y"}, "system stands beside"),
                      ({"messages": [{"role": {}, "content": 3}]}, "the role '{}'"), ({"messages": "hi"}, "a conversation is 'hi'"),
                      ({"instruction": "a", "output": "b", "history": 3}, "history is 3"), ({"prompt": "a", "completion": 3}, "the answer is '3'"),
                      ({"messages": [{"role": "user", "content": [{"type": {}}]}]}, "holds '{}'"),
                      ({"text": "a page"}, "got no parts but text"), ({"image": "red.png", "text": "a", "caption": "b"}, "text and caption")):
        assert says in refused(tmp_path, row), row


def test_parts_hold_what_is_known(tmp_path: Path) -> None:
    """A part with a key that is not known, a wrong role, or the same key twice: refused by the part; role "assistant" is an answer only read."""
    parts = [{"text": "a"}, {"text": "b", "role": "assistant"}, {"text": "c"}, {"text": "d", "target": True}]
    assert one(tmp_path, {"parts": parts}) == ["a", "(b)", "c", "d!"]
    for item, says in (({"text": "a", "taget": True}, "part 0 holds 'taget'"), ({"image": "red.png", "mask": "m.png"}, "holds 'mask'"),
                       ({"text": "a", "role": "system"}, "the role 'system'"), ({"text": "a", "role": "user", "target": True}, "is a target")):
        assert says in refused(tmp_path, {"parts": [item]}), item
    (tmp_path / "y.jsonl").write_text('{"parts": [{"image": "red.png", "image": "b.png"}]}')
    with pytest.raises(sn.MediaError, match="y.jsonl, sample 1: holds 'image' twice"):
        sn.open_source(tmp_path / "y.jsonl")[0]


def test_files_that_are_not_utf_8(tmp_path: Path) -> None:
    """A .jsonl file in Latin-1: refused by file, line and sample; with a byte order mark, or lines that end as on Windows, it is read."""
    row = json.dumps({"prompt": "café", "completion": "a"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}\n\n' + row.encode("latin-1"))
    with pytest.raises(sn.MediaError, match="a.jsonl, line 3, sample 2: byte 16 is not UTF-8"):
        sn.open_source(tmp_path / "a.jsonl")[1]
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n{row}\r\n".encode())
    source = sn.open_source(tmp_path / "b.jsonl")
    assert len(source) == 2 and shown(source[1])[0] == "café"


def test_packed_files(tmp_path: Path) -> None:
    """A .jsonl.gz or .jsonl.zst file: read as the plain one; one that was cut off is refused."""
    data = b"".join(json.dumps({"prompt": str(i), "completion": "b"}).encode() + b"\n" for i in range(50))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "a.jsonl.zst").write_bytes(arrow.compress(data, "zstd", asbytes=True))
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        source = sn.open_source(tmp_path / name)
        assert len(source) == 50 and shown(source[49]) == ["49", "b!"]
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
        with pytest.raises(sn.MediaError, match="cannot be read"):
            sn.open_source(tmp_path / name)


def test_tables_of_text(tmp_path: Path) -> None:
    """A .csv or .tsv file with question and answer, or image and text: its rows, quoted line breaks too; rows of more or fewer cells are refused."""
    (tmp_path / "a.csv").write_text('question,answer\n"a, b\nc?",d\n')
    assert shown(sn.open_source(tmp_path / "a.csv")[0]) == ["a, b\nc?", "d!"]
    (tmp_path / "a.tsv").write_text("image\ttext\nred.png\tred, round\nred.png\n")
    source = sn.open_source(tmp_path / "a.tsv")
    assert shown(source[0]) == [("image", "red.png"), "red, round!"]
    with pytest.raises(sn.MediaError, match="a.tsv, row 2 has fewer cells"):
        source[1]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(sn.load(saved_toy(tmp_path_factory.mktemp("toy") / "toy")))


def test_what_is_not_learned_is_counted(desk: Desk, tmp_path: Path) -> None:
    """Samples with ids, times of messages, or a question after the last answer: learned without them, each counted by name."""
    rows = [{"messages": [{**ASK, "time": 3}, SAY, ASK], "id": i, "note": None, "weight": 1} for i in range(3)]
    unused: Counter[str] = Counter()
    assert len(lay_out(desk, lines(tmp_path, *rows), unused=unused)) == 3
    assert unused == {"id": 3, "weight": 3, "message's time": 3, "what follows the last answer": 3}


def test_what_would_change_what_is_learned(desk: Desk, tmp_path: Path) -> None:
    """Samples with a mask, a weight, tools, or pictures beside their parts: refused by the sample, not trained without them."""
    parts = [{"text": "dog"}, {"text": "red", "target": True}]
    for key, value in (("weight", 0.5), ("mask", "m.png"), ("loss_mask", [1, 0]), ("tools", [{"name": "x"}]), ("images", ["red.png"]), ("system", 3)):
        with pytest.raises(sn.MediaError, match=f"sample 2: (holds )?{key}"):
            lay_out(desk, lines(tmp_path, {"parts": parts}, {"parts": parts, key: value}))
    with pytest.raises(sn.MediaError, match="sample 1: holds mask.png"):
        data = json.dumps({"parts": [{"image": "png"}, *parts]}).encode()
        lay_out(desk, sn.open_source(tar(tmp_path / "a.tar", ("0.png", png()), ("0.mask.png", png()), ("0.json", data))))


def test_samples_with_files_that_are_not_there(desk: Desk, tmp_path: Path) -> None:
    """Samples whose picture is missing, broken, or of a modality that the model does not read: refused by the sample."""
    answer = {"text": "red", "target": True}
    good = {"parts": [{"image": "red.png"}, answer]}
    (tmp_path / "torn.png").write_bytes(png()[:40])
    for item, error, says in (({"image": "no.png"}, sn.MediaError, "no.png, which is no file"), ({"image": "torn.png"}, sn.MediaError, "torn"),
                              ({"audio": "red.wav"}, sn.ModalityError, "given audio"), ({"text": "word " * 500}, sn.MediaError, "at most 32")):
        with pytest.raises(error, match=f"sample 2: .*{says}"):
            lay_out(desk, lines(tmp_path, good, {"parts": [item, answer]}))


def test_conversations_about_pictures_are_learned(desk: Desk, tmp_path: Path) -> None:
    """Messages with a picture, as parts or as `datasets`, webdataset or LLaVA write them: the very same lesson."""
    said, asked = "A red square.", "What is this?"
    rows = [{"parts": [{"image": "red.png"}, {"text": asked}, {"text": said, "target": True}]},
            {"messages": [{"role": "user", "content": f"<image>{asked}"}, SAY], "images": ["red.png"]},
            {"conversations": [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": said}], "image": "red.png"}]
    data = json.dumps(rows[1] | {"images": ["png"]}).encode()
    sources = [lines(tmp_path, *rows), sn.open_source(tar(tmp_path / "a.tar", ("0.PNG", png()), ("0.json", data)))]
    parquet.write_table(arrow.table({"image": arrow.array([{"bytes": png(), "path": None}], PICTURE), "question": [asked], "answer": [said]}),
                        tmp_path / "a.parquet")
    sources.append(sn.open_source(tmp_path / "a.parquet"))
    segments = [segment for source in sources for segment in lay_out(desk, source)]
    first = segments[0]
    assert len(segments) == 5 and len(first.inputs) == 1 and max(first.label) >= 0
    for segment in segments[1:]:
        assert (segment.token, segment.label, segment.media) == (first.token, first.label, first.media)
        assert segment.inputs[0].value.equal(first.inputs[0].value)
