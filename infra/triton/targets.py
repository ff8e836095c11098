"""The Triton servers of `TICKLINE_TARGETS`; without it the one server, by the same functions.

Promotions and rollbacks are for the servers that the policy names.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.triton.daemon import serving_url, status
from infra.triton.key import control_key
from model_code.errors import ConfigError
from model_code.repository.policy import Policy, PolicyFile
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.servers import Server, Servers
from model_code.settings import Settings
from model_code.settings.targets import Targets


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


def of_policy(settings: Settings, policy: PolicyFile) -> Settings:
    """The settings, with the servers that the policy names.

    Raises:
        ConfigError: `TICKLINE_TRITON_URL`, `TICKLINE_TARGETS` or `TICKLINE_QUORUM` name others.
    """
    own = policy.policy
    named = own.triton_url
    if settings.triton_url and not named and not own.targets:
        server = status(settings)
        named = None if server is None else server.grpc_url
    pairs = (
        ("TICKLINE_TRITON_URL", settings.triton_url, named),
        ("TICKLINE_TARGETS", _text(settings.targets), _text(own.targets)),
        ("TICKLINE_QUORUM", settings.quorum, own.quorum),
    )
    for name, asked, wanted in pairs:
        if asked and asked != wanted:
            raise ConfigError(
                f"{name} is {asked}, the policy says {wanted or _instead(own)}",
                where=str(policy.path),
                remedy=f"unset {name}: promotions are for the server that the policy names",
            )
    changes = {"triton_url": own.triton_url, "targets": own.targets, "quorum": own.quorum}
    return settings.model_copy(update=changes)


def serving_settings(settings: Settings) -> Settings:
    """The settings; if they name no server and there is a policy, with the policy's servers.

    To look at servers and to bring them level; a promotion or rollback takes `of_policy`.

    Raises:
        ConfigError: the policy is wrong.
    """
    if settings.triton_url or settings.targets:
        return settings
    policy = PolicyFile.find(settings.serving_repository)
    return settings if policy is None else of_policy(settings, policy)


def _text(targets: Targets) -> str:
    found = {name: target.absolute() for name, target in targets.items()}
    return json.dumps(found, sort_keys=True) if found else ""


def _instead(policy: Policy) -> str:
    """What the policy says where it does not name what was asked for."""
    if policy.targets:
        return f"targets {', '.join(policy.targets)}, quorum {policy.quorum or 'all'}"
    return policy.triton_url or "the server of tickline triton up, which does not run"
