import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.calibration import fit_temperature
from app.config import STAGES
from app.evaluation import probabilities_of, score
from app.head import STRENGTHS, Labelled, solve_head
from app.model import build_classifier, head_inputs, suffix


def labelled(n: int, classes: int, seed: int, noise: float = 4.0) -> Labelled:
    """Features as pooled ones are (0 and up), a few of which tell the class."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    features = generator.gamma(1, noise, (n, 1024))
    for number in range(classes):
        features[targets == number, 20 * number : 20 * (number + 1)] += 2
    return Labelled(features.astype("float32"), targets)


@pytest.fixture(params=[2, 3], ids=["two classes", "three"])
def solved(request):
    model = build_classifier(request.param, image_size=32)
    train, validation = labelled(120, request.param, 0), labelled(90, request.param, 1)
    return model, train, validation, solve_head(model, STAGES["head"], train, validation)


def test_the_model_holds_the_solution_that_validates_best(solved):
    model, _, validation, result = solved
    losses = [row.validation_loss for row in result.history]
    assert result.kept_epoch == 1 + int(np.argmin(losses))
    assert result.epochs == len(losses) > result.kept_epoch  # it looked further and came back
    logits = suffix(model, "pooled").predict(validation.features, verbose=0)
    held = score(validation.targets, probabilities_of(logits))
    assert held.log_loss == pytest.approx(min(losses), rel=1e-4)
    assert held.accuracy == result.validation.accuracy > 0.6
    assert result.trainable_parameters == 1025 * model.output_shape[-1]


def test_it_is_scikit_learns_solution_at_validations_temperature(solved):
    model, train, validation, result = solved
    x, seen = head_inputs(model, train.features), head_inputs(model, validation.features)
    fitted = LogisticRegression(C=STRENGTHS[result.kept_epoch - 1], tol=1e-8, max_iter=9999)
    expected = fitted.fit(x, train.targets).decision_function(seen)
    if expected.ndim == 1:
        expected = np.stack([-expected / 2, expected / 2], axis=1)
    expected = expected / fit_temperature(expected, validation.targets)
    logits = suffix(model, "pooled").predict(validation.features, verbose=0)
    np.testing.assert_allclose(
        probabilities_of(logits),
        probabilities_of(expected),
        atol=0.01,  # L-BFGS stops earlier
    )
    assert fit_temperature(logits, validation.targets) == pytest.approx(1, abs=0.05)


def test_the_search_ends_when_validation_no_longer_follows():
    """Labels that say nothing: the strongest regularisation is best, and two more are tried."""
    train, validation = labelled(60, 2, 0), labelled(60, 2, 1)
    shuffled = Labelled(train.features, np.random.default_rng(0).permutation(train.targets))
    model = build_classifier(2, image_size=32)
    result = solve_head(model, STAGES["head"], shuffled, validation)
    assert result.epochs == result.kept_epoch + STAGES["head"].patience < len(STRENGTHS)


def test_nothing_but_standardisation_and_dense_layer_changes():
    model = build_classifier(2, image_size=32)
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.variables}
    solve_head(model, STAGES["head"], labelled(60, 2, 0), labelled(40, 2, 1))
    for variable in model.variables:
        same = np.array_equal(before[variable.path], keras.ops.convert_to_numpy(variable))
        assert same != variable.path.startswith(("dense", "standardise"))
