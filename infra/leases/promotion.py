"""The owner of a promotion, of all processes of all hosts."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.leases.lease import LeaseBusyError, hold_lease
from model_code.repository.lease import PromotionRunningError, owned
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings

WAIT_S = 5.0  # who resumes a promotion holds it until its worker may have started


@contextmanager
def own_promotion(
    settings: Settings, version: int, name: str = "", flow_run_id: str = ""
) -> Iterator[None]:
    """Own the promotions of a version for the block; within it the same thread may do so again.

    Args:
        settings: of this home; with a shared store no other host may own them either.
        version: to promote.
        name: of the flow run.
        flow_run_id: of the flow run.

    Raises:
        PromotionRunningError: another process owns them.
        StorageError: the home cannot be written.
        httpx.HTTPError: with a shared store: the Prefect server does not answer.
    """
    state = ServingRepository(settings.serving_repository).state
    with owned(state, version, name, flow_run_id), ExitStack() as stack:
        try:
            stack.enter_context(
                hold_lease(
                    settings,
                    f"promotion-{version}",
                    run=name,
                    flow_run_id=flow_run_id,
                    wait_s=WAIT_S,
                )
            )
        except LeaseBusyError as error:
            raise PromotionRunningError(
                f"the promotion of version {version} is running ({error.what})",
                where=error.where,
                remedy=error.remedy,
            ) from error
        yield
