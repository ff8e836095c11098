"""Tickline's pure library: no orchestration, no tracking, no servers."""

import os

__version__ = "0.1.0"

# gRPC's event engine hands each answer from thread to thread; without it a call costs 0.1 to 0.2 ms
# less (docs/benchmarks.md). Here, since gRPC reads it once, when anything first imports it.
os.environ.setdefault(
    "GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener,-event_engine_callback_cq"
)
