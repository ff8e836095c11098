"""Addresses of a model server's gRPC endpoint: host:port."""

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|(?:dns|ipv4|ipv6|unix|unix-abstract|xds):")
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
NUMBERS = re.compile(r"[0-9.]+")
PORT = re.compile(r"[1-9][0-9]{0,4}")
LARGEST_PORT = 65535
OTHER_PORTS = {8000: "HTTP", 8002: "metrics"}  # of Triton, where clients speak gRPC
EXAMPLE = "write host:port, e.g. 127.0.0.1:8001"


def check_address(address: str) -> str:
    """Return the address of a gRPC endpoint, if it is one.

    Raises:
        ValueError: a scheme, no host, a host or a port that cannot be, or the usual port of
            Triton's HTTP endpoint or metrics.
    """
    if SCHEME.match(address.lower()):
        raise ValueError(f"the address has a scheme: {EXAMPLE}")
    host, _, port = address.rpartition(":")
    if not host:
        raise ValueError(
            f"the address has no {'host' if address[:1] == ':' else 'port'}: {EXAMPLE}"
        )
    if not _is_host(host):
        raise ValueError(f"{host!r} is not a host: {EXAMPLE}, an IPv6 address in brackets")
    if not PORT.fullmatch(port) or int(port) > LARGEST_PORT:
        raise ValueError(f"{port!r} is not a port from 1 to {LARGEST_PORT}: {EXAMPLE}")
    if int(port) in OTHER_PORTS:
        raise ValueError(
            f"{port} is Triton's port for {OTHER_PORTS[int(port)]}: write gRPC's, usually 8001"
        )
    return address


def _is_host(host: str) -> bool:
    try:
        if host.startswith("[") and host.endswith("]"):
            ipaddress.IPv6Address(host[1:-1])
            return True
        if NUMBERS.fullmatch(host):
            ipaddress.IPv4Address(host)
            return True
    except ValueError:
        return False
    return NAME.fullmatch(host) is not None


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


GrpcAddress = Annotated[str, AfterValidator(check_address)]
OptionalGrpcAddress = Annotated[GrpcAddress | None, BeforeValidator(_none_if_empty)]
