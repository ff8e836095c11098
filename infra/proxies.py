"""The environment's proxies: for the web, never between processes of this machine."""

from collections.abc import Mapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES = ("no_proxy", "NO_PROXY")  # libraries read one or the other


def without_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep loopback away from the proxies of an environment.

    Args:
        environ: of the process; hosts that it excludes already stay excluded.
    """
    found = next((environ[name] for name in NAMES if environ.get(name)), "")
    hosts = [host.strip() for host in found.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    return dict.fromkeys(NAMES, ",".join(hosts))
