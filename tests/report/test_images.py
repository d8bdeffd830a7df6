"""The pictures of a report: what is still what it was, and drawings that stand for it."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up import SPLITS, made_up_photos, run_with_photos
from photos import shows_telltale, telltale_photo

import app.report.images
from app.core.run_folder import Run
from app.data.augmentation import make_view
from app.data.sets.synthetic_pets import KINDS
from app.evaluation.findings import Finding
from app.evaluation.prediction_set import PredictionSet
from app.inference.predictor import Classifier
from app.report.first_screen import outcomes, refused, wall
from app.report.html import Parts
from app.report.images import (
    DRAWN_PER_KIND,
    EXCHANGED,
    NO_ANSWERS,
    NO_HEATMAPS,
    PHOTO_SIDE,
    SAMPLES,
    SHOWN,
    VIEWS,
    Album,
    chosen,
    drawn_album,
    exchanged_labels,
    most_unlike,
    photo_album,
    reduced,
    sample_rows,
)
from app.report.results import Results, read_results


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_photos(tmp_path_factory.mktemp("photos"), SPLITS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_with_photos(tmp_path_factory.mktemp("runs") / "made-up")


@pytest.fixture(scope="module")
def results(run: Run) -> Results:
    return read_results(run)


def words(album: Album, **values: Any) -> Parts:
    return Parts("report.html.j2", album=album, **values)


def missing(album: Album, names: list[str]) -> str:
    return words(album).missing(names).text


def with_classes(results: Results, *classes: str) -> Results:
    metrics = dataclasses.replace(results.metrics, classes=classes)
    return dataclasses.replace(results, metrics=metrics)


def test_photos_are_found_in_the_folder(run: Run, results: Results, photos: Path) -> None:
    album = photo_album(results, run.bundle, photos)
    test = results.predictions["test"]
    found = album.outcomes
    numbers = {*chosen(test), *wall(test, found), *refused(test, found)[:SHOWN]}
    wanted = {test.names[n] for n in numbers} | {f.name for f in results.findings}
    assert set(album.images) == wanted | set(album.samples)
    assert all(shows_telltale(image.small) for image in album.images.values())
    size = results.config.image_size
    assert {image.seen.shape for image in album.images.values()} == {(size, size, 3)}
    assert not album.drawn
    assert (album.heatmaps, album.lacking) == ({}, NO_HEATMAPS)
    assert missing(album, list(album.images)) == ""


def test_photos_are_found_in_an_archive(
    run: Run, results: Results, photos: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(photos.rglob("*.jpg")):
            file.write(path, path.relative_to(photos).as_posix())
    there = photo_album(results, run.bundle, photos).images
    assert photo_album(results, run.bundle, archive).images.keys() == there.keys()


def test_photos_that_are_gone_or_changed_have_no_image(
    run: Run, results: Results, photos: Path, tmp_path: Path
) -> None:
    test = results.predictions["test"]
    first, second, *others = (test.names[n] for n in chosen(test))
    for name in [*others, first]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    (tmp_path / first).write_bytes(telltale_photo() + b"\0")
    album = photo_album(results, run.bundle, tmp_path)
    assert set(album.images) == set(others)
    assert "can be shown: 1 of 3;" in missing(album, [first, second, others[0]])


@pytest.mark.parametrize("data", ["nowhere", "broken.zip"])
def test_a_report_is_made_where_all_photos_are_gone(
    data: str, run: Run, results: Results, tmp_path: Path
) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    album = photo_album(results, run.bundle, tmp_path / data)
    assert album.images == {}
    numbers = chosen(results.predictions["test"])[:3]
    say = words(album, classes=results.classes, metrics=results.metrics)
    answers = say.answers(numbers, "mistake")
    assert "<img" not in answers
    assert "href" not in answers, "there is nothing to show whole"
    assert answers.count("<li ") == 3
    assert "can be shown: 0 of 3" in say.missing_answers(numbers).text
    assert "can be shown: 0 of 4" in missing(album, album.samples)


def test_samples_show_each_class_in_turn_and_the_views_that_training_saw(
    run: Run, results: Results, photos: Path
) -> None:
    rows = sample_rows(results)
    assert [row.label for row in rows] == results.classes * 2
    assert {row.split for row in rows} == {"train"}
    album = photo_album(results, run.bundle, photos)
    samples = [album.images[name] for name in album.samples]
    assert [len(image.views) for image in samples] == [2] * SAMPLES, "of three views"
    fresh = dataclasses.replace(results, metrics=dataclasses.replace(results.metrics, views=None))
    assert len(photo_album(fresh, run.bundle, photos).images[rows[0].name].views) == VIEWS
    seen = {"size": results.config.image_size, "seed": results.config.seed}
    pixels = album.images[rows[0].name].small  # smaller than a thumbnail, so it is the photo
    first = make_view(pixels, content=rows[0].sha256, view=1, **seen)
    assert np.array_equal(samples[0].views[0], reduced(first, PHOTO_SIDE))


def test_samples_of_many_classes_are_of_different_ones(tmp_path: Path) -> None:
    names = [f"kind {number}" for number in range(30)]
    results = read_results(run_with_photos(tmp_path / "many", classes=names))
    assert [row.label for row in sample_rows(results)] == names[:SAMPLES]


def test_an_album_of_drawings_has_no_photo(run: Run, results: Results) -> None:
    album = drawn_album(with_classes(results, "Cats", "Dogs"), run.bundle)
    assert album.drawn
    assert list(album.images) == album.samples
    assert len(album.samples) == SAMPLES
    assert not any(shows_telltale(image.small) for image in album.images.values())
    assert not set(album.images) & {row.name for row in results.manifest}
    assert album.lacking == NO_ANSWERS
    assert album.answered is None


def test_of_the_head_alone_no_random_views_are_shown(results: Results, run: Run) -> None:
    config = dataclasses.replace(results.config, stages=("head",))
    head = dataclasses.replace(results, config=config)
    album = drawn_album(with_classes(head, "cat", "dog"), run.bundle)
    assert len(album.samples) == SAMPLES
    assert [album.images[name].views for name in album.samples] == [()] * SAMPLES
    assert '<ul class="gallery single"' in words(album, results=head).views(opening=False)


def test_drawings_are_answered_in_float32_everywhere(
    results: Results, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Noted(Classifier):
        def __init__(self, *arguments: object, **options: object) -> None:
            asked.append(options)
            super().__init__(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(app.report.images, "Classifier", Noted)
    drawn_album(with_classes(results, "cat", "dog"), run.bundle)
    assert asked == [{"precision": "float32"}]


def test_captions_say_where_no_class_would_be_named(results: Results) -> None:
    given = PredictionSet(
        ("a", "b", "c"),
        np.array([0, 0, 1]),
        np.array([[0.1, 0.9], [0.4, 0.6], [0.3, 0.7]]),
        np.array([0.9, 0.1, 0.5]),
    )
    album = Album(False, {}, [], given, [], [], tuple(outcomes(given, 0.7)))
    say = words(album, classes=["x", "y"])
    captions = [say.caption(number).text for number in range(3)]
    assert captions == [
        "True: x. Answer: neither x nor y (likeliest: y, 90.0 %). a",
        "True: x. Answer: unsure: perhaps y, or x (60.0 %). b",
        "True: y. Answer: probably y; could be x (70.0 %). c",
    ]


def test_names_that_are_no_text_can_be_written() -> None:
    name = "cat/<b>\udcff.jpg"
    finding = Finding(name, "label", 1, 0.5, "labelled \udcff")
    album = Album(False, {}, [name], None, [finding], [])
    say = words(album, results=SimpleNamespace(random_views=lambda: 0))
    for part in (say.views(opening=False), say.label_issues(1, 0)):
        part.encode()
        assert "cat/<wbr>&lt;b&gt;\ufffd.jpg" in part
    command = words(album, results=SimpleNamespace(command=lambda: "a <b>\udcff --c d")).command()
    assert "<span>a</span> <span>&lt;b&gt;\ufffd</span> <span>--c</span>" in command


def test_drawings_say_nothing_of_other_classes(run: Run, results: Results) -> None:
    album = drawn_album(with_classes(results, "bird", "fish"), run.bundle)
    assert (
        album.lacking == "The drawings show cats and dogs, which are not the classes of this run."
    )


def test_exchanged_labels_come_first_where_answers_are_right() -> None:
    n = DRAWN_PER_KIND * len(KINDS)
    targets = np.arange(n) % 2
    probabilities = np.where(np.eye(2)[targets] == 1, 0.9, 0.1)
    probabilities[0] = [0.4, 0.6]  # one is answered wrongly, without much confidence
    names = tuple(f"drawing {number}" for number in range(n))
    answered = PredictionSet(names, targets, probabilities, np.zeros(n))
    found = exchanged_labels(answered, ["cat", "dog"])
    assert [" on purpose; " in finding.reason for finding in found] == [True] * EXCHANGED + [False]
    assert found[-1].name == "drawing 0"
    assert found[-1].reason == "labelled cat; answered dog (60.0 %)"
    assert len(found) <= SHOWN


def test_the_drawings_most_unlike_the_others_come_first() -> None:
    novelty = np.array([0.2, 0.9, 0.5])
    answered = PredictionSet(("a", "b", "c"), np.zeros(3, np.int64), np.full((3, 2), 0.5), novelty)
    found = most_unlike(answered)
    assert [(finding.name, finding.rank) for finding in found] == [("b", 1), ("c", 2), ("a", 3)]
    assert found[0].reason == "novelty 0.900"
