"""The serving repository in the shared store, and the one host whose folder Triton reads.

    serving/host.json                  that host; only it writes below serving/
    serving/archive/<version>/         every version that ever served
    serving/policy.yaml, route.json    as in its folder
    serving/emergencies/<number>.json  as in its folder

The other hosts read copies of policy, route and emergencies.
"""

import shutil
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from model_code.artifacts import atomic_file
from model_code.errors import ConfigError, IntegrityError, PromotionError, SharedStoreError
from model_code.repository import fence
from model_code.repository.policy import policy_path
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from model_code.storage.objects import INDEX, Objects
from model_code.storage.shared import shared_objects

FOLDER = "serving"
HOST = f"{FOLDER}/host.json"
ARCHIVE = f"{FOLDER}/archive"
EMERGENCIES = f"{FOLDER}/{fence.FOLDER}"


class OtherHostError(PromotionError):
    """The serving repository belongs to another host."""


class ServingHost(BaseModel):
    """Where the serving repository is.

    Attributes:
        host: its name.
        root: the repository's folder there.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    host: str
    root: str

    @classmethod
    def own(cls, settings: Settings) -> "ServingHost":
        """This host, with this home's repository."""
        return cls(host=socket.gethostname(), root=str(settings.serving_repository.resolve()))


def serving_host(settings: Settings, wait_s: float | None = None) -> ServingHost | None:
    """The serving host; None: nobody has promoted yet, or no store is shared.

    Args:
        settings: of this home.
        wait_s: for the store; None: about a minute.

    Raises:
        IntegrityError: its record is malformed.
        SharedStoreError: the store did not answer.
    """
    objects = shared_objects(settings, wait_s)
    text = None if objects is None else objects.read(HOST)
    if text is None:
        return None
    try:
        return ServingHost.model_validate_json(text)
    except ValidationError as error:
        raise IntegrityError(
            "the record of the serving host is malformed",
            where=f"{settings.store}/{HOST}",
            remedy="on the serving host: tickline triton restore --take-over",
        ) from error


def is_elsewhere(settings: Settings) -> bool:
    """Whether another host has the serving repository.

    Raises:
        IntegrityError: as `serving_host`.
        SharedStoreError: the store did not answer.
    """
    return serving_host(settings) not in {None, ServingHost.own(settings)}


def require_here(settings: Settings) -> None:
    """Check that the serving repository is this host's; the first that asks gets it.

    Raises:
        OtherHostError: it is another host's.
        IntegrityError: as `serving_host`.
        SharedStoreError: the store did not answer.
    """
    objects, own = shared_objects(settings), ServingHost.own(settings)
    if objects is None or objects.create(HOST, own.model_dump_json().encode()):
        return
    refuse_elsewhere(settings)


def refuse_elsewhere(settings: Settings, wait_s: float | None = None) -> None:
    """Check that no other host has the serving repository; without a host nobody gets it.

    Raises:
        OtherHostError: another host has it.
        IntegrityError: as `serving_host`.
        SharedStoreError: the store did not answer.
    """
    found = serving_host(settings, wait_s)
    if found not in {None, ServingHost.own(settings)}:
        raise OtherHostError(
            f"the serving repository is on host {found.host}",
            where=found.root,
            remedy="run the command there, or start its worker, which takes it: tickline worker. "
            "If that host is lost: tickline triton restore --take-over",
        )


def share_serving(settings: Settings) -> str:
    """Copy to the shared store what it lacks of this host's repository.

    What serves has changed already, so a store that does not answer is no error here: the next
    call copies it.

    Returns:
        Why it was not copied; empty: it was, or this is not the serving host.
    """
    try:
        objects = shared_objects(settings)
        if objects is None or serving_host(settings) != ServingHost.own(settings):
            return ""
        repository = ServingRepository(settings.serving_repository)
        there = set(objects.keys(ARCHIVE))
        for version in repository.known():
            if f"{ARCHIVE}/{version}/{INDEX}" not in there:
                objects.upload(repository.folder(version), f"{ARCHIVE}/{version}")
        for key, path in _files(settings, repository).items():
            content = path.read_bytes() if path.is_file() else None
            if content is not None and objects.read(key) != content:
                objects.write(key, content)
    except SharedStoreError as error:
        return error.what
    return ""


def follow_serving(settings: Settings, wait_s: float | None = None) -> bool:
    """On another host, fetch policy, route and emergencies; return whether it is another host.

    Args:
        settings: of this home.
        wait_s: as `serving_host`.

    Raises:
        ConfigError: this home has versions of its own that served.
        SharedStoreError: the store did not answer.
    """
    objects, host = shared_objects(settings, wait_s), serving_host(settings, wait_s)
    if objects is None or host in {None, ServingHost.own(settings)}:
        return False
    repository = ServingRepository(settings.serving_repository)
    _require_none_served(repository)
    _fetch(objects, settings, repository)
    return True


def fetch_served(settings: Settings, version: int, folder: Path) -> bool:
    """Copy a version that served from the shared store to a new folder; False: it has none.

    Raises:
        SharedStoreError: the store did not answer.
        StorageError: the disk is full.
    """
    objects = shared_objects(settings)
    return objects is not None and objects.download(f"{ARCHIVE}/{version}", folder)


def restore_serving(settings: Settings, *, take_over: bool) -> tuple[int, ...]:
    """Fill this host's repository from the shared store; return the versions it has then.

    An empty one also gets policy, route and emergencies. The champion of the route is put where
    Triton reads it. An interrupted call is completed by the next.

    Args:
        settings: of this home.
        take_over: make this the serving host in place of another.

    Raises:
        ConfigError: no store is shared, or this home has versions of its own that served.
        OtherHostError: another host has the repository, and `take_over` is False.
        RepositoryBusyError: a promotion or rollback is running here.
        SharedStoreError: the store did not answer.
        StorageError: the disk is full.
    """
    objects = shared_objects(settings)
    if objects is None:
        raise ConfigError(
            "no store is shared, so there is nothing to restore from",
            where="TICKLINE_STORE is not set",
            remedy="set it: TICKLINE_STORE=s3://BUCKET/PREFIX",
        )
    repository = ServingRepository(settings.serving_repository)
    if take_over and is_elsewhere(settings):
        _require_none_served(repository)
        objects.write(HOST, ServingHost.own(settings).model_dump_json().encode())
    require_here(settings)
    with repository.exclusive():
        if not repository.known():
            _fetch(objects, settings, repository)
        for key in objects.keys(ARCHIVE):
            version = key.removeprefix(f"{ARCHIVE}/").partition("/")[0]
            if key.endswith(f"/{INDEX}") and int(version) not in repository.known():
                target = repository.archive / version
                shutil.rmtree(target, ignore_errors=True)  # without a manifest it is no version
                objects.download(f"{ARCHIVE}/{version}", target)
        champion = repository.route().champion
        if champion is not None and champion.version not in repository.versions():
            repository.arrange([champion.version])
    return repository.known()


def _require_none_served(repository: ServingRepository) -> None:
    if repository.known():
        raise ConfigError(
            "this home has a serving repository of its own, and the shared store has another "
            "host's",
            where=str(repository.root),
            remedy="move this folder and the one with -state away and keep them, then run the same "
            "command",
        )


def _files(settings: Settings, repository: ServingRepository) -> dict[str, Path]:
    emergencies = {
        f"{EMERGENCIES}/{path.name}": path
        for path in sorted((repository.state / fence.FOLDER).glob("*.json"))
    }
    return {
        f"{FOLDER}/policy.yaml": policy_path(settings.serving_repository),
        f"{FOLDER}/route.json": repository.route_file,
    } | emergencies


def _fetch(objects: Objects, settings: Settings, repository: ServingRepository) -> None:
    """Write the store's policy, route and emergencies over this host's."""
    wanted = _files(settings, repository) | {
        key: repository.state / fence.FOLDER / key.rpartition("/")[2]
        for key in objects.keys(EMERGENCIES)
    }
    for key, path in wanted.items():
        content = objects.read(key)
        if content is not None and not (path.is_file() and path.read_bytes() == content):
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)
