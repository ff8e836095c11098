"""The Triton servers of `TICKLINE_TARGETS`; without it the one server, by the same functions."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.triton.daemon import serving_url
from infra.triton.key import control_key
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.servers import Server, Servers
from model_code.settings import Settings


def serving_urls(settings: Settings) -> tuple[str, ...]:
    """What clients ask, as host:port, the first server first.

    Raises:
        ServerError: none is configured or running.
    """
    if settings.targets:
        return tuple(target.url for target in settings.targets.values())
    return (serving_url(settings),)


@contextmanager
def serving_servers(settings: Settings, repository: ServingRepository) -> Iterator[Servers]:
    """Connect to every target for the block.

    Args:
        settings: with the targets and the quorum.
        repository: that of the settings; the original of the targets' copies.

    Raises:
        ServerError: none is configured or running.
    """
    key = control_key(settings)
    with ExitStack() as stack:
        if not settings.targets:
            client = stack.enter_context(TritonClient(serving_url(settings), key))
            yield Servers([Server("", client, repository)])
            return
        found = []
        for name, target in settings.targets.items():
            client = stack.enter_context(TritonClient(target.control_url, key))
            own = repository
            if target.repository is not None:
                own = ServingRepository(target.repository.expanduser().resolve())
            found.append(Server(name, client, own))
        yield Servers(found, settings.needed_targets)
