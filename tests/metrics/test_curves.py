"""Curves read at given places."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from spicula.core.errors import InputError
from spicula.metrics.classification import auprc, auroc
from spicula.metrics.curves import PLACES, precision_at_recalls, sensitivity_at_rates


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.random(300) < 0.3
    return y, np.round(rng.normal(size=300) + y, 1)


def test_sensitivities_are_those_of_scikit_learns_curve(data):
    fpr, tpr, _ = roc_curve(*data, drop_intermediate=False)
    np.testing.assert_allclose(sensitivity_at_rates(*data), np.interp(PLACES, fpr, tpr))


def test_precisions_are_those_of_scikit_learns_curve(data):
    precision, recall, _ = precision_recall_curve(*data)
    expected = [precision[:-1][recall[:-1] >= at - 1e-12][-1] for at in PLACES]
    np.testing.assert_allclose(precision_at_recalls(*data), expected)


def test_dense_places_give_the_areas(data):
    at = np.linspace(0, 1, 200_001)
    assert np.trapezoid(sensitivity_at_rates(*data, at=at), at) == pytest.approx(auroc(*data), abs=1e-5)
    assert precision_at_recalls(*data, at=at[1:]).mean() == pytest.approx(auprc(*data), abs=1e-4)


@pytest.mark.parametrize("at", [[-0.1], [1.1], [np.nan]])
@pytest.mark.parametrize("read", [sensitivity_at_rates, precision_at_recalls])
def test_places_outside_are_refused(data, read, at):
    with pytest.raises(InputError, match="from 0 to 1"):
        read(*data, at=at)
