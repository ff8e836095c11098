"""Fine-tuning: training that starts from the weights of the serving model version.

A starting point must be of the same kind and sizes, of the same features and label, and must not
have been trained on later windows: it could know the validation or test windows. Its
standardisation is kept with its weights; trees are fitted anew.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from model_code.artifacts import ArtifactRef
from model_code.errors import ConfigError
from model_code.models.network import parameter_count
from model_code.models.predictor import WindowModel
from model_code.models.trees import TreeEnsemble
from model_code.settings import AnyNetworkSpec, FeatureSpec, ModelSpec

FREE = {"dropout", "trees", "weight"}  # may differ: the weights do not depend on them


class StartingPoint(BaseModel):
    """A trained network and what it was trained on.

    Attributes:
        weights: the network (`network.load`).
        network: its kind and sizes.
        features: its features and label, with leaders.
        trained_until: when its newest training window ends, ISO 8601 UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: ArtifactRef
    network: AnyNetworkSpec
    features: FeatureSpec
    trained_until: str

    def unfit_for(self, network: AnyNetworkSpec, features: FeatureSpec, trained_until: str) -> str:
        """Why a training cannot start from it; empty if it can.

        Args:
            network: kind and sizes of the network to train.
            features: of its table, with feature set, label and leaders named.
            trained_until: when its newest training window ends, ISO 8601 UTC.
        """
        if self.network.KIND != network.KIND:
            return f"the champion is of kind {self.network.KIND}, not {network.KIND}"
        own, other = (spec.model_dump(exclude=FREE) for spec in (self.network, network))
        sizes = ", ".join(name for name in own if own[name] != other[name])
        if sizes:
            return f"the champion's network differs in {sizes}"
        seen, wanted = self.features.model_dump(), features.model_dump()
        differing = ", ".join(name for name in seen if seen[name] != wanted[name])
        if differing:
            return f"the champion's features differ in {differing}"
        if self.trained_until > trained_until:
            return (
                f"the champion was trained until {self.trained_until}, after {trained_until}: "
                "it may know the validation windows"
            )
        return ""


def startable(
    models: Sequence[ModelSpec], start: StartingPoint | None, features: FeatureSpec, until: str
) -> tuple[tuple[ModelSpec, ...], tuple[str, ...]]:
    """The models that can start as they should, and a note on each of the others.

    Args:
        models: of the night.
        start: the champion's; None if there is none.
        features: of the table, with feature set, label and leaders named.
        until: when the newest training window ends, ISO 8601 UTC.

    Raises:
        ConfigError: the first one cannot.
    """
    reasons: dict[str, str] = {}
    for model in models:
        if model.training.start == "fresh":
            continue
        reason = "no champion's weights are known"
        if start is not None:
            reason = start.unfit_for(model.network, features, until)
        if reason:
            reasons[model.name] = reason
    if models[0].name in reasons:
        raise ConfigError(
            f"model {models[0].name} cannot start as it should: {reasons[models[0].name]}",
            where="training.start",
            remedy="set training.start=fresh, or make it one of other_models",
        )
    notes = tuple(f"model {name} is left out: {reason}" for name, reason in reasons.items())
    return tuple(model for model in models if model.name not in reasons), notes


def require_start(wanted: str, start: WindowModel | None) -> None:
    """Check that there is a model to start from if and only if the specification wants one.

    Raises:
        ConfigError: it is missing, or not wanted.
    """
    if (wanted == "champion") != (start is not None):
        raise ConfigError(
            f"training.start is {wanted}, but the training was given "
            + ("no champion to start from" if start is None else "a model to start from"),
            remedy="only a nightly knows the champion; elsewhere set training.start=fresh",
        )


def begin_from(model: WindowModel, start: WindowModel) -> None:
    """Copy weights and standardisation, all but the trees.

    Raises:
        ConfigError: there are no weights, or they are of another kind or size.
    """
    given, own = _weights(start), _weights(model)
    if parameter_count(model) == 0 or _shapes(given) != _shapes(own):
        raise ConfigError(
            f"a {model.spec.KIND} cannot start from the weights of a {start.spec.KIND}"
            + (": it has none" if parameter_count(model) == 0 else " of other sizes"),
            remedy="set training.start=fresh",
        )
    model.load_state_dict(given, strict=False)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _weights(model: WindowModel) -> dict[str, Tensor]:
    trees = tuple(
        f"{name}." for name, part in model.named_modules() if isinstance(part, TreeEnsemble)
    )
    return {
        name: tensor for name, tensor in model.state_dict().items() if not name.startswith(trees)
    }
