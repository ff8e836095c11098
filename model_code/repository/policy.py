"""The policy of a serving repository: who decides, within which limits, for which server.

    <root>-policy.yaml      beside the serving repository <root>

It belongs to the server. No variable and no file of those who ask for a promotion changes it.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError, PromotionError
from model_code.settings import PositiveInt, PromotionSpec, Spec
from model_code.settings.address import OptionalGrpcAddress
from model_code.settings.changes import from_yaml, shown
from model_code.settings.targets import Targets, check_targets

NAME = re.compile(r"\w[\w.@+-]*")
# of OpenSSH's allowed_signers: principals, options, key type, key, comment
SIGNER = re.compile(
    r"(?P<names>\S+)\s+(?:(?P<options>(?:\"[^\"]*\"|[^\s\"])+)\s+)??"
    r"(?P<kind>(?:ssh|ecdsa|sk)-[\w@.-]+)\s+(?P<key>[A-Za-z0-9+/]+={0,2})(?:\s.*)?"
)


def _higher(value: Any, limit: Any) -> bool:
    """A higher value is looser; None is no limit at all."""
    return limit is not None and (value is None or value > limit)


def _lower(value: Any, limit: Any) -> bool:
    """A lower value is looser."""
    return bool(value < limit)


def _fewer(value: Any, limit: Any) -> bool:
    """Leaving one of the limit's steps out is looser."""
    return not set(limit) <= set(value)


def _given(value: Any, limit: Any) -> bool:
    """Giving it is looser than leaving it out; what exactly is given does not matter."""
    return bool(value) and not limit


# when a value of each field lets a worse candidate through, or with less proof, than the limit
LOOSER: Mapping[str, Callable[[Any, Any], bool]] = {
    "decision_hours": _higher,
    "answer_tolerance": _higher,
    "concurrency": _fewer,
    "load_requests": _lower,
    "shadow_requests": _lower,
    "shadow_s": _lower,
    "positive_requests": _lower,
    "shares": _fewer,
    "canary_requests": _lower,
    "canary_patience": _lower,
    "canary_step_s": _lower,
    "canary_live_requests": _lower,
    "canary_live_s": _lower,
    "max_error_rate": _higher,
    "max_p50_ratio": _higher,
    "max_p99_ms": _higher,
    "max_disagreement": _higher,
    "max_positive_disagreement": _higher,
    "alpha": _lower,  # fewer false stops, and later true ones
    "allow_simulated": _given,
    "not_comparable": _given,
}


def _reviewers(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: letters, digits and . _ @ + -, without spaces")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("a name is there twice")
    return names


@dataclass(frozen=True)
class Signer:
    """A key of `allowed_signers`.

    Attributes:
        names: whose it is.
        options: such as `namespaces="tickline"` and `valid-before="20270101"`.
        kind: such as ssh-ed25519.
        fingerprint: of the key, as `ssh-keygen -l` shows it.
    """

    names: tuple[str, ...]
    options: str
    kind: str
    fingerprint: str


def _signers(text: str) -> tuple[Signer, ...]:
    """The keys of a text in the format of OpenSSH's allowed_signers.

    Raises:
        ValueError: a line is malformed, or is a pattern of names.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = SIGNER.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"line {number} is not NAME KEY-TYPE KEY, as in a .pub file")
        names = tuple(match["names"].split(","))
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"line {number}: {name!r} is no reviewer's name; a pattern would let one key "
                    "sign for several people"
                )
        if "cert-authority" in (match["options"] or ""):
            raise ValueError(f"line {number}: give each reviewer's own key, not an authority's")
        try:
            digest = hashlib.sha256(base64.b64decode(match["key"], validate=True)).digest()
        except ValueError as error:
            raise ValueError(f"line {number}: the key is not base64") from error
        fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
        found.append(Signer(names, match["options"] or "", match["kind"], fingerprint))
    owners: dict[str, set[str]] = {}
    for signer in found:
        owners.setdefault(signer.fingerprint, set()).update(signer.names)
    for fingerprint, people in owners.items():
        if len(people) > 1:
            raise ValueError(f"{' and '.join(sorted(people))} have the same key {fingerprint}")
    return tuple(found)


def _readable(text: str) -> str:
    _signers(text)
    return text


class Policy(Spec):
    """Who decides on promotions, within which limits, for which server.

    Attributes:
        reviewers: names of those who may decide.
        four_eyes: who started a promotion, or the night of its version, does not approve it.
        signatures: whether a decision needs the reviewer's SSH signature.
        allowed_signers: the reviewers' public keys, as in OpenSSH's file of that name.
        limits: what every candidate must fulfil; a stricter value may always be asked for.
        loosest: by field of `limits`, how far a promotion may loosen it; a field that is absent
            cannot be loosened.
        exception_days: how long an exception may hold, from its approval or renewal.
        triton_url: gRPC host:port of the server; None: that of `tickline triton up` of the home.
        targets: several servers by name, instead of `triton_url`.
        quorum: targets that must have a version before the route turns to it; None: all of them.
    """

    KIND: Literal["policy"] = "policy"
    reviewers: Annotated[
        tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_reviewers)
    ]
    four_eyes: bool = True
    signatures: Literal["required", "optional"] = "optional"
    allowed_signers: Annotated[str, AfterValidator(_readable)] = ""
    limits: PromotionSpec = PromotionSpec()
    loosest: dict[str, JsonValue] = Field(default_factory=dict)
    exception_days: PositiveInt = 90
    triton_url: OptionalGrpcAddress = None
    targets: Targets = Field(default_factory=dict)
    quorum: int | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_targets(self.targets, self.quorum, self.triton_url)
        unknown = [name for name in self.loosest if name not in LOOSER]
        if unknown:
            raise ValueError(f"loosest: no limit is named {', '.join(unknown)}")
        loosest = self._loosest
        tighter = [name for name in self.loosest if self._looser(name, self.limits, loosest)]
        if tighter:
            raise ValueError(f"loosest is stricter than limits: {', '.join(tighter)}")
        lacking = sorted(set(self.reviewers) - self.signers.keys())
        if self.signatures == "required" and lacking:
            raise ValueError(
                f"signatures are required, and allowed_signers has no key of {', '.join(lacking)}"
            )
        return self

    @property
    def signers(self) -> dict[str, list[Signer]]:
        """The keys of `allowed_signers` by name."""
        found: dict[str, list[Signer]] = {}
        for signer in _signers(self.allowed_signers):
            for name in signer.names:
                found.setdefault(name, []).append(signer)
        return found

    @property
    def _loosest(self) -> PromotionSpec:
        return PromotionSpec.model_validate(self.limits.model_dump() | self.loosest)

    @staticmethod
    def _looser(name: str, value: PromotionSpec, limit: PromotionSpec) -> bool:
        return LOOSER[name](getattr(value, name), getattr(limit, name))

    def asked(self, wanted: PromotionSpec) -> PromotionSpec:
        """The limits of one promotion: the policy's, and over them each value that was asked for.

        Raises:
            ConfigError: values contradict each other.
        """
        given = wanted.model_dump(include=wanted.model_fields_set - {"KIND"})
        try:
            return PromotionSpec.model_validate(self.limits.model_dump() | given)
        except ValidationError as error:
            raise ConfigError(
                f"the limits of the promotion contradict each other: {error.errors()[0]['msg']}",
                where="--spec, over the policy's limits",
                remedy="change the values that --spec gives; tickline policy show has the others",
            ) from error

    def loosened(self, spec: PromotionSpec) -> tuple[str, ...]:
        """Each value that is looser than the policy's limit, in words."""
        return tuple(
            f"{name} {_line(getattr(spec, name))}, the policy's limit is "
            f"{_line(getattr(self.limits, name))}"
            for name in LOOSER
            if self._looser(name, spec, self.limits)
        )

    def beyond(self, spec: PromotionSpec) -> tuple[str, ...]:
        """Each value that is looser than the policy allows, in words."""
        loosest = self._loosest
        return tuple(
            f"{name} {_line(getattr(spec, name))} is asked, the policy allows "
            f"{_line(getattr(loosest, name))}"
            for name in LOOSER
            if self._looser(name, spec, loosest)
        )


def _line(value: Any) -> str:
    return " ".join(shown(value).split())


def policy_path(serving: Path) -> Path:
    """Where the policy of a serving repository is."""
    return serving.with_name(f"{serving.name}-policy.yaml")


@dataclass(frozen=True)
class PolicyFile:
    """A policy as it was read.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        policy: what they say.
    """

    path: Path
    sha256: str
    policy: Policy

    @classmethod
    def load(cls, serving: Path) -> Self:
        """Read the policy of a serving repository.

        Args:
            serving: the repository's root.

        Raises:
            ConfigError: there is none, or it is wrong.
        """
        found = cls.find(serving)
        if found is None:
            raise ConfigError(
                "the serving repository has no policy: nobody may decide on a promotion",
                where=str(policy_path(serving)),
                remedy="write one: tickline policy init --reviewer NAME (docs/promotion.md#policy)",
            )
        return found

    @classmethod
    def find(cls, serving: Path) -> Self | None:
        """Read the policy of a serving repository; None if there is none.

        Raises:
            ConfigError: it cannot be read, or it is wrong.
        """
        path = policy_path(serving)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                f"the policy cannot be read: {error.strerror}",
                where=str(path),
                remedy="let this account read it",
            ) from error
        return cls.read(content, path)

    @classmethod
    def read(cls, content: bytes, path: Path) -> Self:
        """Read a policy's bytes.

        Args:
            content: of the file.
            path: where it is, for messages.

        Raises:
            ConfigError: it is wrong.
        """
        try:
            document = from_yaml(content.decode())
            if not isinstance(document, Mapping):
                raise ValueError("it is no mapping of names to values")
            policy = Policy.model_validate(document)
        except (ValueError, yaml.YAMLError) as error:
            raise ConfigError(
                f"the policy is wrong: {_problems(error)}",
                where=str(path),
                remedy="correct it, then: tickline policy check",
            ) from error
        return cls(path, hash_bytes(content), policy)

    def require_within(self, spec: PromotionSpec) -> None:
        """Refuse limits that are looser than the policy allows.

        Raises:
            PromotionError: some are.
        """
        beyond = self.policy.beyond(spec)
        if beyond:
            raise PromotionError(
                f"looser than the policy allows: {'; '.join(beyond)}",
                where=str(self.path),
                remedy="ask for less, or have the policy's owner set `loosest` there",
            )


def _problems(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
    return "; ".join(f"{where}: {what}" if where else what for where, what in found)
