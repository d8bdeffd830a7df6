"""The wheel: what is in it, and that its command works where there is no checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest
from photos import make_photo
from served import tiny_bundle

from app.__main__ import COMMANDS, SCRIPT

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own."""

    bin: Path
    site_packages: Path

    def run(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment in ``folder``; fail the test when it fails."""
        name, *arguments = command
        done = subprocess.run(
            [self.bin / name, *arguments],
            cwd=folder,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done


def tracked(*paths: str) -> set[str]:
    """Return the files of the checkout that Git knows and that are still there."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, since a build leaves folders; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "checkout" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    # Without isolation, which would download setuptools; requirements-dev.in has it.
    command = [*pip, "--no-build-isolation", "--wheel-dir", str(folder), "."]
    subprocess.run(command, cwd=folder / "checkout", check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    shutil.rmtree(folder / "checkout")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel into a new environment that sees the libraries of this one.

    A .pth file shows them, because tests may have no network to install them from, and
    ``--system-site-packages`` would show those of the Python that this environment was made with.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    scripts = Path(sysconfig.get_path("scripts", "venv", paths))
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    python = str(scripts / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, timeout=300)
    return Installed(scripts, site_packages)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def test_dependencies_stand_in_the_requirements_files_only() -> None:
    dynamic = PROJECT["tool"]["setuptools"]["dynamic"]
    groups = [dynamic["dependencies"], *dynamic["optional-dependencies"].values()]
    for name in [name for group in groups for name in group["file"]]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith("-")], "setuptools reads no options"
    assert not PROJECT["project"].keys() & {"dependencies", "optional-dependencies"}


def test_the_console_script_is_the_command_line() -> None:
    assert PROJECT["project"]["scripts"] == {SCRIPT: "app.__main__:console"}


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_program_and_no_other(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    program = {name for name in names if ".dist-info/" not in name}
    assert program == tracked("app", "train.py", "predict.py")


@pytest.mark.slow
def test_the_wheel_requires_what_the_requirements_files_list(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(file.read(name).decode())
    required: dict[str, set[str]] = {}
    for each in metadata.get_all("Requires-Dist", []):
        library, _, extra = each.partition("; extra == ")
        match = re.match(r"[\w-]+", library)
        assert match is not None
        required.setdefault(extra.strip('"'), set()).add(match[0])
    assert required[""] == listed("requirements-base.in") | listed("requirements.in")
    assert required["gpu"] == listed("requirements-gpu.in")
    assert required["extra"] == listed("requirements-extra.in")
    assert "tensorflow" in required[""], "a plain installation trains"


def listed(name: str) -> set[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+)", text, re.MULTILINE))


@pytest.mark.slow
def test_the_program_is_imported_from_the_wheel_alone(
    installed: Installed, elsewhere: Path
) -> None:
    code = (
        "import os, sys, app, train, predict\n"
        "for module in app, train, predict: print(module.__file__)\n"
        "for path in sys.path: print(os.path.abspath(path))"
    )
    lines = installed.run(elsewhere, "python", "-c", code).stdout.splitlines()
    paths = [Path(line).resolve() for line in lines]
    assert all(path.is_relative_to(installed.site_packages.resolve()) for path in paths[:3])
    libraries = Path(sysconfig.get_path("purelib")).resolve()  # may lie in the checkout: .venv
    assert not [p for p in paths if p.is_relative_to(ROOT) and not p.is_relative_to(libraries)]


@pytest.mark.slow
def test_every_command_explains_itself_by_the_name_it_was_called_by(
    installed: Installed, elsewhere: Path
) -> None:
    said = installed.run(elsewhere, SCRIPT, "--help").stdout
    assert f"usage: {SCRIPT} COMMAND" in said
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", said, re.MULTILINE)
        help_text = installed.run(elsewhere, SCRIPT, name, "--help").stdout
        assert help_text.startswith(f"usage: {SCRIPT} {name} [-h]")


@pytest.mark.slow
def test_it_predicts_from_another_folder(installed: Installed, elsewhere: Path) -> None:
    bundle = tiny_bundle(elsewhere.parent / "bundle")
    make_photo(elsewhere / "photo.jpg")
    done = installed.run(elsewhere, SCRIPT, "predict", "--bundle", str(bundle), "photo.jpg")
    assert done.stdout.startswith("photo.jpg  ")


@pytest.mark.slow
def test_it_draws_trains_and_reports_in_another_folder(
    installed: Installed, elsewhere: Path
) -> None:
    installed.run(elsewhere, SCRIPT, "fetch", "drawn", "photos", "--per-class", "10")
    train = ("train", "--data", "photos", "--smoke", "--weights", "none", "--run", "first")
    installed.run(elsewhere, SCRIPT, *train)
    run = elsewhere / "runs" / "first"
    assert "<h2" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "MODEL_CARD.md").is_file()
    installed.run(elsewhere, SCRIPT, "report", "runs/first", "--notebook", "shared.ipynb")
    text = (elsewhere / "shared.ipynb").read_text(encoding="utf-8")
    assert str(installed.site_packages) not in text
