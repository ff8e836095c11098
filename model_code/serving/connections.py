"""Asynchronous connections to one Triton server or several: a request goes to one that answers.

Shapes: B batch, T = 64 steps, F = 16 features.
"""

import asyncio
from collections.abc import Sequence

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from model_code.serving import wire
from model_code.serving.failover import Failover

PROBE_S = 1.0
UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
ABSENT = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL)  # INTERNAL: its process is dead


class Connection:
    """A channel for one event loop, and the input types of a model's versions.

    Args:
        url: host:port of its gRPC endpoint.
        model: served name.
    """

    def __init__(self, url: str, model: str) -> None:
        self.url, self._model = url, model
        self._channel = grpc.aio.insecure_channel(url, options=wire.OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._dtypes: dict[int | None, str] = {}

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def infer(
        self, x_BTF: NDArray[np.float32], version: int | None, end: float
    ) -> wire.Answer:
        """Send one request.

        Args:
            x_BTF: raw feature windows (B, 64, 16) float32.
            version: None for the server's newest.
            end: event loop time in seconds after which it is given up.

        Raises:
            grpc.RpcError: the server refuses or does not respond.
            ServingError: bad windows, or an invalid response.
        """
        clock = asyncio.get_running_loop().time
        dtype = self._dtypes.get(version)
        if dtype is None:
            wire.check_windows(x_BTF)  # before anything is sent
            message = service_pb2.ModelMetadataRequest(name=self._model, version=wire.text(version))
            dtype = wire.input_dtype(await self._stub.ModelMetadata(message, timeout=end - clock()))
            self._dtypes[version] = dtype
        message = wire.request(x_BTF, self._model, version, dtype)
        response = await self._stub.ModelInfer(message, timeout=end - clock())
        return wire.answer(response, len(x_BTF))

    async def live(self, timeout_s: float) -> bool:
        """Whether the server responds."""
        try:
            found = await self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(found.live)

    def drop_dtypes(self) -> bool:
        """Forget the input types; whether there were any."""
        known = bool(self._dtypes)
        self._dtypes.clear()
        return known


class Connections:
    """One connection to each server, for one event loop.

    Args:
        urls: host:port of each, in the order of preference.
        model: served name.
    """

    def __init__(self, urls: Sequence[str], model: str) -> None:
        self._servers = [Connection(url, model) for url in urls]
        self._failover = Failover(len(self._servers))
        self._probes: set[asyncio.Task[None]] = set()

    @property
    def failovers(self) -> int:
        """Requests that one server failed and the next one got."""
        return self._failover.failovers

    async def close(self) -> None:
        """Close every channel."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*(server.close() for server in self._servers))

    def drop_dtypes(self) -> bool:
        """Forget the input types of all servers; whether there were any."""
        return sum(server.drop_dtypes() for server in self._servers) > 0  # of every one

    async def infer(
        self, x_BTF: NDArray[np.float32], version: int | None, end: float
    ) -> wire.Answer:
        """Ask the servers in turn, the first one that is not left out first.

        Raises:
            grpc.RpcError: no server answers; UNAVAILABLE if any is unreachable, else of the first.
            ServingError: as `Connection.infer`.
        """
        if len(self._servers) == 1:
            return await self._servers[0].infer(x_BTF, version, end)
        clock = asyncio.get_running_loop().time
        found: list[grpc.RpcError] = []
        order = self._failover.order(version, clock())
        for place, server in enumerate(order, 1):
            now = clock()
            # an unreachable machine may never refuse: keep half of the time for the next one
            until = end if place == len(order) else now + (end - now) / 2
            try:
                answer = await self._servers[server].infer(x_BTF, version, until)
            except grpc.RpcError as error:
                if error.code() not in (*UNREACHABLE, *ABSENT) or wire.is_spoiled(error):
                    raise
                self._leave_out(server, version, error.code())
                found.append(error)
                self._failover.failovers += place < len(order)
            else:
                self._failover.answered(server, version)
                return answer
        raise next((e for e in found if e.code() == grpc.StatusCode.UNAVAILABLE), found[0])

    def _leave_out(self, server: int, version: int | None, code: grpc.StatusCode) -> None:
        now = asyncio.get_running_loop().time()
        if code in ABSENT:
            self._failover.absent(server, version, now)
        elif self._failover.unreachable(server, now):
            probe = asyncio.create_task(self._probe(server))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)

    async def _probe(self, server: int) -> None:
        answers = False
        while not answers:
            await asyncio.sleep(self._failover.wait(server))
            answers = await self._servers[server].live(PROBE_S)
            now = asyncio.get_running_loop().time()
            self._failover.probed(server, now, answers=answers)
