"""``python -m app sort``: by a plan, never over anything, and back again exactly."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from photos import picture
from served import ROOT, tiny_bundle

from app.core.cli import run
from app.scoring import score, sort, sort_steps
from app.scoring.parts import read_part, rows_of
from app.scoring.sort_journal import numbered

pa = pytest.importorskip("pyarrow", reason="PyArrow is optional and not installed")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def scored(bundle: Path, tmp_path: Path) -> Path:
    """Forty photos in four folders, twenty of whose names come twice, a text; answered."""
    for number in range(40):
        path = tmp_path / "photos" / str(number % 4) / f"IMG_{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (40, 30)).save(path)
    (tmp_path / "photos" / "notes.dat").write_text("no photo")
    command = [str(tmp_path / "photos"), "--bundle", str(bundle), "--output"]
    assert run(score.main, [*command, str(tmp_path / "scores")]) == 1
    return tmp_path


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder: its bytes and its time; and every folder."""
    return {
        str(path.relative_to(folder)): (
            sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        if path.is_file()
        else ("", 0)
        for path in folder.rglob("*")
    }


def photos_in(folder: Path) -> dict[str, str]:
    """The bytes of every file but the journal."""
    return {p: digest for p, (digest, _) in tree(folder).items() if digest and "sqlite" not in p}


def sorting(folder: Path, *flags: str) -> int:
    return run(sort.main, [str(folder / "scores"), str(folder / "sorted"), *flags])


def answers(folder: Path) -> dict[str, str]:
    """The folder of each photo's bytes, by its answer."""
    rows = [r for p in (folder / "scores/parts").iterdir() for r in rows_of(p)]
    return {sha256(Path(r["path"]).read_bytes()).hexdigest(): r["label"] or "errors" for r in rows}


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_each_file_goes_to_the_folder_of_its_answer_and_back(scored: Path, mode: str) -> None:
    before, wanted = tree(scored / "photos"), answers(scored)
    assert sorting(scored, f"--{mode}", "--yes") == 0
    after = photos_in(scored / "sorted")
    assert len(after) == 41
    assert {digest: path.split("/")[0] for path, digest in after.items()} == wanted
    assert {"neither", "unsure", "errors", "dog"} <= set(wanted.values())
    assert len(photos_in(scored / "photos")) == (0 if mode == "move" else 41)
    assert sorting(scored, "--yes") == 0  # nothing is left to do
    assert sorting(scored, "--undo") == 0
    assert tree(scored / "photos") == before
    assert not (scored / "sorted").exists()


def test_nothing_happens_without_a_yes(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = tree(scored)
    assert sorting(scored) == 2
    assert "expected --yes" in capsys.readouterr().err
    assert tree(scored) == everything
    assert sorting(scored, "--move", "--plan") == 0
    steps = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(steps) == 41 and len({step["to"].casefold() for step in steps}) == 41
    assert tree(scored) == everything


def test_others_files_are_never_written_over(
    scored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (scored / "sorted").mkdir()
    (scored / "sorted" / "mine.txt").write_text("mine")
    assert sorting(scored, "--yes") == 2
    (scored / "sorted" / "mine.txt").unlink()
    before, taken = tree(scored / "photos"), []

    def squat(mode: sort.Mode, step: sort.Step, root: Path) -> None:
        if not taken:
            taken.append(root / step.target)
            taken[0].write_text("somebody was faster")
        sort_steps.do(mode, step, root)

    monkeypatch.setattr(sort, "do", squat)
    assert sorting(scored, "--move", "--yes") == 1
    assert "something else has its name" in capsys.readouterr().err
    assert taken[0].read_text() == "somebody was faster"
    assert sorting(scored, "--undo") == 0
    assert tree(scored / "photos") == before
    assert taken[0].read_text() == "somebody was faster"
    assert not (scored / "sorted" / "sort.sqlite").exists()


def test_changed_files_stay_and_changed_copies_are_kept(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = scored / "photos" / "0" / "IMG_0.png"
    changed.write_bytes(changed.read_bytes() + b"more")
    (scored / "photos" / "1" / "IMG_0.png").unlink()
    assert sorting(scored, "--yes") == 1
    message = capsys.readouterr().err
    assert "1 left: changed since" in message and "1 left: not there" in message
    edited = next((scored / "sorted").glob("dog/*.png"))
    edited.write_bytes(b"edited")
    assert sorting(scored, "--undo") == 1
    assert edited.read_bytes() == b"edited"
    assert len(list((scored / "sorted").rglob("*.png"))) == 1
    edited.unlink()
    assert sorting(scored, "--undo") == 0
    assert not (scored / "sorted").exists()


def test_a_moved_file_does_not_go_back_over_a_new_one(scored: Path) -> None:
    assert sorting(scored, "--move", "--yes") == 0
    new = scored / "photos" / "0" / "IMG_0.png"
    new.write_text("new")
    assert sorting(scored, "--undo") == 1
    assert new.read_text() == "new"
    assert len(list((scored / "sorted").rglob("*.png"))) == 1


def test_too_little_room_and_other_sorts_are_refused(
    scored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = tree(scored)
    full = shutil.disk_usage(scored)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        assert sorting(scored, "--yes") == 2
        assert "free bytes" in capsys.readouterr().err
        assert tree(scored) == everything
        assert sorting(scored, "--link", "--yes") == 0
    assert sorting(scored, "--move", "--yes") == 2
    assert "--link" in capsys.readouterr().err
    assert run(sort.main, [str(scored / "photos"), str(scored / "new"), "--yes"]) == 2
    assert run(sort.main, [str(scored / "photos" / "notes.dat"), str(scored / "new"), "--yes"]) == 2
    assert not (scored / "new").exists()


def test_rows_that_duckdb_or_pandas_filtered_can_be_sorted(scored: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    parts = scored / "scores/parts/*.parquet"
    rows = f"SELECT * FROM '{parts}' WHERE label = 'dog' AND p_dog >= 0.9"
    connection = duckdb.connect()
    connection.execute(f"COPY ({rows}) TO '{scored / 'dogs.parquet'}'").fetchall()
    number = connection.execute(f"SELECT count(*) FROM ({rows})").fetchall()[0][0]
    assert run(sort.main, [str(scored / "dogs.parquet"), str(scored / "sorted"), "--yes"]) == 0
    assert len(list((scored / "sorted" / "dog").iterdir())) == number > 0


def test_a_look_at_the_plan_of_an_interrupted_sort_moves_nothing(
    scored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def interrupted(mode: sort.Mode, step: sort.Step, root: Path) -> None:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(step)
        sort_steps.do(mode, step, root)

    with monkeypatch.context() as patch:
        patch.setattr(sort, "do", interrupted)
        assert sorting(scored, "--move", "--yes") == 130
    photos = tree(scored / "photos")
    capsys.readouterr()
    assert sorting(scored, "--plan") == 0
    assert capsys.readouterr().out.count("\n") == 41
    assert tree(scored / "photos") == photos
    assert sorting(scored, "--plan", "--undo") == 2
    assert tree(scored / "photos") == photos
    assert sorting(scored, "--move") == 0
    assert len(photos_in(scored / "sorted")) == 41


def test_disks_that_keep_times_to_two_seconds_get_copies(
    scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, before = shutil.copy2, tree(scored / "photos")

    def on_fat(source: Path, target: Path) -> None:
        copy(source, target)
        seconds = int(target.stat().st_mtime) // 2 * 2
        os.utime(target, (seconds, seconds))

    monkeypatch.setattr(shutil, "copy2", on_fat)
    assert sorting(scored, "--yes") == 0
    assert sorting(scored, "--undo") == 0
    assert tree(scored / "photos") == before and not (scored / "sorted").exists()


def test_tables_of_other_programs_are_sorted_once_or_refused_in_a_line(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = (scored / "scores/parts").iterdir()
    rows, table = read_part(part), scored / "table.parquet"
    command = [str(table), str(scored / "sorted"), "--yes"]
    pq.write_table(
        pa.concat_tables([rows, rows]),
        table,
        coerce_timestamps="us",
        allow_truncated_timestamps=True,
    )
    assert run(sort.main, command) == 0
    assert len(photos_in(scored / "sorted")) == 41
    assert run(sort.main, [*command[:2], "--undo"]) == 0
    names = [pa.array([each] * len(rows)) for each in ("sort.sqlite", " .. . ", 7)]
    for label, folder in zip(names, ("sort.sqlite_", "_", "7"), strict=True):
        pq.write_table(rows.set_column(rows.column_names.index("label"), "label", label), table)
        assert run(sort.main, command) == 0
        assert [path.name for path in (scored / "sorted").iterdir() if path.is_dir()] == [folder]
        assert run(sort.main, [*command[:2], "--undo"]) == 0
    nothing = pa.nulls(len(rows), pa.string())
    pq.write_table(rows.set_column(0, "path", nothing), table)
    capsys.readouterr()
    assert run(sort.main, command) == 2
    message = capsys.readouterr().err
    assert "a row has no path" in message and message.count("\n") == 1


def test_numbers_fit_into_names_with_any_ending() -> None:
    assert numbered("IMG_1.jpg", 2) == "IMG_1-2.jpg"
    assert numbered("é" * 125 + ".jpg", 12) == "é" * 124 + "-12.jpg"
    assert numbered("a." + "x" * 253, 2) == "a." + "x" * 251 + "-2"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_ten_interrupted_sorts_are_undone_byte_for_byte(scored: Path, mode: str) -> None:
    many = scored / "many"
    for number in range(25):
        for path in (scored / "photos").rglob("*.png"):
            new = many / str(number) / path.relative_to(scored / "photos")
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, new)
    bundle = next(scored.parent.glob("bundle*/bundle"))
    run(score.main, [str(many), "--bundle", str(bundle), "--output", str(scored / "scores2")])
    before = tree(many)
    command = [sys.executable, "-m", "app", "sort", str(scored / "scores2"), str(scored / "sorted")]
    started = time.monotonic()
    subprocess.run([*command, "--yes", f"--{mode}"], cwd=ROOT, capture_output=True)
    lasts = time.monotonic() - started
    assert run(sort.main, [*command[4:], "--undo"]) == 0
    moments, interrupted = random.Random(0), 0
    for kill in range(10):
        for flags in (["--yes", f"--{mode}"], ["--undo"])[: 1 + kill % 2]:
            begun = subprocess.Popen([*command, *flags], cwd=ROOT, stderr=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL)  # fmt: skip
            time.sleep(moments.uniform(0.3, 0.95) * lasts)
            begun.kill()
            interrupted += begun.wait() < 0
        if (scored / "sorted" / "sort.sqlite").exists():
            assert run(sort.main, [*command[4:], "--undo"]) == 0
        assert tree(many) == before
        assert not (scored / "sorted").exists() or not list((scored / "sorted").iterdir())
    assert interrupted > 5
