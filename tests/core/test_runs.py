"""Which run answers: the complete one that finished last, whatever the folders are called."""

import argparse
import json
import os
from pathlib import Path

import pytest

from app.core.errors import BundleError
from app.core.run_folder import Run, finished_run, newest_complete_run
from app.inference.arguments import add_bundle_arguments, bundle_folder


def make_run(folder: Path, finished: str | None, *, bundle: bool = True) -> Run:
    """Fabricate a run; ``finished`` None leaves ``metrics.json`` out."""
    run = Run(folder)
    run.bundle.mkdir(parents=True)
    if bundle:
        (run.bundle / "bundle.json").write_text("{}")
    if finished is not None:
        run.metrics.write_text(json.dumps({"finished": finished}))
    return run


# The newest comes first, last and in between, by name and by the files' own times.
@pytest.mark.parametrize("newest", ["a", "b", "c"])
@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_the_run_that_finished_last_is_the_newest(tmp_path, newest, order):
    for age, name in enumerate(order):
        day = 9 if name == newest else 1 + age
        run = make_run(tmp_path / name, f"2026-01-{day:02}T12:00:00+00:00")
        for path in (run.metrics, run.bundle / "bundle.json", run.folder):
            os.utime(path, (1_000_000 + age, 1_000_000 + age))
    assert newest_complete_run(tmp_path).folder.name == newest


def test_what_is_not_complete_is_never_picked(tmp_path):
    late = "2026-12-31T12:00:00+00:00"
    no_bundle = make_run(tmp_path / "no-bundle", late, bundle=False)
    no_metrics = make_run(tmp_path / "no-metrics", None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text(late)
    assert not no_bundle.is_complete()
    assert not no_metrics.is_complete()
    with pytest.raises(BundleError, match="received none, only 3 unfinished") as caught:
        newest_complete_run(tmp_path)
    assert "\n" not in str(caught.value)
    make_run(tmp_path / "early", "2026-01-01T12:00:00+00:00")
    assert newest_complete_run(tmp_path).folder.name == "early"


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"7", b"{}", b'{"finished": null}']
)
def test_a_damaged_metrics_file_is_no_obstacle(tmp_path, damaged):
    run = make_run(tmp_path / "z", "")
    run.metrics.write_bytes(damaged)
    make_run(tmp_path / "a", "2026-01-01T12:00:00+00:00")
    make_run(tmp_path / "b", "2026-01-02T12:00:00+00:00")
    assert newest_complete_run(tmp_path).folder.name == "b"


@pytest.mark.parametrize("hidden", [[], [".features"], [".features", ".git"]])
def test_hidden_folders_are_no_runs(tmp_path, hidden):
    for name in hidden:
        (tmp_path / name).mkdir()
    with pytest.raises(BundleError, match="received none; train one") as caught:
        newest_complete_run(tmp_path)
    assert "unfinished" not in str(caught.value)
    (tmp_path / "broken-off").mkdir()
    with pytest.raises(BundleError, match="received none, only 1 unfinished"):
        newest_complete_run(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "a file"])
def test_where_there_are_no_runs(tmp_path, name):
    (tmp_path / "a file").write_text("")
    with pytest.raises(BundleError, match="received none; train one"):
        newest_complete_run(tmp_path / name)


def test_a_run_that_is_named_must_be_finished_too(tmp_path):
    """Its bundle may be there already, but nobody has vouched for it."""
    run = make_run(tmp_path / "my run", None)
    run.config.write_text("{}")
    with pytest.raises(BundleError, match=r"not finished; resume it with .*--resume '.*/my run'"):
        finished_run(tmp_path, "my run")
    with pytest.raises(
        BundleError, match=r"only 1 unfinished; resume it with .*--resume '.*/my run'"
    ):
        newest_complete_run(tmp_path)
    run.metrics.write_text("{}")
    assert finished_run(tmp_path, "my run") == run
    assert finished_run(tmp_path, "nothing").folder == tmp_path / "nothing"


def test_who_answers_is_said_where_nobody_chose(tmp_path, capsys):
    make_run(tmp_path / "first", "2026-01-31T12:05:00+00:00")
    parser = argparse.ArgumentParser()
    add_bundle_arguments(parser)

    def told(*argv: str) -> str:
        folder = bundle_folder(parser.parse_args(["--runs", str(tmp_path), *argv]))
        assert folder == tmp_path / "first" / "bundle"
        out, err = capsys.readouterr()
        assert out == ""
        return err

    assert told() == "run first (2026-01-31 12:05 UTC) answers\n"
    assert told("--run", "first") == told("--bundle", str(tmp_path / "first" / "bundle")) == ""
