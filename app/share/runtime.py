"""ONNX Runtime for browsers (onnxruntime-web), one version, believed only by its digests.

npm downloads the package from the registry that it is set up for, or the user names a file or
folder. Nothing is installed, no code of the package runs here, and nothing is unpacked: the few
files that a page needs are read from the archive as data.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from app.core.console import say
from app.core.errors import FetchError, UsageError
from app.data.sets.download import download

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
ARCHIVE_SIZE = 33_106_585
ARCHIVE_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
# Of the package's builds the one without WebGPU and WebGL: half the size of the others.
SCRIPT, MODULE = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs"
WASM = "ort-wasm-simd-threaded.wasm"
FILES = {  # in the package's folder dist/ → SHA-256
    SCRIPT: "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    MODULE: "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
REGISTRY = "NPM_CONFIG_REGISTRY"  # npm reads it, and so does this module where there is no npm
_SECONDS = 1800.0
_BY_HAND = f"run `npm pack {PACKAGE}@{VERSION}` where there is a network, and name {ARCHIVE}"


def runtime_files(source: Path | None) -> dict[str, bytes]:
    """Return the files of onnxruntime-web that a page needs, by their names in ``FILES``.

    Args:
        source: the package as npm packs it (``.tgz``), or a folder with its files, such as
            ``node_modules/onnxruntime-web``; None to download it.

    Raises:
        UsageError: when ``source`` lacks a file, or has another version.
        FetchError: when it cannot be downloaded.
    """
    if source is None:
        with tempfile.TemporaryDirectory() as folder:
            return _read(_fetched(Path(folder)))
    return _read(source)


def _read(source: Path) -> dict[str, bytes]:
    try:
        found = _from_folder(source) if source.is_dir() else _from_archive(source)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UsageError(
            f"expected {ARCHIVE}, or a folder with its files; received {source} ({error}); "
            f"{_BY_HAND}"
        ) from error
    for name, sha256 in FILES.items():
        if name not in found:
            raise UsageError(f"expected {name} in {source}; received none; {_BY_HAND}")
        if (received := hashlib.sha256(found[name]).hexdigest()) != sha256:
            raise UsageError(
                f"expected {name} of {PACKAGE} {VERSION}, SHA-256 {sha256}; received {received} in "
                f"{source}; {_BY_HAND}"
            )
    return found


def _from_folder(folder: Path) -> dict[str, bytes]:
    places = [folder, folder / "dist", folder / "package" / "dist"]
    paths = {place / name for place in places for name in FILES}
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _from_archive(archive: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive, "r:gz") as package:
        for name in FILES:
            try:
                file = package.extractfile(f"package/dist/{name}")
            except KeyError:
                continue
            if file is not None:  # None: it is no file
                found[name] = file.read()
    return found


def _fetched(folder: Path) -> Path:
    """Download the package into a folder; return the archive."""
    npm, registry = shutil.which("npm"), os.environ.get(REGISTRY)
    say(f"Downloading {PACKAGE} {VERSION} (33 MB) …")
    if npm is None and registry:
        url = f"{registry.rstrip('/')}/{PACKAGE}/-/{ARCHIVE}"
        return download(url, folder / ARCHIVE, size=ARCHIVE_SIZE, sha256=ARCHIVE_SHA256)
    if npm is None:
        raise FetchError(
            f"expected npm, which downloads {PACKAGE}; received none; install Node.js, or set "
            f"{REGISTRY}, or {_BY_HAND} with --runtime"
        )
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(folder)]
    command += ["--ignore-scripts", "--prefer-offline", "--fetch-retries=1", "--loglevel=error"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"expected npm to end within {_SECONDS:g} s; it did not") from error
    if done.returncode or not (folder / ARCHIVE).is_file():
        lines = [line for line in done.stdout.splitlines() if line.startswith("npm error")]
        reason = " ".join(" ".join(lines[:3]).split()) or "no message"
        raise FetchError(
            f"expected npm to download {PACKAGE} {VERSION}; received: {reason}; {_BY_HAND} with "
            "--runtime"
        )
    return folder / ARCHIVE
