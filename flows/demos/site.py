"""A home on one of several hosts, and what is run there."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from flows.demos.hosts import Host
from flows.demos.live_rig import Process
from infra.servers import environment
from model_code.errors import TicklineError
from model_code.settings import Settings


@dataclass(frozen=True)
class Site:
    """A home on a host.

    Attributes:
        host: where it is.
        settings: of the home.
        variables: of the S3 server.
    """

    host: Host
    settings: Settings
    variables: Mapping[str, str]

    def tickline(self, *arguments: str) -> str:
        """Run a command of Tickline there; return what it prints.

        Raises:
            TicklineError: it fails.
        """
        return self.python("-m", "flows.cli", *arguments)

    def python(self, *arguments: str) -> str:
        """Run Python there; return what it prints.

        Raises:
            TicklineError: it fails.
        """
        done = subprocess.run(
            self.host.command(sys.executable, *arguments),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TicklineError(
                f"{self.host.name}: {' '.join(arguments[1:])} failed:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def process(self, name: str, *arguments: str) -> Process:
        """A process there, not yet started; it ends with this one."""
        logs = self.settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        command = self.host.command(sys.executable, *arguments)
        return Process(name, command, logs, lambda _: True, self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"COLUMNS": "200"} | dict(self.variables) | environment(self.settings)
