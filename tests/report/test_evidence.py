"""The layer over a photo that shows what speaks for its answer."""

from __future__ import annotations

import numpy as np
import pytest

from app.report.evidence import SIDE, STRONGEST, evidence, full_scale, laid_over

CAM = np.array([[4.0, 0.0], [0.0, -2.0]])


def test_orange_speaks_for_and_blue_against() -> None:
    layer = evidence(CAM, 4.0, (300, 300, 3))
    assert layer.shape == (SIDE, SIDE, 4)
    red, _, blue, opacity = layer[2, 2].astype(int)
    assert red > blue + 100
    assert opacity == pytest.approx(255 * STRONGEST, abs=3)
    red, _, blue, weaker = layer[-3, -3].astype(int)
    assert blue > red + 100
    assert weaker == pytest.approx(opacity / 2, abs=5), "half as much against it"


def test_a_layer_has_the_proportions_of_its_photo() -> None:
    assert evidence(CAM, 4.0, (320, 160, 3)).shape == (48, 24, 4)
    assert evidence(CAM, 4.0, (3000, 7, 3)).shape == (48, 1, 4)


def test_all_photos_have_one_scale_and_one_alone_does_not_set_it() -> None:
    assert full_scale([CAM, 3 * CAM]) > 4
    assert full_scale([*[CAM] * 30, 100 * CAM]) == 4
    assert full_scale([]) == 0
    pale = evidence(CAM / 4, 4.0, (48, 48))[..., 3].max()
    assert pale == pytest.approx(255 * STRONGEST / 4, abs=2)


def test_where_nothing_speaks_nothing_is_drawn() -> None:
    assert evidence(np.zeros((3, 3)), 0.0, (48, 48))[..., 3].max() == 0


def test_laid_over_a_photo_its_colours_go_and_those_of_the_layer_stay() -> None:
    photo = np.full((40, 40, 3), (200, 30, 30), np.uint8)
    plain = laid_over(photo, evidence(np.zeros((2, 2)), 1.0, photo.shape))
    assert len({*plain[20, 20].tolist()}) == 1
    lit = laid_over(photo, evidence(CAM, 4.0, photo.shape)).astype(int)
    assert lit[1, 1, 0] > lit[1, 1, 2] + 60
    assert lit[-2, -2, 2] > lit[-2, -2, 0] + 40
