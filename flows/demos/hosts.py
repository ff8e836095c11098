"""Hosts of a demo: network namespaces with addresses of their own, or all of them on loopback.

A namespace host has its own interfaces, host name and view of the file system, in which the folders
of the other hosts are empty. Sources: ip-netns(8), network_namespaces(7), unshare(1).
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.servers import HOST, ServerError

SUBNETS = "198.18"  # RFC 2544: of tests, routed nowhere
PREFIX = "tickline"
TOOLS = ("ip", "unshare", "mount", "hostname")


@dataclass(frozen=True)
class Host:
    """Where processes run.

    Attributes:
        name: host name, in a namespace; on loopback only a label.
        address: at which the other hosts reach it.
        prefix: of every command that is to run there.
    """

    name: str
    address: str = HOST
    prefix: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs there."""
        return [*self.prefix, *arguments]


@dataclass(frozen=True)
class Network:
    """The hosts by name.

    Attributes:
        hosts: by name; the first is the hub, to which the others are linked.
        hub: namespace of the hub; None on loopback, where no link can be cut.
    """

    hosts: Mapping[str, Host]
    hub: str | None = None

    def cut(self, name: str) -> None:
        """Take the host's link down: nothing arrives in either direction.

        Raises:
            ServerError: there is no link.
        """
        self._link(name, "down")

    def restore(self, name: str) -> None:
        """Take the host's link up again.

        Raises:
            ServerError: there is no link.
        """
        self._link(name, "up")

    def _link(self, name: str, state: str) -> None:
        if self.hub is None:
            raise ServerError("loopback has no link to cut")
        _ip("-n", self.hub, "link", "set", name, state)


def obstacle() -> str | None:
    """Why there can be no namespaces here; None: there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "not root"
    name = f"{PREFIX}-{os.getpid()}-probe"
    try:
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except ServerError as error:
        return error.what
    return None


def on_loopback(names: Sequence[str]) -> Network:
    """All hosts on this machine's loopback."""
    return Network({name: Host(name) for name in names})


@contextmanager
def namespaces(names: Sequence[str], folders: Mapping[str, Path]) -> Iterator[Network]:
    """Give each host a network namespace for the length of the block.

    This process reaches every host, as if by a cable to the hub of its own.

    Args:
        names: of the hosts, at most 8 characters each; the first is the hub.
        folders: of hosts, which the others see empty.

    Raises:
        ServerError: `ip` fails.
    """
    _sweep()
    spaces = {name: f"{PREFIX}-{os.getpid()}-{name}" for name in names}
    own = f"{PREFIX[:4]}{os.getpid()}"  # an interface's name holds 15 characters
    hub, subnet = spaces[names[0]], _free_subnet()
    try:
        for space in spaces.values():
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "address", "add", f"{subnet}.1/24", "dev", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        for number, name in enumerate(names[1:], start=2):
            space = spaces[name]
            _plug(hub, name, ("eth0", "netns", space))
            _ip("-n", space, "address", "add", f"{subnet}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
        _plug(hub, "here", (own, "netns", str(os.getpid())))
        _ip("address", "add", f"{subnet}.254/24", "dev", own)
        _ip("link", "set", own, "up")
        yield Network(
            {
                name: Host(name, f"{subnet}.{number}", _prefix(spaces[name], name, folders))
                for number, name in enumerate(names, start=1)
            },
            hub,
        )
    finally:
        _delete(list(spaces.values()), own)


def _free_subnet() -> str:
    """Three numbers of an address that no interface here has; another demo may be running."""
    taken = _ip("-o", "-4", "address")
    wanted = ((os.getpid() + number) % 256 for number in range(256))
    return next(f"{SUBNETS}.{number}" for number in wanted if f" {SUBNETS}.{number}." not in taken)


def _plug(hub: str, port: str, peer: tuple[str, ...]) -> None:
    """Link a namespace to the hub's bridge."""
    _ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", *peer)
    _ip("-n", hub, "link", "set", port, "master", "bridge", "up")


def _prefix(space: str, name: str, folders: Mapping[str, Path]) -> tuple[str, ...]:
    hidden = [folder for owner, folder in folders.items() if owner != name]
    steps = [f"hostname {shlex.quote(name)}"]
    steps += [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in hidden]
    script = " && ".join([*steps, 'exec "$@"'])
    # `ip netns exec` has made the mounts this process's own; none of these steps forks
    return ("ip", "netns", "exec", space, "unshare", "--uts", "sh", "-c", script, name)


def _sweep() -> None:
    """Delete what killed demos left."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        space = line.split()[0]
        kind, _, rest = space.partition("-")
        pid = rest.partition("-")[0]
        if kind == PREFIX and pid.isdigit() and not psutil.pid_exists(int(pid)):
            _delete([space], f"{PREFIX[:4]}{pid}")


def _delete(spaces: Sequence[str], own: str) -> None:
    with suppress(ServerError):  # gone with the hub
        _ip("link", "delete", own)
    for space in spaces:
        with suppress(ServerError):  # it was not made
            _ip("netns", "delete", space)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
