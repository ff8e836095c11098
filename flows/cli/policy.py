"""`tickline policy`: who decides on promotions, within which limits, for which server."""

import stat
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.options import expanded, settings_from_environment
from model_code.errors import ConfigError
from model_code.repository.policy import Policy, PolicyFile, Signer, policy_path
from model_code.settings import PromotionSpec, Settings
from model_code.settings.changes import shown

app = typer.Typer(
    help="Policy of promotions: who decides, within which limits, for which server.",
    no_args_is_help=True,
)
out = Console()
IGNORED = ("TICKLINE_REVIEWERS", "TICKLINE_FOUR_EYES")  # of earlier versions
HEADING = """\
# Who decides on promotions, within which limits, for which server: docs/promotion.md#policy
# Let only its owner write this file. A change voids the approvals that wait.
"""


@app.command()
def init(
    reviewer: Annotated[
        list[str], typer.Option(help="Name of one who may decide; repeat for several.")
    ],
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="SSH public key (.pub file) of the reviewer in the same place; repeat for each.",
            show_default="none",
            callback=lambda paths: [expanded(path) for path in paths or ()],
        ),
    ] = None,
    signatures: Annotated[
        str | None,
        typer.Option(
            help="required or optional: whether a decision must be signed.",
            show_default="required with keys, else optional",
        ),
    ] = None,
    four_eyes: Annotated[
        bool,
        typer.Option(help="Who started a promotion, or the version's night, cannot approve it."),
    ] = True,
    allow_simulated: Annotated[
        bool,
        typer.Option("--allow-simulated", help="Promotions may allow a model of simulated data."),
    ] = False,
    not_comparable: Annotated[
        bool,
        typer.Option(
            "--not-comparable",
            help="Promotions may allow a version that was not compared with the champion.",
        ),
    ] = False,
    triton_url: Annotated[
        str | None,
        typer.Option(
            help="gRPC host:port of the Triton server that promotions are for.",
            show_default="TICKLINE_TRITON_URL or TICKLINE_TARGETS, else that of tickline triton up",
        ),
    ] = None,
) -> None:
    """Write the policy of the serving repository; an existing one is never overwritten.

    Use it once, before the first promotion. Edit the file for limits, for how far
    a promotion may loosen them, and for a reviewer's second key
    (docs/promotion.md#policy):

        tickline policy init --reviewer ada --key ada.pub --reviewer grace --key grace.pub
    """
    settings, keys = settings_from_environment(), key or []
    if keys and len(keys) != len(reviewer):
        raise ConfigError(
            f"{len(reviewer)} reviewers and {len(keys)} keys",
            where="--reviewer, --key",
            remedy="give a --key after each --reviewer, in the same order, or no key at all",
        )
    signers = [
        f'{n} namespaces="tickline" {_public(p)}' for n, p in zip(reviewer, keys, strict=False)
    ]
    loosest: dict[str, Any] = {"allow_simulated": True} if allow_simulated else {}
    if not_comparable:
        loosest["not_comparable"] = "with a reason"
    document: dict[str, Any] = {
        "reviewers": reviewer,
        "four_eyes": four_eyes,
        "signatures": signatures or ("required" if keys else "optional"),
        "limits": {},
        "loosest": loosest,
    }
    document |= _servers(settings, triton_url)
    path = policy_path(settings.serving_repository)
    text = HEADING + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if signers:
        text += "\n".join(["allowed_signers: |", *(f"  {line}" for line in signers)]) + "\n"
    content = text.encode()
    PolicyFile.read(content, path)  # a wrong one is not written
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(
            "there is a policy already, and it was not changed",
            where=str(path),
            remedy="edit it, then: tickline policy check",
        ) from error
    _print(PolicyFile.load(settings.serving_repository))


@app.command()
def show() -> None:
    """Show who decides, what is required, what may be loosened, and for which server.

    Use it before you ask for a promotion or decide on one.
    """
    _print(PolicyFile.load(settings_from_environment().serving_repository))


@app.command()
def check() -> None:
    """Check the policy after a change: that it is valid and only its owner can write it.

    Exit status 1: it is wrong, or other accounts can change it. A change voids the
    approvals that wait: their promotions have to be started again.
    """
    policy = PolicyFile.load(settings_from_environment().serving_repository)
    _print(policy)
    mode = policy.path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            "other accounts can change the policy",
            where=f"{policy.path}, mode {stat.S_IMODE(mode):o}",
            remedy=f"chmod 644 {policy.path}",
        )
    out.print("[bold green]the policy is valid")


def say_ignored(settings: Settings) -> None:
    """Print once which variables of earlier versions are set and no longer count."""
    sources = (EnvSettingsSource(Settings), DotEnvSettingsSource(Settings))
    given = {name.upper() for source in sources for name in source.env_vars}
    found = [name for name in IGNORED if name in given]
    if found:
        path = policy_path(settings.serving_repository)
        out.print(
            f"[yellow]{' and '.join(found)} ignored[/]: the policy decides ({escape(str(path))})",
            soft_wrap=True,
        )


def _servers(settings: Settings, triton_url: str | None) -> dict[str, Any]:
    if triton_url or settings.triton_url:
        return {"triton_url": triton_url or settings.triton_url}
    if not settings.targets:
        return {}
    targets = {name: target.absolute() for name, target in settings.targets.items()}
    return {"targets": targets} | ({"quorum": settings.quorum} if settings.quorum else {})


def _public(path: Path) -> str:
    """The key of a .pub file."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the public key: {error}", where=str(path), remedy="give a .pub file"
        ) from error
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(found) != 1 or "PRIVATE KEY" in found[0]:
        raise ConfigError(
            "this is no public key: one line, KEY-TYPE KEY",
            where=str(path),
            remedy="give the .pub file; to make a key: ssh-keygen -t ed25519",
        )
    return found[0]


def _print(found: PolicyFile) -> None:
    policy, defaults = found.policy, PromotionSpec()
    table = Table("", "", box=box.SIMPLE, show_header=False)
    signers = policy.signers
    for name in policy.reviewers:
        table.add_row(f"reviewer {name}", "\n".join(map(_key, signers.get(name, ()))) or "no key")
    for name in sorted(signers.keys() - set(policy.reviewers)):
        table.add_row(f"{name}, no reviewer", "\n".join(map(_key, signers[name])))
    table.add_row("four eyes", "on" if policy.four_eyes else "[yellow]off")
    table.add_row("signatures", policy.signatures)
    limits = [name for name in PromotionSpec.model_fields if name != "KIND"]
    own = {name: getattr(policy.limits, name) for name in limits}
    changed = [name for name in limits if own[name] != getattr(defaults, name)]
    for name in changed:
        table.add_row(f"limit {name}", escape(shown(own[name])))
    if len(changed) < len(limits):
        table.add_row("other limits", "the defaults (docs/settings.md)")
    for name, value in policy.loosest.items():
        table.add_row(f"may loosen {name}", f"[red]{escape(shown(value))}")
    table.add_row("server", escape(_server(policy)))
    out.print(table)
    out.print(f"[dim]{escape(str(found.path))}, sha256 {found.sha256}", soft_wrap=True)


def _key(signer: Signer) -> str:
    return escape(f"{signer.kind} {signer.fingerprint[:20]}..." + f" {signer.options}".rstrip())


def _server(policy: Policy) -> str:
    if policy.targets:
        named = ", ".join(f"{name} {target.url}" for name, target in policy.targets.items())
        return f"{named}; quorum {policy.quorum or 'all'}"
    return policy.triton_url or "that of tickline triton up"
