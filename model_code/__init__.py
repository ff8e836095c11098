"""Tickline's pure library: no orchestration, no tracking, no servers."""

import os

__version__ = "0.1.0"

# gRPC's event engine passes each response between threads; without it a call takes 0.1 to 0.2 ms
# less (docs/benchmarks.md). It is set here because gRPC reads it once, at its first import.
os.environ.setdefault(
    "GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener,-event_engine_callback_cq"
)
