"""Files with secrets are neither committed nor sent to an image's build, wherever they lie."""

import shutil
import subprocess
from pathlib import Path

import pytest
from pathspec import PathSpec

ROOT = Path(__file__).resolve().parents[2]
SECRET = [
    f"{folder}{name}"
    for folder in ("", "infra/", "infra/compose/", "infra/kubernetes/", "a/new/folder/")
    for name in (".env", "secret.env", "auth.env", "live.env", ".env.local")
]
KEPT = [
    "infra/compose/env.example",
    "infra/kubernetes/secret.env.example",
    "infra/systemd/auth.env.example",
    "model_code/settings/environment.py",
]


def test_git_ignores_them() -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *SECRET, *KEPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout.split() == SECRET


def test_docker_ignores_them() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    # Docker's patterns are git's, except that each begins at the context's root
    rooted = [f"/{line.lstrip('/')}" for line in lines if line and not line.startswith("#")]
    assert not [line for line in rooted if line.startswith("/!")]
    ignored = PathSpec.from_lines("gitignore", rooted)
    assert [path for path in SECRET if not ignored.match_file(path)] == []
    assert [path for path in KEPT if ignored.match_file(path)] == []
    only_root = PathSpec.from_lines("gitignore", ["/.env"])
    assert not only_root.match_file("infra/.env"), "the check above can fail"
