"""The server as an engine: the `Predictor` protocol over a client.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

import numpy as np
from numpy.typing import NDArray

from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME


class TritonPredictor:
    """Predictions of one served model version.

    Args:
        client: of the server; the caller closes it.
        model: served name.
        version: None for the server's newest.
    """

    def __init__(
        self, client: TritonClient, model: str = MODEL_NAME, version: int | None = None
    ) -> None:
        self._client, self._model, self._version = client, model, version

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, 2) float32 of raw feature windows (B, 64, 16) float32.

        Raises:
            ServingError: bad windows, a refusal, no response in time, or an invalid response.
        """
        return self._client.predict(x_BTF, model=self._model, version=self._version)
