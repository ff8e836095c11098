"""The systemd units: systemd accepts them, their commands exist, a reboot starts them in order."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from flows.cli.__main__ import app
from infra.exit_with_parent import GRACE_S
from infra.services import LIVE_GRACE_S, WORKER_GRACE_S
from infra.supervisor import LAUNCHER_S, ORPHANS_S
from infra.systemd.foreground import SERVICES
from model_code.settings import Settings
from tests.support.stack import INFRA

SYSTEMD = INFRA / "systemd"
INSTALLED = "/opt/tickline/.venv/bin"
Unit = dict[str, list[str]]


def read(path: Path) -> Unit:
    """A unit's values by key; a key may be given more than once."""
    found: Unit = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


UNITS = {path.name: read(path) for path in sorted(SYSTEMD.glob("tickline*.*"))
         if path.suffix in {".service", ".target"}}  # fmt: skip
RUN = {name: unit for name, unit in UNITS.items() if name.endswith(".service")}
each_service = pytest.mark.parametrize("name", RUN)


def words(unit: Unit, key: str) -> list[str]:
    return [word for value in unit.get(key, []) for word in value.split()]


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("tickline", "python"):  # it looks whether they can be executed
        (tools / name).symlink_to(sys.executable)
    for name in UNITS:
        text = (SYSTEMD / name).read_text().replace(INSTALLED, str(tools))
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in UNITS]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    broken = tmp_path / next(iter(RUN))
    broken.write_text(broken.read_text().replace("Restart=", "Restartt="))
    said = subprocess.run(
        [analyze, "verify", "--man=no", str(broken)], capture_output=True, text=True, check=False
    )
    assert "Restartt" in said.stderr, "the check above can fail"


def parse(command: Any, arguments: list[str]) -> None:
    """Parse a command line as the command would; raises what it would say."""
    context = command.make_context(command.name, list(arguments))
    if isinstance(command, TyperGroup):
        # a group keeps the subcommand's words apart from its own
        rest = [*context._protected_args, *context.args]
        _, below, others = command.resolve_command(context, rest)
        assert below is not None
        parse(below, others)


@each_service
def test_every_command_exists_and_its_options_parse(name: str) -> None:
    (line,) = RUN[name]["ExecStart"]
    program, *arguments = shlex.split(line)
    if program == f"{INSTALLED}/python":
        flag, module = arguments
        assert flag == "-m"
        assert importlib.util.find_spec(module) is not None
        return
    assert program == f"{INSTALLED}/tickline"
    parse(typer.main.get_command(app), arguments)
    if arguments[0] == "service":
        assert arguments[1] in SERVICES
        assert name == f"tickline-{arguments[1]}.service"


def test_a_wrong_command_line_would_be_found() -> None:
    for wrong in (["worker", "--pol", "local"], ["serve"], ["metrics", "--port", "many"]):
        with pytest.raises(Exception, match=r"No such|valid integer") as caught:
            parse(typer.main.get_command(app), wrong)
        assert getattr(caught.value, "exit_code", None) == 2, "a usage error"


def before(name: str, units: dict[str, Unit]) -> set[str]:
    """Every unit that a unit is started after, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in words(units.get(waiting.pop(), {}), "After"):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def test_a_reboot_starts_everything_in_order() -> None:
    target = UNITS["tickline.target"]
    assert target["WantedBy"] == ["multi-user.target"]
    optional = {name for name, unit in RUN.items() if unit.get("WantedBy") == ["tickline.target"]}
    assert optional == {"tickline-live.service"}
    assert set(words(target, "Wants")) | optional == set(RUN)
    assert {"tickline-prefect.service"} <= before("tickline-deploy.service", UNITS)
    assert {"tickline-prefect.service", "tickline-deploy.service", "tickline-mlflow.service"} <= (
        before("tickline-worker.service", UNITS)
    )
    # started after what says that it is ready: Triton with its versions loaded and proven
    assert "tickline-triton.service" in before("tickline-live.service", UNITS)
    for service in SERVICES:
        unit = RUN[f"tickline-{service}.service"]
        assert (unit["Type"], unit["NotifyAccess"]) == (["notify"], ["main"])
        assert "WatchdogSec" in unit
    for name, unit in RUN.items():
        assert name not in before(name, UNITS), "a circle"
        assert unit["PartOf"] == ["tickline.target"]
        assert unit["StartLimitIntervalSec"] == ["0"], "systemd would give up"
        assert unit["Restart"] == ["on-failure" if unit["Type"] == ["oneshot"] else "always"]


@each_service
def test_the_units_are_hardened_and_have_one_home(name: str) -> None:
    unit = RUN[name]
    assert unit["User"] == ["tickline"]
    assert (SYSTEMD / "tickline.sysusers.conf").read_text().splitlines()[-1].split()[:2] == [
        "u",
        "tickline",
    ]
    assert unit["Environment"] == ["TICKLINE_HOME=/var/lib/" + unit["StateDirectory"][0]]
    for key, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "CapabilityBoundingSet": "",
        "UMask": "0027",
    }.items():
        assert unit[key] == [value], key


@each_service
def test_systemd_waits_longer_than_the_service_does(name: str) -> None:
    unit = RUN[name]
    if unit["Type"] == ["oneshot"]:
        return
    kept = GRACE_S + LAUNCHER_S + ORPHANS_S
    graces = {"tickline-live.service": LIVE_GRACE_S, "tickline-worker.service": WORKER_GRACE_S}
    graces["tickline-metrics.service"] = GRACE_S
    assert float(unit["TimeoutStopSec"][0]) > graces.get(name, kept)
    assert unit["KillMode"] == ["mixed"]


def test_each_unit_has_only_the_secrets_that_it_uses() -> None:
    given = {
        name: {Path(one.removeprefix("-")).name for one in unit["EnvironmentFile"]}
        for name, unit in RUN.items()
    }
    clients = {"tickline.env", "auth.env"}
    assert given == {
        "tickline-deploy.service": clients,
        "tickline-live.service": {"tickline.env", "live.env"},
        "tickline-metrics.service": clients,
        "tickline-mlflow.service": clients,
        "tickline-prefect.service": clients,
        "tickline-triton.service": {"tickline.env"},
        "tickline-worker.service": clients,
    }
    names = {f"TICKLINE_{field.upper()}" for field in Settings.model_fields}
    for file in {file for files in given.values() for file in files}:
        offered = read(SYSTEMD / f"{file}.example")
        assert set(offered) <= names | {"PREFECT_API_AUTH_STRING"}
        secret: dict[str, Any] = {
            name: value
            for name, value in offered.items()
            if "PASSWORD" in name or "AUTH_STRING" in name
        }
        assert all(value == [""] for value in secret.values())
        assert bool(secret) == (file != "tickline.env")
