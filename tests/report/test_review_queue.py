"""The list of photos to look at: which stand in it, in which order, and what is said of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from made_up import made_up_run

from app.__main__ import main
from app.core.errors import BundleError
from app.core.run_folder import Run
from app.data.corrections import CorrectionsLog, write_corrections
from app.data.manifest import ManifestRow, read_manifest, write_manifest
from app.evaluation.findings import Finding, OutOfFoldAnswer, write_findings, write_out_of_fold
from app.report.review_queue import ReviewItem, read_review_queue

# Of 20 test photos all but the first are answered rightly, and for sure.
TEST = [0.95, *(0.1 + 0.8 * (i % 2) for i in range(1, 20))]
FOUND = [
    Finding("cat/train0.jpg", "label", 1, 0.98, "labelled cat; a model that never saw it says dog"),
    Finding("dog/train1.jpg", "outlier", 1, 0.4, "distance 0.4"),
    Finding("cat/train0.jpg", "outlier", 2, 0.3, "distance 0.3"),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = made_up_run(tmp_path / "run", TEST, findings=FOUND, validation=6)
    answers = [
        OutOfFoldAnswer("cat/train0.jpg", "cat", "dog", 0.99, 0.01),
        OutOfFoldAnswer("dog/train1.jpg", "dog", "dog", 0.8, 0.8),
        OutOfFoldAnswer("cat/train2.jpg", "cat", "dog", 0.7, 0.3),
        OutOfFoldAnswer("dog/train3.jpg", "dog", "cat", 0.6, 0.4),
    ]
    answers += [
        OutOfFoldAnswer(row.name, row.label, row.label, 0.9, 0.9)
        for row in read_manifest(run.manifest)
        if row.split == "validation"
    ]
    write_out_of_fold(answers, run.out_of_fold)
    return run


def with_rows(run: Run, **changes: dict[str, str]) -> None:
    """Change rows of the manifest; names without a slash and dot are not written in Python."""
    rows = [
        dataclasses.replace(row, **changes.get(Path(row.name).stem, {}))
        for row in read_manifest(run.manifest)
    ]
    write_manifest(rows, run.manifest)


def names(queue: list[ReviewItem]) -> list[str]:
    return [item.name for item in queue]


def test_the_surest_come_first_each_photo_once_and_test_last(run: Run) -> None:
    queue = read_review_queue(run)
    assert names(queue) == [
        "cat/train0.jpg",
        "cat/train2.jpg",
        "dog/train3.jpg",
        "dog/train1.jpg",
        "cat/b\udcffd.jpg",
        "cat/test0.jpg",
    ]
    assert [item.place for item in queue] == [1, 2, 3, 4, 5, 6]
    assert [item.kinds for item in queue] == [
        ("label", "outlier"), ("mistake",), ("mistake",), ("outlier",), ("refused",), ("label",),
    ]  # fmt: skip
    first = queue[0]
    assert (first.label, first.suggested, first.probability, first.p_label) == (
        "cat", "dog", 0.99, 0.01,
    )  # fmt: skip
    assert first.reasons == (FOUND[0].reason, FOUND[2].reason)
    assert queue[3].suggested == ""
    assert queue[4].reasons == ("damaged: cut short",)
    assert (queue[4].probability, queue[4].split) == (None, "")
    assert "says dog (95.0 %)" in queue[5].reasons[0]


def test_one_picture_in_several_classes_comes_before_all(run: Run) -> None:
    with_rows(
        run,
        train4={"group": "g", "reason": "nearly the same picture as dog/train5.jpg"},
        train5={"group": "g"},
        train6={"group": "h"},
        train2={"group": "h", "reason": "nearly the same picture as cat/train6.jpg"},
    )
    queue = {item.name: item for item in read_review_queue(run)}
    assert list(queue)[:3] == ["cat/train4.jpg", "dog/train5.jpg", "cat/train0.jpg"]
    assert queue["cat/train4.jpg"].kinds == ("several_classes",)
    assert queue["cat/train4.jpg"].like == ("dog/train5.jpg",)
    assert queue["cat/train2.jpg"].kinds == ("mistake", "near_duplicate")
    assert queue["cat/train6.jpg"].kinds == ("near_duplicate",)


def test_files_that_nobody_misses_are_not_listed(run: Run) -> None:
    rows = read_manifest(run.manifest)
    for code in ("copy", "no_class", "hidden", "excluded", "left_out", "not_a_photo"):
        rows.append(ManifestRow(f"{code}.jpg", "", "", "", "skipped", "why", code=code))
    rows.append(ManifestRow("x/1.jpg", "cat", "", "ee" * 32, "skipped", "two", 1, 1, "", "empty"))
    for place in ("cat/2.jpg", "dog/2.jpg"):
        rows.append(
            ManifestRow(place, place[:3], "", "ff" * 32, "skipped", "in both", 1, 1, "",
                        "several_classes")
        )  # fmt: skip
    write_manifest(rows, run.manifest)
    queue = read_review_queue(run)
    assert names(queue)[:2] == ["cat/2.jpg", "dog/2.jpg"]
    assert queue[0].like == ("dog/2.jpg",)
    assert not {f"{code}.jpg" for code in ("copy", "no_class", "hidden")} & {*names(queue)}
    assert "x/1.jpg" in names(queue)


def test_what_was_decided_stands_beside_it(run: Run) -> None:
    queue = {item.name: item for item in read_review_queue(run)}
    one, other = queue["cat/train0.jpg"], queue["cat/train2.jpg"]
    log = CorrectionsLog(run.corrections)
    log.decide(one.name, one.sha256, "class", "dog")
    log.decide(other.name, "0" * 64, "right")  # of another content
    earlier = CorrectionsLog(run.folder / "earlier.csv")
    third = queue["dog/train3.jpg"]
    earlier.decide(third.name, third.sha256, "right")
    write_corrections(earlier.standing, run.applied)
    now = {item.name: item for item in read_review_queue(run)}
    assert list(now) == list(queue)
    assert (now[one.name].decision, now[one.name].decided_label) == ("class", "dog")
    assert now[other.name].decision is None
    assert now[third.name].decision == "right"
    log.undo()
    log.undo()
    assert {item.decision for item in read_review_queue(run)} == {None, "right"}


def test_a_run_of_an_older_version_is_read(run: Run) -> None:
    run.out_of_fold.unlink()
    assert "cat/train0.jpg" in names(read_review_queue(run))


def test_a_damaged_list_is_told(run: Run) -> None:
    run.out_of_fold.write_text("name\ncat/1.jpg\n")
    with pytest.raises(BundleError, match=r"out_of_fold\.csv as train\.py wrote it"):
        read_review_queue(run)


def test_a_program_reads_one_object_a_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(run.folder), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["name"] for each in found] == names(read_review_queue(run))
    assert found[0]["suggested"] == "dog"


def test_a_person_reads_the_first_that_are_not_decided(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = read_review_queue(run)[0]
    CorrectionsLog(run.corrections).decide(first.name, first.sha256, "right")
    assert main(["review", str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert "1  of these are decided" in out
    assert "cat/train2.jpg: labelled cat; " in out
    assert "cat/train0.jpg:" not in out
    assert "cat/b\\udcffd.jpg" in out


def test_a_list_of_5000_photos_is_made_in_a_second(tmp_path: Path) -> None:
    found = [Finding(f"cat/train{2 * n}.jpg", "label", n, 0.9, "why") for n in range(2500)]
    run = made_up_run(tmp_path / "run", TEST, train=10_000, findings=found)
    write_findings(
        [
            *found,
            *(Finding(f"dog/train{2 * n + 1}.jpg", "outlier", n, 0.9, "") for n in range(2500)),
        ],
        run.audit,
    )
    assert len(read_review_queue(run)) >= 5000
