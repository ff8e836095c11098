"""A real Postgres of the system's packages, in a folder, on a free loopback port."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from infra.servers import HOST, free_port

USER, PASSWORD = "tickline", "not-a-secret"


def binaries() -> Path:
    """Folder of `initdb`; the test is skipped, by name, without."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if found is None:
        pytest.skip("Postgres: initdb is not installed (Debian: postgresql)")
    return Path(found).resolve().parent


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """Yield `USER:PASSWORD@host:port` of a server with these databases."""
    # not pytest's folder: only its owner may enter that, and Postgres refuses to be root
    with (
        TemporaryDirectory(prefix="tickline-postgres-") as folder,
        _running(Path(folder), *databases) as address,
    ):
        yield address


@contextmanager
def _running(folder: Path, *databases: str) -> Iterator[str]:
    tools, port = binaries(), free_port()
    data, word = folder / "data", folder / "password"
    word.write_text(PASSWORD)
    prefix: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody")
        for path in (folder, word):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        prefix = ["runuser", "-u", "nobody", "--"]

    def run(*command: str) -> None:
        done = subprocess.run(
            [*prefix, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    create = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={word}", "--no-sync"]
    run(str(tools / "initdb"), f"--pgdata={data}", *create)
    options = f"-h {HOST} -p {port} -k {folder} -F"
    log = folder / "log"
    control = [str(tools / "pg_ctl"), f"--pgdata={data}"]
    start = [*prefix, *control, "--wait", f"--log={log}", f"--options={options}", "start"]
    # no pipes here: the server would hold them open
    subprocess.run(start, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    try:
        import psycopg2

        address = f"{USER}:{PASSWORD}@{HOST}:{port}"
        connection = psycopg2.connect(f"postgresql://{address}/postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in databases:
                cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        yield address
    finally:
        run(*control, "--mode=fast", "--wait", "stop")
