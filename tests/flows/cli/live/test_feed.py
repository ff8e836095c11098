"""`tickline feed --venue binance`: an exchange's ticks on a broker, until SIGTERM."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from flows.cli.live import feed
from infra.live.venues.binance import Binance
from model_code.errors import ConfigError
from model_code.live.messages import Tick, read
from tests.support.broker import kafka_spec, read_all
from tests.support.cli import tickline
from tests.support.exchange import Exchange, recorded, serving, spec, values
from tests.support.frames import recording
from tests.support.market import DATES

N = 60
