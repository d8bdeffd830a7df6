"""What each stage may change, and that both sources of its input train the same."""

import numpy as np
import pytest
from small_vgg import (
    BATCH,
    VIEWS,
    SameViews,
    Walk,
    classifier,
    config_of,
    small_network,
    trained_by,
    twelve_photos,
    walk_stages,
)

from app.core.config import STAGES
from app.core.run_folder import Run
from app.data.manifest import Photos
from app.evaluation.findings import read_findings
from app.experiment import linear_probe
from app.experiment_setup import dataset_of, dataset_spec
from app.features.dataset import FreshDataset
from app.network.classifier import prefix
from app.training.linear_probe import STRENGTHS

# Largest distance between the weights that both sources lead to, as a share of how far they moved.
# Seen: 0 under each backend, on a processor. An engine may order additions otherwise in a whole
# network than in its upper part; with other views the share is 0.9 and more.
TOLERANCE = 1e-2


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_network():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Photos:
    return twelve_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def walk(photos, tmp_path_factory) -> Walk:
    return walk_stages(config_of(tmp_path_factory.mktemp("runs")), photos)


@pytest.mark.parametrize("source", ["fresh", "cached"])
@pytest.mark.parametrize("name", STAGES)
def test_what_is_not_trained_stays_bit_for_bit(walk, name, source):
    """And every array that is to be trained has moved."""
    before, after = walk.before[name], walk.after[name][source]
    changed = {key for key in before if before[key].tobytes() != after[key].tobytes()}
    assert changed == trained_by(name, before)
    assert {"preprocessing", "block1_conv1", "block3_conv1"} <= {
        layer for layer, _ in set(before) - changed
    }


@pytest.mark.parametrize("name", STAGES)
def test_the_cache_and_fresh_views_train_the_same(walk, name):
    before, after = walk.before[name], walk.after[name]
    for key in trained_by(name, before):
        way = np.linalg.norm(after["fresh"][key] - before[key])
        apart = np.linalg.norm(after["cached"][key] - after["fresh"][key])
        assert apart <= TOLERANCE * way, (key, apart / way)


@pytest.mark.parametrize("name", STAGES)
def test_a_cached_batch_is_what_the_frozen_part_says_of_the_fresh_one(photos, tmp_path, name):
    config = config_of(tmp_path)
    (stage,) = [stage for stage in config.stage_plan() if stage.name == name]
    model = classifier(config, photos)
    frozen = prefix(model, [stage.cut])
    fresh = SameViews(spec=dataset_spec(config, model, "digest", photos))
    cache = dataset_of(config, model, "digest", photos)
    assert cache.name == "disk"
    assert cache.prepare(stage)
    for split, different in (("train", VIEWS * 12), ("validation", 12)):
        seen = []
        given, expected = (
            source.batches(stage, split, shuffle=split == "train") for source in (cache, fresh)
        )
        for epoch in range(VIEWS):
            given.begin_epoch(epoch)
            expected.begin_epoch(epoch)
            for number in range(12 // BATCH):
                (rows, targets), (pixels, same_targets) = given[number], expected[number]
                np.testing.assert_array_equal(targets, same_targets)
                # float16 keeps eleven bits.
                np.testing.assert_allclose(
                    rows, frozen.predict_on_batch(pixels), rtol=2**-10, atol=1e-3
                )
                seen.append(rows)
        assert len(np.unique(np.concatenate(seen), axis=0)) == different


def test_a_given_strength_reaches_the_head(photos, tmp_path):
    for strength in (0.5, None):
        strengths = STRENGTHS if strength is None else (strength,)
        config = config_of(tmp_path)
        model, run = classifier(config, photos), Run(tmp_path / str(strength))
        source = FreshDataset(spec=dataset_spec(config, model, "", photos))
        run.folder.mkdir()
        stage = STAGES["head"]
        result = linear_probe(stage, model, source, photos, ("cat", "dog"), None, strengths, run)
        assert (result.epochs == 1) == (strength is not None)
        assert {finding.finding for finding in read_findings(run.audit)} >= {"outlier"}
