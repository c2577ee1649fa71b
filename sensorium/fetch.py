"""Fetch: downloads that go on where they stopped and are checked, and where the package registries keep a file.

    fetch                url -> file: continues a ``.part`` file, checks the hash, renames in one step
    npm_registry         the npm registry this machine uses
    python_indexes       the Python package indexes this machine uses (pip's own settings)
    find_in_indexes      package, file name -> url, read off an index's simple page
"""

from __future__ import annotations

import ast
import hashlib
import html.parser
import http.client
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sensorium.types import MediaError

__all__ = ["fetch", "find_in_indexes", "NPM_DEFAULT", "npm_registry", "npm_url", "PYTHON_DEFAULT", "python_indexes", "sha256_of"]

NPM_DEFAULT = "https://registry.npmjs.org"
PYTHON_DEFAULT = "https://pypi.org/simple"
_CHUNK = 1 << 18
_TIMEOUT_S = 60.0
_PAGE_TIMEOUT_S = 20.0
_PAGE_BYTES = 1 << 25


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, path: Path, sha256: str, advance: Callable[[int, int], None] | None = None, size: int | None = None) -> Path:
    """Bring ``url`` to ``path``: nothing to do if it is there and right, otherwise continue or start the download.

    The bytes go to ``path.part``; only a complete file with the wanted hash gets the final name. A killed download goes on where it
    stopped.

    Args:
        url: http, https or file address.
        path: where the file shall lie.
        sha256: wanted hash, in hex.
        advance: called with (bytes so far, bytes in all or 0 if unknown).
        size: wanted bytes, if known; a server that sends more is not listened to any longer.

    Returns:
        ``path``.

    Raises:
        MediaError: cannot be reached, or its hash is not the wanted one (wrong bytes are never given the final name).
    """
    if path.is_file():
        got = sha256_of(path)
        if got != sha256:
            raise MediaError(f"{path}: got sha256 {got}, wanted {sha256}; remove it and run again")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _download(url, part, advance or (lambda done, total: None), size)
    except (OSError, http.client.HTTPException) as error:
        raise MediaError(f"{url} cannot be fetched ({error}); wanted {path.name}. Run again to go on from {part.name}, or put the file "
                         f"into {path.parent} by hand") from error
    got = sha256_of(part)
    if got != sha256:
        part.unlink()
        raise MediaError(f"{url}: got sha256 {got}, wanted {sha256}; what came was removed, run again or set another registry")
    os.replace(part, path)
    return path


def _download(url: str, part: Path, advance: Callable[[int, int], None], size: int | None) -> None:
    """Append what is missing of ``url`` to ``part``; start over when the server does not continue."""
    had = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        reply = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and had:  # nothing after what we have: the hash decides whether it is the whole file
            return
        raise
    with reply:
        continues = had and reply.status == 206
        total = int(reply.headers.get("Content-Length") or 0) + (had if continues else 0)
        done = had if continues else 0
        with open(part, "ab" if continues else "wb") as file:
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                advance(done, total)
                if size is not None and done > size:
                    return
    if total and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def npm_registry(environment: Mapping[str, str] | None = None) -> str:
    """The npm registry to use: ``NPM_CONFIG_REGISTRY``, then what ``npm config`` says, then the public one.

    Args:
        environment: variables to look in; None for the process's own.
    """
    variables = os.environ if environment is None else environment
    for key in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if variables.get(key):
            return variables[key]
    npm = shutil.which("npm", path=variables.get("PATH"))
    if npm:
        answer = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip().startswith("http"):
            return answer.stdout.strip()
    return NPM_DEFAULT


def npm_url(registry: str, name: str, version: str) -> str:
    """Where an npm registry keeps the tarball of a package at one version."""
    return f"{registry.rstrip('/')}/{name}/-/{name.rsplit('/', 1)[-1]}-{version}.tgz"


def python_indexes(listing: str | None = None) -> list[str]:
    """The package indexes to look in, in order: pip's ``index-url`` (or the public one), then its ``extra-index-url``s.

    pip's settings are asked of pip itself, so that its files and its environment variables count.

    Args:
        listing: what ``pip config list`` prints; None asks pip.
    """
    if listing is None:
        answer = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
        listing = answer.stdout if answer.returncode == 0 else ""
        for key in ("index-url", "extra-index-url", "no-index"):  # where there is no pip, the variables still speak
            if (value := os.environ.get("PIP_" + key.upper().replace("-", "_"))) and f":env:.{key}=" not in listing:
                listing += f"\n:env:.{key}={value!r}"
    settings = dict(re.findall(r"^([\w:-]+\.[\w-]+)=(.*)$", listing, re.M))

    def setting(key: str) -> list[str]:
        words = next((settings[f"{section}.{key}"] for section in (":env:", "download", "global") if f"{section}.{key}" in settings), "''")
        return str(ast.literal_eval(words)).split()

    if setting("no-index") and setting("no-index")[0].lower() in ("1", "true", "yes", "on"):
        return []
    return [*(setting("index-url")[:1] or [PYTHON_DEFAULT]), *setting("extra-index-url")]


class _Links(html.parser.HTMLParser):
    """The addresses of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attributes if key == "href" and value]


def find_in_indexes(package: str, file_name: str, indexes: Sequence[str]) -> str:
    """The address of a package's file, from the first index whose page names it.

    Raises:
        MediaError: no index has it; says what each one answered. Indexes with a password in their address are left to pip.
    """
    said = []
    for index in indexes:
        parts = urllib.parse.urlsplit(index)
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # without a name and password
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            said.append(f"{shown} is for pip")
            continue
        page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', package).lower()}/"
        try:
            with urllib.request.urlopen(urllib.request.Request(page, headers={"Accept": "text/html"}), timeout=_PAGE_TIMEOUT_S) as reply:
                links = _Links()
                links.feed(reply.read(_PAGE_BYTES).decode("utf-8", "replace"))
                base = reply.url
        except (OSError, http.client.HTTPException) as error:
            said.append(f"{shown}: {error}")
            continue
        for link in links.found:
            if urllib.parse.unquote(urllib.parse.urlsplit(link).path.rsplit("/", 1)[-1]) == file_name:
                return urllib.parse.urljoin(base, link.split("#")[0])
        said.append(f"{shown} has no {file_name}")
    raise MediaError(f"{file_name}: {'; '.join(said) or 'no package index is set'}")
