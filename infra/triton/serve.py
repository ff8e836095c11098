"""Bring a started server to serve: load what the repository has, prove it, cure what is dead.

A ready server may serve nothing: after a start no model is loaded, and a model whose process died
stays ready. Only a golden request shows that a version answers.
"""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from model_code.errors import IntegrityError, ServingError, TicklineError
from model_code.repository.manifest import Manifest
from model_code.repository.requests import GoldenSet
from model_code.repository.route import Target
from model_code.repository.serving import RepositoryBusyError, ServingRepository
from model_code.serving.candidate import load_under
from model_code.serving.client import TritonClient
from model_code.serving.golden import prove, reload, revive
from model_code.serving.servers import golden_of, reason
from model_code.settings import MODEL_NAME, Settings

PROBE_TIMEOUT_S = 5.0


def serve(settings: Settings, client: TritonClient, lacking: Callable[[], set[int]] = set) -> None:
    """Load the repository's versions unless they answer, and prove each by golden requests.

    A version that does not answer is loaded again alone; if that does not help, the whole model.
    One caller at a time; the others wait and find it done.

    Args:
        settings: of the repository.
        client: of a server that reads it, with the key.
        lacking: versions whose process is known to be dead, so that they need not be asked.

    Raises:
        IntegrityError: a version's bytes are not the approved ones; nothing was loaded.
        RepositoryBusyError: a promotion or rollback is changing the versions.
        ServingError: a version does not load or does not answer rightly.
    """
    repository = ServingRepository(settings.serving_repository)
    folder = settings.home / "triton"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "serve.lock"):
        if not lacking() and not silent(repository, client):
            return
        try:
            with repository.exclusive():
                _cure(repository, client, lacking)
        except RepositoryBusyError:
            # it holds the lock for minutes, but moves folders only with a journal
            if repository.journal() is None:
                _cure(repository, client, lacking)
            elif repository.route().champion in silent(repository, client):
                raise


def loaded_at_start(settings: Settings) -> list[str]:
    """Options so that the server loads the model before it listens; none if it may not.

    A client then finds the server away or its versions there, never the server without the model.
    """
    repository = ServingRepository(settings.serving_repository)
    try:
        require_approved(repository.home)
    except TicklineError:  # `serve` reports it
        return []
    return [f"--load-model={MODEL_NAME}", "--exit-on-error=false"] if repository.versions() else []


def silent(repository: ServingRepository, client: TritonClient) -> dict[Target, str]:
    """What the repository and the route say should answer and does not, with the reason."""
    return {
        target: why
        for target in _wanted(repository)
        if (why := _fault(repository, client, target, whole=False))
    }


def _wanted(repository: ServingRepository) -> list[Target]:
    champion = repository.route().champion
    found = [Target(model=MODEL_NAME, version=version) for version in repository.versions()]
    if champion is not None and champion not in found:
        found.append(champion)  # under a bridge name, in an interrupted change
    return found


def _fault(
    repository: ServingRepository, client: TritonClient, target: Target, *, whole: bool
) -> str:
    """Why a version does not answer; empty if it does. One golden request, or all of them."""
    try:
        known = golden_of(repository, target.version)
        if not whole:
            known = GoldenSet(known.x_NTF[:1], known.logits_NC[:1], known.tolerance)
        prove(client, known, target.model, target.version, timeout_s=PROBE_TIMEOUT_S)
    except TicklineError as error:
        return reason(error)
    return ""


def _cure(
    repository: ServingRepository, client: TritonClient, lacking: Callable[[], set[int]]
) -> None:
    require_approved(repository.home)
    wanted = _wanted(repository)
    for target in wanted:
        if target.model != MODEL_NAME and target in silent(repository, client):
            load_under(client, target.model, repository.folder(target.version))
    versions = repository.versions()
    if set(client.versions(MODEL_NAME)) != set(versions):
        client.load(MODEL_NAME, versions)
    dead = [Target(model=MODEL_NAME, version=version) for version in sorted(lacking())]
    dead = dead or [one for one in silent(repository, client) if one.model == MODEL_NAME]
    for target in dead:
        revive(client, repository.folder(target.version))
    if any(_fault(repository, client, target, whole=False) for target in dead):
        reload(client)
    for target in wanted:
        if why := _fault(repository, client, target, whole=True):
            raise ServingError(
                f"version {target.version} does not answer rightly: {why}",
                where=f"{client.url}, model {target.model}",
                remedy="read its log: tickline triton logs; serve another version: "
                "tickline rollback",
            )


def require_approved(home: Path) -> None:
    """Check that every version on disk is unchanged and approved; Triton is about to read it.

    Raises:
        IntegrityError: one is not.
    """
    for folder in sorted(home.iterdir() if home.is_dir() else ()):
        if folder.name.isdecimal() and Manifest.load(folder).approval is None:
            raise IntegrityError(
                f"version {folder.name} in the serving repository was never approved",
                where=str(folder),
                remedy="only a promotion may add versions: move it away, then tickline triton up",
            )
