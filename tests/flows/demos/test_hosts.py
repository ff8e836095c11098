import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.demos import hosts
from flows.demos.hosts import Network, namespaces, obstacle, on_loopback
from infra.servers import HOST, ServerError

NAMES = ("hub", "host-a", "host-b")
namespaces_needed = pytest.mark.skipif(
    obstacle() is not None, reason=f"network namespaces: {obstacle()}"
)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in NAMES}
    for name, folder in found.items():
        folder.mkdir()
        (folder / name).touch()
    return found


@pytest.fixture
def network(folders: dict[str, Path]) -> Iterator[Network]:
    with namespaces(NAMES, folders) as found:
        yield found


def printed(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@namespaces_needed
def test_each_host_has_its_own_name_address_and_folder(
    network: Network, folders: dict[str, Path]
) -> None:
    for name in ("host-a", "host-b"):
        host = network.hosts[name]
        paths = [str(folder) for folder in folders.values()]
        code = "import os, socket, sys; print(socket.gethostname(), *map(os.listdir, sys.argv[1:]))"
        seen = " ".join(str([owner] if owner == name else []) for owner in NAMES)
        assert printed(host.command(sys.executable, "-c", code, *paths)) == f"{name} {seen}\n"
        assert host.address in printed(host.command("ip", "address"))
    assert len({host.address for host in network.hosts.values()}) == len(NAMES)
    assert all((folder / name).is_file() for name, folder in folders.items())


@namespaces_needed
def test_nothing_arrives_while_the_link_is_cut(network: Network) -> None:
    host = network.hosts["host-a"]
    code = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 4200))\n"
        "print('up', flush=True)\n"
        "while True: s.accept()[0].close()"
    )
    server = subprocess.Popen(
        host.command(sys.executable, "-c", code, host.address), stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"

        def connect(timeout: float) -> None:
            socket.create_connection((host.address, 4200), timeout=timeout).close()

        connect(5.0)
        network.cut("host-a")
        with pytest.raises(OSError, match=r"timed out|No route"):
            connect(0.5)
        network.restore("host-a")
        connect(10.0)
    finally:
        server.kill()
        server.communicate()


@namespaces_needed
def test_nothing_is_left_behind(folders: dict[str, Path]) -> None:
    left = f"{hosts.PREFIX}-{2**22 + 1}-left"  # of a demo that is gone: above the largest pid
    subprocess.run(["ip", "netns", "add", left], check=True)

    def interrupted() -> None:
        with namespaces(NAMES, folders) as network:
            assert left not in printed(["ip", "netns", "list"])
            assert str(network.hub) in printed(["ip", "netns", "list"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert f"{hosts.PREFIX}-{os.getpid()}-" not in printed(["ip", "netns", "list"])
    assert f"{hosts.PREFIX[:4]}{os.getpid()}" not in printed(["ip", "link"])


def test_loopback_has_no_link_and_changes_no_command() -> None:
    network = on_loopback(NAMES)
    assert network.hosts["host-a"].command("a", "b") == ["a", "b"]
    assert {host.address for host in network.hosts.values()} == {HOST}
    with pytest.raises(ServerError, match="no link"):
        network.cut("host-a")


def test_the_obstacle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: tool)
    assert obstacle() == "not root"
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "unshare" else tool)
    assert obstacle() == "unshare not installed"
