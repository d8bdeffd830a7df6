"""corrections.csv: what was decided counts, whatever ends the program, and whatever names say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import UsageError
from app.data.corrections import (
    Correction,
    CorrectionsLog,
    read_all_corrections,
    read_corrections,
    write_corrections,
)

A, B = "a" * 64, "b" * 64
ROOT = Path(__file__).parents[2]
HOSTILE = [
    'a,"b".jpg', "line\nbreak.jpg", "\r\n.jpg", "=1+1.jpg", "#.jpg", "'.jpg", "sep=;", " .jpg",
    os.fsdecode(b"\xff\xe9.jpg"), "\u202egpj.exe", "<script>.jpg", '"', "\n", "name", "a;b\tc.jpg",
]  # fmt: skip


def decided(path: Path) -> dict[str, tuple[str, str]]:
    return {c.name: (c.decision, c.label) for c in read_corrections(path).values()}


def test_the_last_decision_about_each_photo_counts(tmp_path: Path) -> None:
    log = CorrectionsLog(tmp_path / "corrections.csv")
    assert not log.path.exists()
    log.decide("cat/1.jpg", A, "class", "dog", note="a dog, plainly")
    log.decide("cat/2.jpg", B, "leave_out")
    log.decide("cat/1.jpg", A, "right")
    expected = {"cat/1.jpg": ("right", ""), "cat/2.jpg": ("leave_out", "")}
    assert decided(log.path) == expected
    assert read_corrections(log.path) == log.standing
    assert log.path.read_text().count("\n") == 4


def test_undo_goes_back_to_the_beginning_and_is_a_line_too(tmp_path: Path) -> None:
    log = CorrectionsLog(tmp_path / "corrections.csv")
    log.decide("cat/1.jpg", A, "class", "dog")
    log.decide("cat/2.jpg", B, "skip")
    log.decide("cat/1.jpg", A, "neither")
    before = log.path.read_bytes()
    undone = []
    for _ in range(2):
        last = log.undo()
        assert last is not None
        undone.append((last.name, last.decision))
    assert undone == [("cat/1.jpg", "neither"), ("cat/2.jpg", "skip")]
    assert decided(log.path) == {"cat/1.jpg": ("class", "dog")}
    again = CorrectionsLog(log.path)  # another day
    last = again.undo()
    assert last is not None
    assert (last.decision, again.undo()) == ("class", None)
    assert log.path.read_bytes().startswith(before)
    assert read_corrections(log.path) == {}


def test_a_file_cut_off_at_any_byte_loses_its_last_line_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.csv"
    log, ends, states = CorrectionsLog(whole), [0], [{}, {}]
    lines = [(n, "class", "dog\n", 'say "no"\n') for n in HOSTILE[:4]]
    for name, *rest in lines:
        log.decide(name, A, *rest)
        ends.append(whole.stat().st_size)
        states.append(dict(log.standing))
    log.undo()
    ends.append(whole.stat().st_size)
    states.append(dict(log.standing))
    data = whole.read_bytes()
    header = data.index(b"\n") + 1
    ends.insert(1, header)
    for size in range(len(data) + 1):
        cut = tmp_path / "cut.csv"
        cut.write_bytes(data[:size])
        last = max(n for n, end in enumerate(ends) if end <= size)
        assert read_corrections(cut) == states[last], size
        said = "does not count" in capsys.readouterr().err
        assert said == (size not in ends), size
        CorrectionsLog(cut).decide("new.jpg", B, "right")  # goes on behind the last whole line
        assert read_corrections(cut).keys() == {*states[last], ("new.jpg", B)}, size
        capsys.readouterr()


def test_an_edited_file_with_an_open_quotation_mark_loses_nothing(tmp_path: Path) -> None:
    log = CorrectionsLog(tmp_path / "corrections.csv")
    for number in range(4):
        log.decide(f"cat/{number}.jpg", A, "right")
    edited = log.path.read_bytes().replace(b'"cat/1.jpg"', b'"cat/1.jpg')
    log.path.write_bytes(edited)
    for use in (read_corrections, CorrectionsLog):
        with pytest.raises(UsageError, match="opens in line 3 or later"):
            use(log.path)
    with pytest.raises(UsageError, match="never closes"):
        log.decide("cat/9.jpg", A, "right")
    assert log.path.read_bytes() == edited


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_notes_are_data(name: str, tmp_path: Path) -> None:
    log = CorrectionsLog(tmp_path / "corrections.csv")
    log.decide(name, A, "class", f"dog {name} x", note=name)
    log.decide("other.jpg", B, "neither")
    label = f"dog {name} x"
    found = read_corrections(log.path)
    assert found == log.standing
    assert found[name, A].note == name
    assert found[name, A].label == log.standing[name, A].label == label
    again = tmp_path / "again.csv"
    write_corrections(found, again)
    assert read_corrections(again) == found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1).filter(lambda n: "\0" not in n), st.text())))
def test_any_names_and_notes_come_back(tmp_path_factory, rows) -> None:
    log = CorrectionsLog(tmp_path_factory.mktemp("any") / "corrections.csv")
    for name, note in rows:
        name, note = (t.encode("utf-8", "ignore").decode() for t in (name, note))
        log.decide(name or "x", A, "right", note=note)
    assert read_corrections(log.path) == log.standing if rows else not log.path.exists()


def test_a_killed_review_keeps_every_decision_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    code = (
        "import sys; from pathlib import Path; from app.data.corrections import CorrectionsLog\n"
        f"log = CorrectionsLog(Path({str(path)!r}))\n"
        "for n in range(100_000):\n"
        "    log.decide(f'{n}.jpg', 'a' * 64, 'right'); print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while child.stdout.readline() != b"20\n":
            pass
        child.send_signal(signal.SIGKILL)
        answered = 20 + len(child.stdout.read().split())
    assert len(read_corrections(path)) in (answered + 1, answered + 2)


def test_two_windows_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    logs = [CorrectionsLog(path), CorrectionsLog(path)]

    def decide(number: int) -> None:
        for photo in range(25):
            logs[number].decide(f"{number} {photo}.jpg", A, "right")

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_corrections(path)) == 50
    logs[0].undo()
    logs[1].undo()
    assert len(read_corrections(path)) == 48


def test_a_decision_is_on_the_disk_within_a_key(tmp_path: Path) -> None:
    """With 5,000 photos decided; 100 ms are the bar of a key, with the page around it."""
    path = tmp_path / "corrections.csv"
    photos = [(f"{n}.jpg", A) for n in range(5000)]
    write_corrections({key: Correction("t", *key, "right") for key in photos}, path)
    log, times = CorrectionsLog(path), []
    for name, sha256 in photos[:10]:
        started = time.perf_counter()
        log.decide(name, sha256, "class", "dog")
        assert len(log.standing) == 5000
        times.append(time.perf_counter() - started)
    assert sorted(times)[5] < 0.05


def test_later_files_count(tmp_path: Path) -> None:
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for path, label in zip(paths, ("dog", "fox"), strict=True):
        CorrectionsLog(path).decide("cat/1.jpg", A, "class", label)
    CorrectionsLog(paths[0]).decide("cat/2.jpg", B, "right")
    found = read_all_corrections(paths)
    assert [(c.name, c.label) for c in found.values()] == [("cat/1.jpg", "fox"), ("cat/2.jpg", "")]


def test_what_excel_makes_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    text = f"time;name;sha256;decision;label;note\r\nnow;cat/é.jpg;{A.upper()};class;dog;\r\n"
    path.write_text(text, encoding="utf-8-sig", newline="")
    assert decided(path) == {"cat/é.jpg": ("class", "dog")}
    assert ("cat/é.jpg", A) in read_corrections(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,label\na,b\n", "does not name the columns time, sha256, decision, note"),
        ("time,name,sha256,decision,label,note\nt,n,s,maybe,,\n", "line 2; received 'maybe'"),
        ("time,name,sha256,decision,label,note\nt,n,s,class,,\n", "line 2; received '' beside"),
        ("time,name,sha256,decision,label,note\nt,n,s,right,dog,\n", "received 'dog' beside right"),
        ("time,name,sha256,decision,label,note\nt,n,s,class,Neither,\n", "received 'Neither'"),
        ("time,name,sha256,decision,label,note\nt,n,s\n", "received 3; mend the line"),
    ],
)
def test_what_is_no_decision_is_told_by_its_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as failed:
        read_corrections(path)
    assert told in str(failed.value)
    with pytest.raises(UsageError):
        CorrectionsLog(path)
    assert path.read_text() == text


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing there"):
        read_corrections(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="a folder, pipe or device"):
        read_corrections(tmp_path)


@pytest.mark.parametrize(
    ("decision", "label", "told"),
    [("class", " ", "the name of a class"), ("class", "Unsure", "'Unsure'"), ("undo", "", "undo")],
)
def test_no_decision_is_written_that_could_not_be_read(decision, label, told, tmp_path) -> None:
    log = CorrectionsLog(tmp_path / "corrections.csv")
    with pytest.raises(UsageError, match=told):
        log.decide("cat/1.jpg", A, decision, label)
    assert not log.path.exists()
    assert log.decide("cat/1.jpg", A, "class", "Neither").decision == "neither"


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CorrectionsLog(tmp_path / "corrections.csv")
    log.decide("cat/1.jpg", A, "right")
    before = log.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.decide("cat/2.jpg", B, "right")
    assert log.path.read_bytes() == before
    log.decide("cat/3.jpg", B, "right")
    assert list(decided(log.path)) == ["cat/1.jpg", "cat/3.jpg"]
