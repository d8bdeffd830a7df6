"""``python -m app score``: every file once, whatever happens in between."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from photos import picture
from served import ROOT, tiny_bundle

from app.core.cli import run
from app.core.errors import ImageError
from app.data.decode import Pixels, load_image
from app.inference.prediction import Prediction, failed_prediction
from app.inference.predictor import Classifier
from app.scoring import parts, shard
from app.scoring.index import Part, Waiting, open_index
from app.scoring.parts import rows_of
from app.scoring.score import main, report
from app.scoring.sources import Found

pq = pytest.importorskip("pyarrow.parquet", reason="PyArrow is optional and not installed")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photos in three folders, a text, and a photo that is cut off."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    for number in range(60):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (40, 30)).save(path)
    (folder / "notes.dat").write_text("no photo")
    (folder / "a" / "cut.png").write_bytes((folder / "a" / "0.png").read_bytes()[:300])
    return folder


def score(*arguments: str | Path, part_rows: int = 16) -> int:
    return run(main, [*map(str, arguments), "--part-rows", str(part_rows)])


def rows(output: Path) -> list[Row]:
    """All rows in order of their names, without what depends on the order of answering."""
    found = [row for path in (output / "parts").glob("*.parquet") for row in rows_of(path)]
    for row in found:
        del row["number"]
    return sorted(found, key=lambda row: (row["path"], row["member"] or ""))


def test_a_row_for_each_file_says_what_predict_says(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(photos, "--bundle", bundle, "--output", tmp_path / "out", "--json") == 1
    counts = json.loads(capsys.readouterr().out)
    found = rows(tmp_path / "out")
    paths = sorted(str(path) for path in photos.rglob("*") if path.is_file())
    assert [row["path"] for row in found] == paths
    assert counts["files"] == 62 and counts["errors"] == 2 and sum(counts["labels"].values()) == 60
    for row, answer in zip(found, Classifier(bundle).answers(paths), strict=True):
        status = Path(row["path"]).stat()
        assert (row["size"], row["member"]) == (status.st_size, None)
        assert row["modified"] == status.st_mtime_ns
        assert (row["label"], row["error"]) == (answer.label, answer.error)
        if answer.probabilities:
            shares = [row[f"p_{name}"] for name in answer.probabilities]
            assert shares == pytest.approx(list(answer.probabilities.values()), abs=1e-5)
            assert row["novelty"] == pytest.approx(answer.novelty, abs=1e-5)
    assert len({row["label"] for row in found}) > 2
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 4  # of 16, 16, 16 and 14 rows


def test_a_second_call_answers_what_is_new_or_changed_and_nothing_else(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "photos"
    subprocess.run(["cp", "-r", str(photos), str(mine)], check=True)
    arguments = (mine, "--bundle", bundle, "--output", tmp_path / "out", "--json")

    def answered() -> int:
        score(*arguments)
        return int(json.loads(capsys.readouterr().out)["answered_now"])

    assert answered() == 62
    before = rows(tmp_path / "out")
    assert answered() == 0
    assert rows(tmp_path / "out") == before
    (mine / "b" / "1.png").write_bytes((mine / "b" / "4.png").read_bytes())  # changed
    picture(99, (40, 30)).save(mine / "c" / "new.png")
    (mine / "a" / "3.png").unlink()  # its row stays
    assert answered() == 2
    after = {row["path"]: row for row in rows(tmp_path / "out")}
    assert len(after) == len(rows(tmp_path / "out")) == 63
    same, new = after[str(mine / "b" / "1.png")], after[str(mine / "b" / "4.png")]
    assert [same[f"p_{n}"] for n in ("cat", "dog")] == pytest.approx(
        [new[f"p_{n}"] for n in ("cat", "dog")], abs=1e-5
    )
    changed = str(mine / "b" / "1.png")
    assert [after[r["path"]] for r in before if r["path"] != changed] == [
        row for row in before if row["path"] != changed
    ]


def test_a_file_that_could_not_be_read_is_tried_again(
    bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, names = tmp_path / "late.png", tmp_path / "names.txt"
    names.write_text(f"{photos / 'a' / '0.png'}\n{photos / 'a' / '3.png'}\n{late}\n")
    arguments = (names, "--bundle", bundle, "--output", tmp_path / "out")

    def failing(path: Path, size: int) -> Pixels:
        if path.name == "3.png":
            raise ImageError("cannot be read: Input/output error", "unreadable")
        return load_image(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(shard, "load_image", failing)
        assert score(*arguments) == 1
    assert sorted(str(row["error"])[:14] for row in rows(tmp_path / "out")) == [
        "None", "cannot be read", "cannot be read"
    ]  # fmt: skip
    assert score(*arguments) == 1
    assert [row["path"] for row in rows(tmp_path / "out") if row["error"]] == [str(late)]
    picture(1, (40, 30)).save(late)
    assert score(*arguments) == 0
    assert len(rows(tmp_path / "out")) == 3


def test_damaged_and_removed_parts_are_answered_again(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    arguments = (photos, "--bundle", bundle, "--output", tmp_path / "out")
    score(*arguments)
    before = rows(tmp_path / "out")
    first, second, third, _ = sorted((tmp_path / "out/parts").iterdir())
    data = first.read_bytes()
    first.write_bytes(bytes(len(data)))  # of the same size, as after a power cut
    second.unlink()
    third.write_bytes(third.read_bytes()[:-100])
    score(*arguments)
    assert rows(tmp_path / "out") == before


def archives(photos: Path, folder: Path) -> list[Path]:
    """The photos in a zip, a tar and a .tar.gz."""
    made = [folder / name for name in ("p.zip", "p.tar", "p.tgz")]
    with zipfile.ZipFile(made[0], "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(photos.rglob("*")):
            opened.write(path, path.relative_to(photos))
    for path, mode in ((made[1], "w:"), (made[2], "w:gz")):
        with tarfile.open(path, mode) as tar:
            tar.add(photos, "photos")
            link = tarfile.TarInfo("photos/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a/0.png"
            tar.addfile(link)
    return made


def test_members_of_archives_get_the_answers_of_files(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    score(photos, "--bundle", bundle, "--output", tmp_path / "plain")
    plain = {Path(row["path"]).name: row for row in rows(tmp_path / "plain")}
    for archive in archives(photos, tmp_path):
        output = tmp_path / f"{archive.name}-out"
        assert score(archive, "--bundle", bundle, "--output", output) == 1
        found = {Path(row["member"]).name: row for row in rows(output)}
        assert {row["path"] for row in found.values()} == {str(archive)}
        link = found.pop("link.png", {"error": "a link or a device"})
        assert "link or a device" in link["error"]
        assert found.keys() == plain.keys()
        for name, row in found.items():
            assert (row["label"], row["error"], row["size"]) == (
                plain[name]["label"], plain[name]["error"], plain[name]["size"]
            )  # fmt: skip


def test_what_was_in_a_cut_archive_is_answered_and_the_damage_said(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tar, tgz = archives(photos, tmp_path)
    for archive in (tar, tgz):
        data = archive.read_bytes()
        archive.write_bytes(data[: len(data) // 2])
        output = tmp_path / f"{archive.name}-out"
        assert score(archive, "--bundle", bundle, "--output", output) == 1
        assert "get it again" in capsys.readouterr().err
        found = rows(output)
        assert found[0]["member"] is None and found[0]["error"]
        assert sum(row["error"] is None for row in found) > 10


def test_a_packed_bomb_is_left(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.bmp")
            info.size = 5_000_000
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(raw.getvalue()))
    assert score(tmp_path / "bomb.tgz", "--bundle", bundle, "--output", tmp_path / "out") == 1
    assert "as only bombs do" in capsys.readouterr().err


def test_an_archive_that_was_packed_anew_is_read_at_its_new_places(tmp_path: Path) -> None:
    with open_index(tmp_path / "index.sqlite") as index:
        first = Found("/a.tar", "1.png", 512, 9, 9)
        other = Found("/a.tar", "2.png", 1024, 9, 9)
        list(index.add([first, other]))
        index.keep(Part(0, 1, 1, "", {"cat": 1}), [1])
        moved = [each._replace(place=each.place + 512) for each in (first, other)]
        list(index.add(moved))
        assert list(index.waiting(9)) == [[Waiting(2, moved[1])]]


def test_a_class_called_error_is_not_counted_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Found(str(tmp_path), "", 0, 1, 1)
    shares = {"cat": 0.5, "error": 0.5}
    answers = [Prediction("x", name, shares, 0.1, None) for name in ("error", "error", "cat")]
    answers.append(failed_prediction("x", "no photo"))
    answered = [parts.Row(number, found, each, False) for number, each in enumerate(answers)]
    part = parts.write_part(parts.table_of(answered, list(shares)), tmp_path, 0)
    with open_index(tmp_path / "index.sqlite") as index:
        index.keep(part, [])
        assert report(index, tmp_path, 4, 1.0, as_json=True) == 1
    counts = json.loads(capsys.readouterr().out)
    assert (counts["files"], counts["errors"]) == (4, 1)
    assert counts["labels"] == {"error": 2, "cat": 1}


def test_a_folder_of_a_process_that_was_killed_at_its_beginning_is_gone_on_in(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    (output / "parts").mkdir(parents=True)
    (output / ".lock").touch()
    (output / ".score.json.123.part").write_text("{")
    arguments = (photos / "a", "--bundle", bundle, "--output", output)
    (output / "parts" / "mine.txt").touch()
    assert score(*arguments) == 2
    (output / "parts" / "mine.txt").unlink()
    assert score(*arguments) == 1
    assert len(rows(output)) == 21
    assert not (output / ".score.json.123.part").exists()


@pytest.mark.parametrize("form", ["lines", "nul", "table", "utf16", "quoted"])
def test_lists_and_tables_name_files(form: str, bundle: Path, photos: Path, tmp_path: Path) -> None:
    names = sorted(str(path) for path in photos.glob("?/*.png"))[:9]
    texts = {
        "lines": "\r\n".join(names),
        "nul": "".join(f"{name}\0" for name in names),
        "table": "label;path\n" + "".join(f"cat;{name}\n" for name in names),
        "utf16": "\n".join(names),
        "quoted": "path,label\n" + "".join(f'"{name}","a ""b"", c"\n' for name in names),
    }
    path = tmp_path / "names.csv"
    path.write_text(texts[form], encoding="utf-16" if form == "utf16" else "utf-8", newline="")
    score(path, "--bundle", bundle, "--output", tmp_path / "out")
    assert [row["path"] for row in rows(tmp_path / "out")] == names


def test_what_is_meant_twice_is_answered_once(bundle: Path, photos: Path, tmp_path: Path) -> None:
    sources = [photos / "a", f"{photos}/a/*.png", photos / "a" / "0.png"]
    score(*sources, "--bundle", bundle, "--output", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 21


def test_names_of_any_bytes_come_back(bundle: Path, photos: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/in/caf\xe9\n.png"
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(name)).write_bytes((photos / "a" / "0.png").read_bytes())
    assert score(tmp_path / "in", "--bundle", bundle, "--output", tmp_path / "out") == 0
    (row,) = rows(tmp_path / "out")
    assert row["path_bytes"] == name
    assert row["path"].endswith("caf\\xe9\n.png")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert score(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    return output.err


def test_wrong_folders_are_refused_in_a_line(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "mine.txt").touch()
    assert "something else" in refused(capsys, photos, "--bundle", bundle, "--output", others)
    assert [path.name for path in others.iterdir()] == ["mine.txt"]
    inside = photos / "out"
    assert "only read" in refused(capsys, photos, "--bundle", bundle, "--output", inside)
    assert not inside.exists()
    output = tmp_path / "out"
    score(photos / "a", "--bundle", bundle, "--output", output)
    capsys.readouterr()
    message = refused(
        capsys, photos, "--bundle", bundle, "--output", output, "--min-confidence", "0.99"
    )
    assert "confidence 0.6" in message and "0.99" in message
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "received none" in refused(
        capsys, empty, "--bundle", bundle, "--output", tmp_path / "new"
    )
    usual = (photos, "--bundle", bundle, "--output", output)
    for flag in ("--workers", "--worker-cpus"):
        assert "--ray beside" in refused(capsys, *usual, flag, "2")
    (output / "index.sqlite").write_bytes(b"no index" * 1000)
    assert "damaged" in refused(capsys, photos, "--bundle", bundle, "--output", output)


@pytest.mark.parametrize(
    "kind", ["folder", "pattern", "all in it", "deep", "below", "list", "link", "-"]
)
def test_answers_among_the_photos_are_refused_however_these_are_named(
    kind: str,
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "list.txt").write_text(f"{photos}\n")
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{photos}\n".encode())))
    source = {
        "folder": str(photos),
        "pattern": f"{photos.parent}/pho*",
        "all in it": f"{photos}/*",  # the second call would answer the first one's answers
        "deep": f"{photos.parent}/**/o*",
        "below": f"{photos}/**",
        "list": str(tmp_path / "list.txt"),
        "link": f"{tmp_path}/li[n]k",
        "-": "-",
    }[kind]
    for output in (photos / "out", photos / "a" / "out"):
        if output.parent == photos or kind != "-":  # which is read once
            assert "outside of" in refused(capsys, source, "--bundle", bundle, "--output", output)
            assert not output.exists()
    assert score(f"{photos}/a/*.png", "--bundle", bundle, "--output", tmp_path / "out") == 1


def command(bundle: Path, output: Path, *sources: Path, part_rows: int = 16) -> list[str]:
    return [
        sys.executable, "-m", "app", "score", *map(str, sources), "--bundle", str(bundle),
        "--output", str(output), "--part-rows", str(part_rows), "--engine", "onnxruntime",
    ]  # fmt: skip


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def linked(photos: Path, folder: Path, times: int) -> Path:
    """The photos many times under other names."""
    for number in range(times):
        for path in photos.rglob("*.*"):
            new = folder / str(number) / path.relative_to(photos)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.hardlink_to(path)
    return folder


def test_ctrl_c_keeps_what_was_answered(
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    many, numbers = linked(photos, tmp_path / "many", 20), itertools.count()

    def interrupting(path: Path, size: int) -> Pixels:
        if next(numbers) == 700:
            os.kill(os.getpid(), signal.SIGINT)
        return load_image(path, size)

    arguments = (many, "--bundle", bundle, "--output", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(shard, "load_image", interrupting)
        assert score(*arguments, part_rows=10_000) == 130
    assert "goes on where it ended" in capsys.readouterr().err
    assert 500 < len(rows(tmp_path / "out")) < 1240
    assert score(*arguments, part_rows=10_000) == 1
    assert len(rows(tmp_path / "out")) == len({r["path"] for r in rows(tmp_path / "out")}) == 1240


@pytest.mark.slow
def test_ten_kills_change_nothing(bundle: Path, photos: Path, tmp_path: Path) -> None:
    many = linked(photos, tmp_path / "many", 15)
    started = time.monotonic()
    subprocess.run(command(bundle, tmp_path / "whole", many), cwd=ROOT, capture_output=True)
    lasts = time.monotonic() - started
    moments = random.Random(0)
    for kill in range(10):
        begun = start(command(bundle, tmp_path / "killed", many))
        time.sleep(moments.uniform(0.2, 1) * lasts if kill else 0.3)
        begun.kill()
        begun.communicate()
        if kill % 3 == 2:
            subprocess.run(
                command(bundle, tmp_path / "killed", many), cwd=ROOT, capture_output=True
            )
            assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
            for path in (tmp_path / "killed" / "parts").iterdir():
                path.unlink()
    subprocess.run(command(bundle, tmp_path / "killed", many), cwd=ROOT, capture_output=True)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_the_filters_of_the_document_run(
    bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb, _ = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    score(photos, "--bundle", bundle, "--output", tmp_path / "scores")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    (sql,) = re.findall(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (python,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    wanted = [row["path"] for row in rows(tmp_path / "scores") if (row["p_dog"] or 0) >= 0.9]
    for program in (lambda: duckdb.connect().execute(sql).fetchall(), lambda: exec(python, {})):
        program()
        assert set(pq.read_table("dogs.parquet")["path"].to_pylist()) <= set(wanted)
        assert len(pq.read_table("dogs.parquet")) > 0
        Path("dogs.parquet").unlink()
