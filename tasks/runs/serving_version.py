"""Which version serves: what the route of the serving repository says.

The alias `champion` in MLflow is a copy that a promotion writes. Anyone may set it in MLflow's
page, and nothing is loaded by that. It is believed only where no serving repository is, on a
machine that trains alone, and only of a version that a promotion tagged.
"""

from dataclasses import dataclass

from mlflow.exceptions import MlflowException

from model_code.repository.audit import AuditLog
from model_code.repository.serving import ServingRepository
from model_code.settings import CHAMPION_ALIAS, Settings
from model_code.storage.serving import follow_serving
from tasks.promotion.records import AUDIT_TAG
from tasks.runs.aliases import Aliases

CHANGES = ("promoted", "rolled back")  # events of the audit file after which a version serves


@dataclass(frozen=True)
class ServingVersion:
    """The version that serves, and what MLflow says of it.

    Attributes:
        version: None if none serves.
        previous: the alias `previous`.
        alias: the version that the alias `champion` names in MLflow.
        problem: how the alias contradicts; empty if it does not, or a change is in progress.
    """

    version: int | None
    previous: int | None
    alias: int | None
    problem: str = ""

    @property
    def warning(self) -> str:
        """The contradiction and its cure; empty without one."""
        return f"{self.problem}. To set the alias back: tickline reconcile" if self.problem else ""


def serving_version(settings: Settings) -> ServingVersion:
    """Find the version that serves, and compare MLflow's alias with it.

    Raises:
        IntegrityError: the route or the journal of a change is malformed.
        MlflowException: the registry does not answer.
        SharedStoreError: nothing has served on this host, and the store that says what serves on
            another did not answer.
    """
    repository, aliases = ServingRepository(settings.serving_repository), Aliases(settings)
    if not repository.known():
        follow_serving(settings)
    route, (alias, previous) = repository.route(), aliases.aliases()
    if serves_here(settings):
        version = None if route.champion is None else route.champion.version
    else:
        version = alias if alias is not None and AUDIT_TAG in _tags(aliases, alias) else None
    problem = ""
    if alias != version and repository.journal() is None:
        serving = "no version serves" if version is None else f"version {version} serves"
        named = "no version" if alias is None else f"version {alias}"
        problem = f"{serving}, but the alias {CHAMPION_ALIAS} in MLflow names {named}"
    return ServingVersion(version, previous, alias, problem)


def serves_here(settings: Settings) -> bool:
    """Whether versions were ever promoted to the serving repository as this machine sees it."""
    repository = ServingRepository(settings.serving_repository)
    return repository.route_file.exists() or bool(repository.known())


def last_recorded(settings: Settings) -> int | None:
    """The version that serves by the audit file; None if it names none.

    Raises:
        IntegrityError: the audit file was changed.
    """
    records = AuditLog.of(settings).read()
    found = [record.facts["version"] for record in records if record.event in CHANGES]
    return int(str(found[-1])) if found else None


def level_alias(settings: Settings) -> str:
    """Set the alias back to what serves; return what was done, empty if there was nothing to do.

    Raises:
        RegistryDownError: MLflow does not answer.
        IntegrityError: the route or the journal of a change is malformed.
    """
    aliases = Aliases(settings)
    aliases.require_answer()
    found = serving_version(settings)
    if not found.problem:
        return ""
    aliases.move(found.version, None if found.previous == found.version else found.previous)
    named = ["none" if one is None else str(one) for one in (found.alias, found.version)]
    return f"alias {CHAMPION_ALIAS} in MLflow: {' -> '.join(named)}"


def _tags(aliases: Aliases, version: int) -> dict[str, str]:
    try:
        return aliases.tags(version)
    except MlflowException:
        return {}
