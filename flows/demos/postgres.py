"""A real Postgres of the system's packages, in a folder, for the length of a block."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.demos.hosts import Host
from infra.servers import HOST, ServerError, free_port
from model_code.errors import ConfigError

USER, PASSWORD = "tickline", "not-a-secret"
HERE = Host("here", HOST)


def binaries() -> Path:
    """Folder of `initdb`.

    Raises:
        ConfigError: Postgres is not installed.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if found is None:
        raise ConfigError(
            "Postgres: initdb is not installed", remedy="Debian: apt-get install postgresql"
        )
    return Path(found).resolve().parent


@contextmanager
def postgres(databases: Sequence[str], host: Host = HERE) -> Iterator[str]:
    """Yield `USER:PASSWORD@address:port` of a server with these databases.

    Raises:
        ConfigError: Postgres is not installed.
        ServerError: it does not start.
    """
    # a folder of its own: Postgres refuses to be root, and its account must be able to enter
    with TemporaryDirectory(prefix="tickline-postgres-") as name:
        folder, tools, port = Path(name), binaries(), free_port()
        data, word, log = folder / "data", folder / "password", folder / "log"
        word.write_text(PASSWORD)
        account: list[str] = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            for path in (folder, word):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            account = ["runuser", "-u", "nobody", "--"]

        def run(*command: str) -> None:
            # a file and no pipe: the server would hold that open
            with (folder / "output").open("w+") as output:
                done = subprocess.run(
                    host.command(*account, *command),
                    cwd=folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
                if done.returncode != 0:
                    output.seek(0)
                    raise ServerError(f"{Path(command[0]).name} failed:\n{output.read()}")

        create = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={word}", "--no-sync"]
        run(str(tools / "initdb"), f"--pgdata={data}", *create)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        options = f"-h {host.address} -p {port} -k {folder} -F"
        control = (str(tools / "pg_ctl"), f"--pgdata={data}", "--wait")
        run(*control, f"--log={log}", f"--options={options}", "start")
        try:
            address = f"{USER}:{PASSWORD}@{host.address}:{port}"
            _create(address, databases)
            yield address
        finally:
            run(*control, "--mode=fast", "stop")


def _create(address: str, databases: Sequence[str]) -> None:
    import psycopg2

    connection = psycopg2.connect(f"postgresql://{address}/postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in databases:
            cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
