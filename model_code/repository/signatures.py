"""Signatures of decisions by SSH keys, as git makes them: `ssh-keygen -Y sign` and `-Y verify`."""

import datetime as dt
import os
import re
import subprocess
import tempfile
from pathlib import Path

from model_code.errors import ConfigError, PromotionError
from model_code.repository.policy import Policy

NAMESPACE = "tickline"  # a signature made for another purpose does not count
TIMEOUT_S = 60
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]+")


def sign(text: str, key: Path) -> str:
    """Sign a text; ssh-keygen asks for the passphrase in the terminal, or the agent signs.

    Args:
        text: to sign.
        key: private key, or the .pub file of a key that ssh-agent holds.

    Raises:
        ConfigError: ssh-keygen is not installed.
        PromotionError: it did not sign.
    """
    if not key.is_file():
        raise PromotionError(
            "there is no such key",
            where=str(key),
            remedy="give your private key, or the .pub file of a key that ssh-agent holds: --key",
        )
    # no time limit: it may wait for a passphrase or for a touch of a hardware key
    done = _ssh_keygen(["sign", "-f", str(key)], text, timeout=None)
    if done.returncode:
        raise PromotionError(
            f"the key did not sign: {_reason(done)}",
            where=str(key),
            remedy="give your private key, or the .pub file of a key that ssh-agent holds: --key",
        )
    return done.stdout


def signature_problem(
    policy: Policy, reviewer: str, text: str, signature: str, at: dt.datetime
) -> str | None:
    """Return why a signature does not count; None if it does.

    Args:
        policy: has the reviewers' keys.
        reviewer: who must have signed.
        text: that must have been signed.
        signature: armoured, as ssh-keygen writes it.
        at: when it was made; a key's `valid-after` and `valid-before` are compared with it, in UTC.

    Raises:
        ConfigError: ssh-keygen is not installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made, allowed = Path(scratch) / "signature", Path(scratch) / "allowed_signers"
        made.write_text(signature)
        allowed.write_text(policy.allowed_signers)
        checked = _ssh_keygen(["check-novalidate", "-s", str(made)], text)
        key = FINGERPRINT.search(checked.stdout)
        if checked.returncode or key is None:
            return f"the signature does not fit the text that {reviewer} must sign"
        if key[0] not in {signer.fingerprint for signer in policy.signers.get(reviewer, ())}:
            return (
                f"it is signed with the key {key[0]}, which the policy does not give to {reviewer}"
            )
        when = at.astimezone(dt.UTC).strftime("%Y%m%d%H%M%S")
        options = ["-f", str(allowed), "-I", reviewer, "-s", str(made), f"-Overify-time={when}"]
        verified = _ssh_keygen(["verify", *options], text)
    if verified.returncode:
        return f"the key {key[0]} of {reviewer} does not count on {at:%F %H:%M} UTC: " + _reason(
            verified
        )
    return None


def _ssh_keygen(
    arguments: list[str], text: str, timeout: float | None = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", *arguments, "-n", NAMESPACE],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            # dates of allowed_signers are read in the zone of the process
            env=os.environ | {"TZ": "UTC", "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise ConfigError(
            "ssh-keygen is not installed, so no signature can be made or verified",
            where="PATH",
            remedy="install OpenSSH's client: apt-get install openssh-client",
        ) from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """What ssh-keygen said, without its frames of @ and the name of our temporary file."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip(" @")]
    said = lines[0].strip() if lines else f"ssh-keygen ended with {done.returncode}"
    return re.sub(r"^\S*allowed_signers:\d+: ", "", said)
