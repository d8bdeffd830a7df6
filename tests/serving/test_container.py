"""The container: what its image installs is enough to answer, and is what the project tests."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import httpx
from packaging.requirements import Requirement
from photos import encoded, picture
from served import process, tiny_bundle

ROOT = Path(__file__).parents[2]
# Runs the service as if all packages but those in the first argument were not installed.
WITHOUT_OTHERS = """
import sys
from importlib.metadata import packages_distributions
allowed = set(sys.argv.pop(1).split(","))
others = {name for name, owners in packages_distributions().items()
          if not {owner.lower().replace("_", "-") for owner in owners} & allowed}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in others:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not in the image")
sys.meta_path.insert(0, Absent())
from app.core.cli import run
from app.serving.serve import main
sys.exit(run(main, sys.argv[1:]))
"""


def pinned(requirements: str) -> set[str]:
    text = (ROOT / requirements).read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+==[\w.]+)", text, re.MULTILINE))


def names(requirements: str) -> set[str]:
    text = (ROOT / requirements).read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+)", text, re.MULTILINE))


def needed(name: str) -> set[str]:
    """Return a package and all that it needs."""
    found = {name}
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= needed(requirement.name.lower().replace("_", "-"))
    return found


def test_the_image_has_the_versions_that_are_tested():
    assert names("requirements-serve.in") <= names("requirements-base.in")
    assert pinned("requirements-serve.txt") <= pinned("requirements-base.txt")
    assert not {"tensorflow", "keras", "onnx"} & names("requirements-serve.txt")


def test_the_image_gets_files_that_are_there():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    assert set(copied) == {"app", "requirements-serve.txt"}
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in let_in
    assert "\nUSER 10001" in text


def test_what_the_image_has_is_enough_to_answer(tmp_path):
    bundle = tiny_bundle(tmp_path / "bundle")
    packages = set().union(*map(needed, names("requirements-serve.in")))
    assert packages <= names("requirements-serve.txt"), "all of it is pinned"
    command = (sys.executable, "-c", WITHOUT_OTHERS, ",".join(packages))
    headers = {"content-type": "image/jpeg"}
    with process(bundle, command=command) as (_, address, _), httpx.Client(base_url=address) as ask:
        for kind in ("JPEG", "WEBP", "HEIF"):
            photo = encoded(picture(3, (60, 40)), kind)
            answers = ask.post("/v1/predict", content=photo, headers=headers).json()["answers"]
            assert answers[0]["error"] is None
        heat = ask.post("/v1/explain", content=photo, headers=headers)
        assert heat.headers["content-type"] == "image/png"
        assert ask.get("/").status_code == ask.get("/metrics").status_code == 200
