"""What ``--ray`` is told before Ray begins; ``test_ray.py`` and ``test_ray_features.py`` use it."""

from __future__ import annotations

from pathlib import Path

import pytest
from photos import class_folders

import app.core.environment
import train
from app.core.cli import run
from app.core.ray_workers import RayCluster


def test_without_ray_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = class_folders(tmp_path / "photos", {"cat": 3, "dog": 3})
    find = app.core.environment.find_spec
    monkeypatch.setattr(
        app.core.environment, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    command = ["--data", str(photos), "--runs", str(tmp_path / "runs"), "--ray", "local"]
    assert run(train.main, command) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "python -m pip install ray" in told.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_as_many_workers_as_processors_and_gpus_allow() -> None:
    resources = {"CPU": 16.0, "GPU": 2.0, "memory": 1e9}
    assert RayCluster("local", cpus=3).room(resources) == 5
    assert RayCluster("local", cpus=3, gpus=1).room(resources) == 2
    assert RayCluster("local", cpus=1, gpus=1).room({"CPU": 16.0}) == 0
