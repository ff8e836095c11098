"""The registry's aliases `champion` and `previous`, and the tags that a promotion writes."""

from collections.abc import Mapping

import httpx
from mlflow.exceptions import MlflowException

from infra.proxies import by_proxy
from model_code.errors import PromotionError
from model_code.settings import CHAMPION_ALIAS, MODEL_NAME, PREVIOUS_ALIAS, Settings
from tasks.runs import mlflow_runs

PREDECESSOR_TAG = "tickline.predecessor"


class RegistryDownError(PromotionError):
    """MLflow does not answer."""


class Aliases:
    """The two aliases in MLflow's registry. Moving them is the registry's part of a swap."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = mlflow_runs.client(settings)

    def require_answer(self) -> None:
        """Fail early if MLflow is down.

        Raises:
            RegistryDownError: MLflow does not answer.
        """
        uri = self._settings.tracking_uri
        try:
            if uri.startswith("http"):
                # MLflow's own client would retry for minutes
                proxied = by_proxy(uri)
                httpx.get(f"{uri}/health", timeout=5, trust_env=proxied).raise_for_status()
            else:
                self._client.search_experiments(max_results=1)
        except Exception as error:  # of SQL, HTTP or MLflow
            raise RegistryDownError(
                f"MLflow does not answer: {type(error).__name__}",
                where=uri,
                remedy="start it (tickline up, or its own service), then run the same command; "
                "nothing was changed",
            ) from error

    def aliases(self) -> tuple[int | None, int | None]:
        """Return the versions with the aliases champion and previous."""
        try:
            found = self._client.get_registered_model(MODEL_NAME).aliases
        except MlflowException as error:
            if error.error_code in mlflow_runs.ABSENT:
                return None, None
            raise
        named = [found.get(name) for name in (CHAMPION_ALIAS, PREVIOUS_ALIAS)]
        champion, previous = (None if version is None else int(version) for version in named)
        return champion, previous

    def move(self, champion: int | None, previous: int | None) -> None:
        """Move the aliases; None removes one."""
        held = dict(zip((CHAMPION_ALIAS, PREVIOUS_ALIAS), self.aliases(), strict=True))
        for name, version in ((CHAMPION_ALIAS, champion), (PREVIOUS_ALIAS, previous)):
            if version == held[name]:
                continue
            if version is None:
                self._client.delete_registered_model_alias(MODEL_NAME, name)
            else:
                self._client.set_registered_model_alias(MODEL_NAME, name, str(version))

    def predecessor(self, version: int) -> int | None:
        """Return the champion that the version replaced; None for the first."""
        value = self.tags(version).get(PREDECESSOR_TAG)
        return int(value) if value else None

    def tags(self, version: int) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            PromotionError: the registry has no such version.
        """
        try:
            return dict(self._client.get_model_version(MODEL_NAME, str(version)).tags)
        except MlflowException as error:
            if error.error_code not in mlflow_runs.ABSENT:
                raise
            raise PromotionError(
                f"the registry has no version {version} of {MODEL_NAME}",
                where=self._settings.tracking_uri,
                remedy="tickline ui shows the registered versions",
            ) from error

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Write tags to a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(MODEL_NAME, str(version), key, value)
