"""SSH keys of reviewers, made for a test."""

import shutil
import subprocess
from pathlib import Path

import pytest


def make_key(folder: Path, name: str) -> Path:
    """A key without a passphrase; its public part is beside it, in NAME.pub."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@desk", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def signer(key: Path, options: str = 'namespaces="tickline"') -> str:
    """The line of `allowed_signers` for a key, which is named like its owner."""
    public = key.with_name(f"{key.name}.pub").read_text().strip()
    return f"{key.name} {options} {public}\n"
