"""Two runs side by side, on cases that are computed by hand."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_run

from app.core.cli import run as run_command
from app.core.config import TrainConfig
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.evaluation.paired_tests import bootstrap_interval, holm, mcnemar, paired_interval
from app.report.compare import main
from app.report.comparison import compare, differing, read_compared
from app.report.results import Results, read_results

SURE, UNSURE = 0.9, 0.6  # probabilities of the answer


def answers(right: list[bool], confidence: float) -> list[float]:
    """Probabilities of the second class with which alternating photos are answered so."""
    return [
        confidence if (i % 2 == 1) == correct else 1 - confidence for i, correct in enumerate(right)
    ]


# Ten photos: 6 right in both, 3 only in the second, 1 in neither.
FIRST = answers([True] * 6 + [False] * 4, SURE)
SECOND = answers([True] * 9 + [False], UNSURE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    runs = tmp_path_factory.mktemp("runs")
    config = TrainConfig(data=Path("photos"), seed=3)
    made_up_run(runs / "A", FIRST, config=config)
    other = replace(config, seed=4, stages=("head",))
    made_up_run(runs / "B", SECOND, config=other, metrics={"device": "gpu"})
    return runs / "A", runs / "B"


@pytest.fixture
def results(folders) -> list[Results]:
    return [read_results(Run(folder)) for folder in folders]


def test_mcnemar_is_the_binomial_test_of_the_photos_that_differ():
    """Of 3 that only one is right about, 0 and 3: 2 / 2**3."""
    first, second = np.array([True, False, False, False, False]), np.array([True] * 4 + [False])
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only, found.both_wrong) == (0, 3, 1)
    assert found.p_value == pytest.approx(0.25)
    # 1 against 7: 2 · (1 + 8) / 2**8.
    first, second = np.arange(8) < 1, np.arange(8) >= 1
    assert mcnemar(first, second).p_value == pytest.approx(18 / 256)
    assert mcnemar(first, first).p_value == 1


def test_the_interval_of_paired_accuracies_is_bonett_and_prices():
    """Of 98, 4 and 14: (15 - 5) / 100 ± 1.96 · √((0.05 + 0.15 - 0.1²) / 100) = 0.1 ± 0.0854."""
    assert paired_interval(4, 14, 98) == pytest.approx((0.0146, 0.1854), abs=1e-4)
    low, high = paired_interval(0, 0, 10)
    assert low == -high < 0
    assert paired_interval(0, 1, 1)[1] == 1


def test_the_bootstrap_covers_a_mean_as_its_standard_error_does():
    values = np.random.default_rng(0).normal(0.3, 1, 2000)
    half = 1.96 * values.std() / np.sqrt(2000)
    expected = values.mean() - half, values.mean() + half
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.1 * half)
    assert bootstrap_interval(values[:1]) == (values[0], values[0])


def test_two_runs_are_compared_photo_by_photo(results):
    found = compare(*results)
    assert (found.n, found.asked, found.relabelled) == (10, (10, 10), 0)
    assert (found.first.accuracy, found.second.accuracy) == (0.6, 0.9)
    assert found.accuracy.value == pytest.approx(0.3)
    assert found.mcnemar.p_value == pytest.approx(0.25)
    one = -(6 * np.log(0.9) + 4 * np.log(0.1)) / 10
    two = -(9 * np.log(0.6) + np.log(0.4)) / 10
    assert (found.first.log_loss, found.second.log_loss) == pytest.approx((one, two))
    assert found.log_loss.value == pytest.approx(two - one)
    low, high = found.log_loss.interval_95
    assert low < two - one < high
    photos = [(photo.name, photo.truth, photo.first, photo.second) for photo in found.disagreements]
    assert photos == [
        ("cat/test6.jpg", "cat", "dog", "cat"),
        ("cat/test8.jpg", "cat", "dog", "cat"),
        ("dog/test7.jpg", "dog", "cat", "dog"),
    ]


def test_photos_are_the_same_by_content_whatever_their_names_and_order(folders, results, tmp_path):
    elsewhere = Run(tmp_path / "elsewhere")
    shutil.copytree(folders[1], elsewhere.folder)
    for path in (elsewhere.manifest, elsewhere.predictions):
        as_written = {"encoding": "utf-8", "errors": "surrogateescape"}
        head, *rows = path.read_text(**as_written).splitlines()
        text = "\n".join([head, *reversed(rows)])
        path.write_text(re.sub(r"test(\d)", r"folder/\1", text), **as_written)
    other = replace(read_results(elsewhere), name=results[1].name)
    assert compare(results[0], other) == compare(*results)


def test_only_photos_of_both_count_and_none_with_another_class(results):
    one, two = results
    given = two.predictions["test"]
    few = given.chosen([9, 8, 0, 1])
    turned = replace(few, targets=np.where(np.array(few.names) == "cat/test0.jpg", 1, few.targets))
    found = compare(one, replace(two, predictions={"test": turned}))
    assert (found.n, found.asked, found.relabelled) == (3, (10, 4), 1)
    assert found.mcnemar.second_only == 1
    assert compare(replace(two, predictions={"test": few}), one).n == 4


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"classes": ("cat", "wolf")}, "expected runs of the same classes; received A with cat, d"),
        ({"content": "other bytes"}, "received 10 of A and 10 of C, none of them in both"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(other, message, folders, tmp_path, capsys):
    made_up_run(tmp_path / "C", SECOND, **other)
    assert run_command(main, [str(folders[0]), str(tmp_path / "C")]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.glob("*.html"))


def test_what_was_done_otherwise_is_told_once(results):
    assert differing(results) == {
        "seed": ["3", "4"],
        "stages": ["head,block5", "head"],
        "device in use": ["cpu (made up)", "gpu"],
    }
    assert differing([results[0]] * 2) == {}


def test_the_page_lies_beside_the_runs_and_needs_nothing_else(folders, capsys):
    assert run_command(main, [*map(str, folders)]) == 0
    output = capsys.readouterr().out
    page = folders[0].parent / "compare-A-B.html"
    assert output.splitlines()[-1] == str(page)
    assert re.search(r"^B +6 +1 +1 +2 +10 +– +– +– +8 ", output, re.MULTILINE)
    assert "right in A only: 0, in B only: 3, wrong in both: 1. McNemar's test: p = 0.25." in output
    assert "seed: 3 | 4" in output
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)|http", text)
    assert "No difference is shown." in text
    assert "<td>cat/test6.jpg</td><td>cat</td><td>dog</td><td>cat</td>" in text
    assert re.search(r'<svg class="figure" [^>]*aria-label="Test accuracy of each', text)


def test_json_is_for_programs_and_three_runs_go_against_the_first(folders, tmp_path, capsys):
    copy = shutil.copytree(folders[1], tmp_path / "A")  # of the same name as the first
    page = tmp_path / "page.html"
    argv = [*map(str, [*folders, copy]), "--json", "--output", str(page)]
    assert run_command(main, argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == [str(folders[0]), "B", str(copy)]
    first, second = found["comparisons"]
    assert first["mcnemar"] == second["mcnemar"]
    assert first["accuracy"]["value"] == pytest.approx(0.3)
    assert (first["p_value_holm"], second["p_value_holm"]) == (0.5, 0.5)
    assert found["page"] == str(page)
    assert (
        page.read_text(encoding="utf-8").count("test: p = 0.25, corrected for 2 comparisons 0.5.")
        == 2
    )


def test_names_of_runs_cannot_break_the_page_and_are_told_as_they_are(folders, tmp_path, capsys):
    run = shutil.copytree(folders[1], tmp_path / "<b>B & b")
    page = tmp_path / "page.html"
    assert run_command(main, [str(folders[0]), str(run), "--output", str(page)]) == 0
    assert "in A only: 0, in <b>B & b only: 3, wrong in both: 1." in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "<title>Comparison: A, &lt;b&gt;B &amp; b</title>" in text


def test_holms_correction_by_hand():
    """Of 0.01, 0.04 and 0.03: 3 · 0.01, then 2 · 0.03, then no less than that."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.8]) == [1, 1]
    assert holm([0.04]) == [0.04]


def test_what_is_rare_once_is_not_among_several(tmp_path, capsys):
    made_up_run(tmp_path / "bad", answers([False] * 6 + [True] * 14, SURE))
    names = ["bad", "good", "worse", "equal"]
    made_up_run(tmp_path / "good", answers([True] * 20, SURE))  # p = 0.0312
    made_up_run(tmp_path / "worse", answers([False] * 7 + [True] * 13, SURE))
    made_up_run(tmp_path / "equal", answers([True] + [False] * 6 + [True] * 12 + [False], SURE))
    assert run_command(main, [*(str(tmp_path / name) for name in names)]) == 0
    output = capsys.readouterr().out
    assert "p = 0.0312, corrected for 3 comparisons 0.0938. Chance alone" in output
    page = (tmp_path / f"compare-{'-'.join(names)}.html").read_text(encoding="utf-8")
    assert "is better" not in page


def test_equally_many_right_answers_are_called_so(tmp_path, capsys):
    made_up_run(tmp_path / "A", answers([True, False] + [True] * 18, SURE))
    made_up_run(tmp_path / "B", answers([False, True] + [True] * 18, SURE))
    assert run_command(main, [str(tmp_path / "A"), str(tmp_path / "B")]) == 0
    assert "p = 1. Both are right equally often." in capsys.readouterr().out


def test_a_clear_difference_is_called_one(tmp_path, capsys):
    made_up_run(tmp_path / "good", answers([True] * 20, SURE))
    made_up_run(tmp_path / "bad", answers([False] * 6 + [True] * 14, SURE))
    argv = [str(tmp_path / "bad"), str(tmp_path / "good")]
    assert run_command(main, argv) == 0
    assert "p = 0.0312. So large a difference is rare by chance" in capsys.readouterr().out
    assert "good is better" in (tmp_path / "compare-bad-good.html").read_text(encoding="utf-8")


def test_photos_are_only_read(folders, tmp_path, capsys):
    data = tmp_path / "data"
    inside = made_up_run(tmp_path / "C", SECOND, config=TrainConfig(data=data))
    argv = [str(folders[0]), str(inside.folder), "--output"]
    for place in (data, data / "cat" / "page.html", data / "cat" / "0.jpg"):
        assert run_command(main, [*argv, str(place)]) == 2
        assert "expected a place outside the photos" in capsys.readouterr().err
    assert not data.exists()


def test_neither_an_archive_of_photos_nor_a_runs_files_are_written_over(folders, tmp_path, capsys):
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"photos")
    link = tmp_path / "page.html"
    link.symlink_to(archive)
    run = made_up_run(tmp_path / "C", SECOND, config=TrainConfig(data=archive))
    before = run.metrics.read_bytes()
    argv = [str(folders[0]), str(run.folder), "--output"]
    for place in (archive, link, run.metrics, run.report, tmp_path):
        assert run_command(main, [*argv, str(place)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (archive.read_bytes(), run.metrics.read_bytes()) == (b"photos", before)
    assert not run.report.exists()


def test_a_run_is_not_compared_with_itself(folders, capsys):
    argv = [str(folders[0]), str(folders[0].parent / "B" / ".." / "A")]
    assert run_command(main, argv) == 2
    assert "expected runs that are not the same" in capsys.readouterr().err


def test_settings_that_are_damaged_are_answered_in_one_line(folders, tmp_path, capsys):
    run = made_up_run(tmp_path / "C", SECOND)
    run.config.write_text("{}", encoding="utf-8")
    assert run_command(main, [str(folders[0]), str(run.folder)]) == 2
    assert "config.json stages to be a list of stages" in capsys.readouterr().err


def test_one_run_alone_is_not_compared(folders):
    with pytest.raises(UsageError, match="expected two runs or more"):
        read_compared(folders[:1])
