"""What libraries expect of the user who runs a process: a home folder and a name.

A uid of systemd's DynamicUser or Kubernetes' runAsUser may have neither, or a home folder that it
cannot write to. Prefect and others look for both when they are imported.
"""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from model_code.settings.environment import Home
from model_code.settings.folder import expanded

# folders under TICKLINE_HOME for what is kept in the home folder otherwise
KEPT = {
    "PREFECT_HOME": "prefect",
    "MPLCONFIGDIR": "cache/matplotlib",
    "NUMBA_CACHE_DIR": "cache/numba",
}


def missing(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables that give libraries what this user lacks; empty for most users.

    Raises:
        ValidationError: no folder is known for Tickline, see `Home`.
    """
    found = {}
    try:
        folder = expanded(Path("~"))
    except ValueError:
        folder = None
    if folder is None or not os.access(folder, os.W_OK | os.X_OK):
        home = Home().home.absolute()
        found = {name: str(home / kept) for name, kept in KEPT.items() if name not in variables}
        if folder is None or not folder.is_dir():
            found["HOME"] = str(home)
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not variables.keys() & {"LOGNAME", "USER"}:
            found["LOGNAME"] = f"uid {os.getuid()}"
    return found
