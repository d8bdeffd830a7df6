"""The second round trains blocks and head; what is not better afterwards is undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_vgg import classifier, config_of, small_network, twelve_photos, weights_of

from app.core.config import STAGES
from app.experiment_setup import dataset_of
from app.features.dataset import FeatureDataset
from app.network.classifier import HEAD
from app.training.checkpoint import Checkpoint
from app.training.linear_probe import fit_linear_probe
from app.training.second_round import open_second_round, train_second_round
from app.training.stage_result import keep_stage, kept_stage


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_network():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> FeatureDataset:
    photos = twelve_photos(tmp_path_factory.mktemp("photos"))
    config = config_of(tmp_path_factory.mktemp("runs"))
    model = classifier(config, photos)
    found = dataset_of(config, model, "w", photos)
    maps = found.labelled("train"), found.labelled("validation")
    fit_linear_probe(model, STAGES["head"], *maps, (1.0,))
    return found


def stage():
    """Of three epochs, in the first of which six steps show something."""
    first = STAGES["block5"]
    return replace(first, name="block5-2", epochs=3, batch_size=2, averaging=0, warmup=0)


def test_blocks_and_head_change_together_and_are_kept_for_a_resumed_run(
    source, tmp_path: Path, capsys
):
    model = source.spec.model
    before = weights_of(model)
    checkpoint = Checkpoint(tmp_path)
    result = train_second_round(
        source, STAGES["head"], stage(), checkpoint, None, epochs_before=2, seconds=1e9
    )
    assert result.name == "block5-2"
    assert result.gain is not None
    assert result.gain.log_loss > 0
    assert "stage block5-2 lowered the validation log-loss" in capsys.readouterr().err
    after = weights_of(model)
    changed = {layer for layer, n in before if (before[layer, n] != after[layer, n]).any()}
    assert changed == {HEAD, "block5_conv1"}
    keep_stage(result, model, checkpoint)
    for layer in model.layers:
        layer.set_weights([before[layer.name, n] for n in range(len(layer.get_weights()))])
    open_second_round(model, stage())
    assert kept_stage("block5-2", model, checkpoint) == result
    for key, array in weights_of(model).items():
        np.testing.assert_array_equal(array, after[key])


def test_what_is_not_better_is_undone(source, tmp_path: Path, capsys):
    """A head that may not learn at all answers worse than any."""
    before = weights_of(source.spec.model)
    result = train_second_round(
        source,
        STAGES["head"],
        stage(),
        Checkpoint(tmp_path),
        None,
        epochs_before=2,
        seconds=1e9,
        strengths=(1e-9,),
    )
    assert (result.kept_epoch, result.temperature) == (0, 1.0)
    assert result.gain is not None
    assert (result.gain.log_loss, result.gain.accuracy) == (0.0, 0.0)
    assert "stage block5-2 brought nothing" in capsys.readouterr().err
    for key, array in weights_of(source.spec.model).items():
        np.testing.assert_array_equal(array, before[key])
