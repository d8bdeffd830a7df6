"""The bars of trust on all real photos: labels turned round, strangers, neither (marker ``slow``).

One run of stage head on the 5,000 photos, 100 of their labels turned round: some ten minutes.
"""

import json
import random
from pathlib import Path

import pytest
from photos import shared_folder

import train
from app.core.cli import run
from app.core.run_folder import Run
from app.evaluation.findings import Finding, Kind, read_findings
from benchmarks import neither

pytestmark = pytest.mark.slow
TURNED = 100  # 2 %
STRANGERS = {"dog.1043.jpg", "dog.1194.jpg", "dog.1259.jpg", "dog.1895.jpg", "dog.1773.jpg"}


def link_photos(folder: Path) -> set[str]:
    """Make a folder of links to the photos; return the names of those in the wrong class."""
    photos = sorted((shared_folder() / "data" / "cats_vs_dogs_small").glob("*/*/*.jpg"))
    assert len(photos) == 5000
    wrong = set(random.Random(0).sample(photos, TURNED))
    names = set()
    for path in photos:
        split, label = path.parts[-3:-1]
        if path in wrong:
            label = {"cat": "dog", "dog": "cat"}[label]
            names.add(f"{split}/{label}/{path.name}")
        link = folder / split / label / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return names


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Run, set[str]]:
    """Return a run, and the names of the photos whose labels were turned round for it."""
    data, runs = tmp_path_factory.mktemp("turned"), tmp_path_factory.mktemp("runs")
    turned = link_photos(data)
    weights = shared_folder() / "weights" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    argv = ["--data", str(data), "--weights", str(weights), "--stages", "head", "--no-report"]
    assert run(train.main, [*argv, "--runs", str(runs), "--run", "turned"]) == 0
    return Run(runs / "turned"), turned


def listed(run: Run, kind: Kind) -> list[Finding]:
    return [found for found in read_findings(run.audit) if found.finding == kind]


def test_nine_of_ten_labels_turned_round_are_in_the_first_3_percent(trained):
    run, turned = trained
    first = {found.name for found in listed(run, "label")[: round(0.03 * 5000)]}
    assert len(first & turned) >= 0.9 * TURNED


def test_four_of_five_strangers_are_among_the_first_twenty(trained):
    first = {Path(found.name).name for found in listed(trained[0], "outlier")[:20]}
    assert len(first & STRANGERS) >= 4


def test_other_things_are_refused_and_test_photos_are_not(trained, capsys):
    argv = ["--run", str(trained[0].folder), "--json"]
    code = run(neither.main, [*argv, "--neither", str(shared_folder() / "data" / "neither")])
    values = json.loads(capsys.readouterr().out)
    assert code == 0, values
    assert values["neither"]["not settled on"]["auroc"] >= neither.AUROC_BAR
    assert values["neither"]["not settled on"]["refused"] >= neither.REFUSED_BAR
    assert values["test"]["refused"] <= neither.TEST_BAR
    for kind, said in values["drawn"].items():
        assert said["neither"] == said["n"], kind
