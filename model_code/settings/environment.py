"""Machine settings: *where* to compute. Folders and addresses, from `TICKLINE_*` variables."""

import datetime as dt
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model_code.settings.address import OptionalGrpcAddress
from model_code.settings.base import PositiveInt
from model_code.settings.cluster import OptionalCluster
from model_code.settings.credentials import (
    OptionalKey,
    OptionalPassword,
    OptionalRedisPassword,
    Username,
)
from model_code.settings.folder import Folder, FolderUri, MarketUri, StoreUri, expanded
from model_code.settings.targets import Targets, as_targets, check_targets

DEFAULT_HOME = Path("~/.tickline")


def _home(path: Path) -> Path:
    if "?" in str(path):
        raise ValueError("a database's address cannot hold a question mark: rename the folder")
    if path != DEFAULT_HOME:
        return expanded(path)
    with suppress(ValueError):
        found = expanded(path)
        if found.parent.is_dir():
            return found
    raise ValueError(
        "this user has no home folder and TICKLINE_HOME is not set: "
        "set it to a folder that this user may write to"
    )


class Home(BaseSettings):
    """The one setting that every process needs before it can import the libraries.

    Attributes:
        home: folder of everything Tickline writes (artefacts, databases, logs).
    """

    model_config = SettingsConfigDict(
        env_prefix="TICKLINE_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a password
    )

    home: Annotated[Path, AfterValidator(_home)] = DEFAULT_HOME


class Settings(Home):
    """Machine settings, from `TICKLINE_*` environment variables or a `.env` file.

    In folders `~` is the user's home.

    Attributes:
        home: as `Home`.
        market: URI of the market store when no `--data` is given; None means simulated.
        mlflow_tracking_uri: None means SQLite under `home`.
        mlflow_experiment: experiment of the nightly runs.
        mlflow_ui_url: address of MLflow's pages, for links; None: the running stack's.
        prefect_ui_url: address of Prefect's pages, for links; None: the running stack's.
        prefect_api_url: a running Prefect server; None starts an embedded one under `home`.
        staging: folder of the staging model repository; None means under `home`.
        serving: folder of the repository the Triton server serves; None means under `home`.
        triton: folder of the Triton server's own environment; None means the user's cache.
        triton_url: gRPC host:port of a running Triton server; None: that of `tickline triton up`.
            It is for clients: promotions are for the server that the policy names.
        targets: several Triton servers by name, instead of `triton_url`; the first comes first for
            clients and validates candidates.
        quorum: targets that must have a version before the route turns to it; None: all of them.
        tune_storage: database URL of studies (`tickline tune`); None means SQLite under `home`.
        audit: the audit file of promotions; None means under `home`.
        store: address of the store that the hosts of an installation share; None: `home` alone.
        store_cache: with a shared store, how many bytes of artefacts `home` may keep.
        staged_days: staged versions that were not promoted expire after so many days.
        deadline: wall-clock time, in the nightly schedule's zone, by which a night must have ended.
        cluster: where stages of instrument-days run; None: in the flow's process, one by one.
        auth_username: user name for Prefect's and MLflow's servers, if a password is set.
        auth_password: enables basic authentication in servers started here and for clients.
        redis_password: of the Redis server of `tickline live`.
        triton_key: of the Triton servers' model control; None: that of `tickline triton up`.
    """

    market: MarketUri | None = None
    mlflow_tracking_uri: FolderUri | None = None
    mlflow_experiment: str = "nightly"
    mlflow_ui_url: str | None = None
    prefect_ui_url: str | None = None
    prefect_api_url: str | None = None
    staging: Folder | None = None
    serving: Folder | None = None
    triton: Folder | None = None
    triton_url: OptionalGrpcAddress = None
    targets: Annotated[Targets, NoDecode, BeforeValidator(as_targets)] = {}
    quorum: int | None = None
    tune_storage: str | None = None
    audit: Folder | None = None
    store: StoreUri | None = None
    store_cache: ByteSize = ByteSize(50_000_000_000)
    staged_days: PositiveInt = 14
    deadline: dt.time = dt.time(5)
    cluster: OptionalCluster = None
    auth_username: Username = "admin"
    auth_password: OptionalPassword = None
    redis_password: OptionalRedisPassword = None
    triton_key: OptionalKey = None

    @model_validator(mode="after")
    def _targets_fit(self) -> Self:
        check_targets(self.targets, self.quorum, self.triton_url)
        return self

    @property
    def artifacts(self) -> Path:
        """Root of the content-addressed artefact store."""
        return self.home / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Root of training checkpoints, by the key of the training's inputs."""
        return self.home / "checkpoints"

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Root of MLflow's artefacts, if its database is under `home`."""
        return self.home / "mlartifacts"

    @property
    def tune_storage_url(self) -> str:
        """Database of studies."""
        return self.tune_storage or f"sqlite:///{self.home / 'tune.db'}"

    @property
    def staging_repository(self) -> Path:
        """Root of the staging Triton model repository."""
        return self.staging or self.home / "staging"

    @property
    def serving_repository(self) -> Path:
        """Root of the model repository that the Triton server serves."""
        return self.serving or self.home / "serving"

    @property
    def needed_targets(self) -> int:
        """How many targets must have a version before the route turns to it; 1 without targets."""
        return self.quorum or max(1, len(self.targets))

    @property
    def audit_file(self) -> Path:
        """The append-only record of promotions and rollbacks."""
        return self.audit or self.home / "audit.jsonl"

    @property
    def triton_home(self) -> Path:
        """Root of the Triton server's installations, shared by every `home` of a user with one."""
        if self.triton:
            return self.triton
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        try:
            return expanded(Path(cache)) / "tickline" / "triton"
        except ValueError:
            return self.home / "cache" / "triton"

    def inside(self, path: Path) -> str:
        """A path as it is stored: under `home` relative to it, so that the home may move."""
        found = path.resolve()
        home = self.home.resolve()
        return found.relative_to(home).as_posix() if found.is_relative_to(home) else str(found)

    def located(self, stored: str) -> Path:
        """The path that `inside` stored."""
        return self.home / stored

    def resolved(self, **changes: Any) -> "Settings":
        """A copy with the given fields replaced and `home` made absolute."""
        values = self.model_dump() | changes
        values["home"] = expanded(Path(values["home"])).resolve()
        return Settings(**values)
