"""Step `swap`: make the approved version the champion, in one transaction."""

from pathlib import Path

from prefect.runtime import flow_run
from rich.markup import escape

from infra.leases.lease import require_held
from infra.triton.targets import serving_servers
from model_code.errors import PromotionError
from model_code.repository.fence import FencedError
from model_code.repository.manifest import Approval, Manifest
from model_code.repository.serving import ServingRepository
from model_code.serving.swap import Swap
from model_code.settings import Settings
from model_code.storage.serving import share_serving
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import Decided, Opened, Shown
from tasks.promotion.targets import note_targets
from tasks.runs.aliases import Aliases
from tasks.runs.console import console


@once_per_run("swap")
def swap(settings: Settings, opened: Opened, shown: Shown, decided: Decided) -> int:
    """Make the approved version the champion, in one transaction; return its number.

    Raises:
        IntegrityError: bytes differ from what was approved.
        QuorumError: of several targets too few have it.
        FencedError: an emergency rollback took over; nothing is undone.
        TicklineError: the swap failed; the previous version is restored.
    """
    repository = ServingRepository(settings.serving_repository, opened.epoch)
    aliases = Aliases(settings)
    approval = Approval(
        reviewer=decided.reviewer,
        at=decided.at.isoformat(timespec="seconds"),
        reason=decided.reason,
        started_by=opened.started_by,
        flow_run_id=str(flow_run.id),
        policy_sha256=shown.policy_sha256,
        signed=decided.signed,
        signature=decided.signature,
    )
    with serving_servers(settings, repository) as servers:
        transaction = Swap(repository, servers, aliases)
        is_new = opened.version not in repository.known()
        require_held()
        repository.publish(Path(opened.candidate), approval)
        try:
            _require_approved(repository, opened.version, shown)
            require_held()
            transaction.run("promote", opened.version, shown.champion, str(flow_run.id))
        except FencedError:
            raise
        except Exception:
            if is_new and repository.journal() is None:
                repository.withdraw(opened.version)
                servers.withdraw(opened.version, repository)
            raise
        finally:
            if repository.fence.is_current:
                note_targets(settings, repository, servers)
    share(settings)
    return opened.version


def share(settings: Settings) -> None:
    """Copy what has changed to the shared store; warn if it does not answer."""
    problem = share_serving(settings)
    if problem:
        console.print(
            f"  [yellow]warning[/]: {escape(problem)}; the flow promotions-due copies the serving "
            "repository within 15 minutes"
        )


def _require_approved(repository: ServingRepository, version: int, shown: Shown) -> None:
    """Verify that the copy is what was shown: the staging folder may have changed since."""
    found = Manifest.load(repository.folder(version)).identity
    if found != shown.identity:
        raise PromotionError(
            f"version {version} is not what was approved: "
            f"shown {shown.identity[:12]}, copied {found[:12]}",
            where=str(repository.folder(version)),
            remedy="the approval is void; find out who changed the staging folder",
        )
