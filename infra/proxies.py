"""The environment's proxies: for the web, never between processes of this machine."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from model_code.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES = ("no_proxy", "NO_PROXY")  # libraries read one or the other
GRPC = "no_grpc_proxy"  # gRPC reads it instead of the others where it is set
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def without_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep loopback away from the proxies of an environment.

    Args:
        environ: of the process; hosts that it excludes already stay excluded.
    """
    found = next((environ[name] for name in NAMES if environ.get(name)), "")
    variables = dict.fromkeys(NAMES, _excluded(found))
    if environ.get(GRPC):
        variables[GRPC] = _excluded(environ[GRPC])
    return variables


def by_proxy(url: str) -> bool:
    """Whether the environment's proxies apply to a URL: not to one of this machine."""
    return urlsplit(url).hostname not in LOOPBACK


def require_usable(environ: Mapping[str, str]) -> None:
    """Check that the clients understand the proxies of this process's environment.

    A client that does not fails whatever it asks, servers of this machine too.

    Args:
        environ: of this process.

    Raises:
        ConfigError: a proxy has an unknown scheme, a wrong port, or needs a missing package.
    """
    given = [name for name in PROXIES if environ.get(name)]
    if not given:
        return
    import httpx  # takes long, and few need it here

    try:
        httpx.Client().close()
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"the environment's proxy cannot be used: {error}",
            where=", ".join(given),
            remedy="write http://host:port, https://host:port or socks5://host:port, "
            "or unset the variable",
        ) from error


def _excluded(hosts: str) -> str:
    """The hosts with those of loopback, as every client reads them."""
    found = [host.strip().removeprefix("[").removesuffix("]") for host in hosts.split(",")]
    # httpx fails at a network of IPv6, and no client reads one
    found = [host for host in found if host and not (host.count(":") > 1 and "/" in host)]
    if "*" not in found:
        found += [host for host in LOOPBACK if host not in found]
    return ",".join(found)
