"""The attribution profile of a model on a night's test windows.

Shapes: B explained windows, K background windows of each, T = 64 steps, F = 16 features.
"""

import numpy as np

from model_code.attribution.explain import attribute
from model_code.attribution.profile import Profile
from model_code.attribution.sample import backgrounds, stratified
from model_code.engines.protocol import Predictor
from model_code.errors import DataError
from model_code.features.dataset import FeatureTable
from model_code.features.definition import names
from model_code.features.split import Split
from model_code.features.windows import gather
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, AttributionSpec

SEED = 0


def measure(
    predictor: Predictor, rows: FeatureTable, parts: Split, spec: AttributionSpec
) -> Profile:
    """Explain test windows of each instrument and label, against training windows.

    Args:
        predictor: of the model.
        rows: features and labels.
        parts: test windows are explained, training windows are the background.
        spec: numbers of windows.

    Raises:
        DataError: no windows are asked for, or no feature changes the model's output.
        EngineError: as `attribute`.
    """
    if spec.windows == 0:
        raise DataError("attributions.windows is 0: there is nothing to explain")
    symbol_N, label_N = rows.symbol_N[parts.test_ends], rows.label_N[parts.test_ends]
    sample = stratified(symbol_N, label_N, spec.windows, parts.test_weights)
    symbol_B = symbol_N[sample.place_B]
    place_BK = backgrounds(symbol_B, rows.symbol_N[parts.train_ends], spec.background)
    background_BKTF = gather(rows.features_NF, parts.train_ends[place_BK.ravel()]).reshape(
        -1, spec.background, SEQUENCE_LENGTH, FEATURE_COUNT
    )
    x_BTF = gather(rows.features_NF, parts.test_ends[sample.place_B])
    found = attribute(predictor, x_BTF, background_BKTF, seed=SEED)
    return Profile.of(
        found,
        sample,
        names(rows.meta.spec.chosen_set),
        np.array(rows.meta.symbols)[symbol_B],
        label_N[sample.place_B],
        spec.background,
    )
