"""Basic authentication of Prefect's and MLflow's servers: one password enables both.

If `TICKLINE_AUTH_PASSWORD` is set, servers started here require it and every client sends it. If it
is unset, there is no authentication: use that on loopback only.
"""

import os
import secrets

from pydantic import SecretStr

from infra.redact import remember
from model_code.artifacts import atomic_file
from model_code.settings import Settings


def client_environment(settings: Settings) -> dict[str, str]:
    """Credentials for client processes; empty without a password and a key."""
    found = {}
    if settings.triton_key is not None:
        found["TICKLINE_TRITON_KEY"] = settings.triton_key.get_secret_value()
    if settings.auth_password is None:
        return found
    name, password = settings.auth_username, settings.auth_password.get_secret_value()
    return found | {
        "PREFECT_API_AUTH_STRING": f"{name}:{password}",
        "MLFLOW_TRACKING_USERNAME": name,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def remember_secrets(settings: Settings) -> None:
    """Keep the settings' secrets out of logs and messages, also those of a `.env` file."""
    values = [getattr(settings, name) for name in Settings.model_fields]
    remember(*(value.get_secret_value() for value in values if isinstance(value, SecretStr)))


def prefect_credentials(settings: Settings) -> tuple[str, str] | None:
    """Name and password for requests to Prefect's server without its client; None: it asks none.

    `PREFECT_API_AUTH_STRING` comes first: a service may have a password of its own for its page.
    """
    given = os.environ.get("PREFECT_API_AUTH_STRING")
    if given:
        name, _, password = given.partition(":")
        return name, password
    if settings.auth_password is None:
        return None
    return settings.auth_username, settings.auth_password.get_secret_value()


def server_environment(settings: Settings) -> dict[str, str]:
    """Variables that enable authentication in the servers; empty without a password.

    MLflow stores its users in `<home>/mlflow-auth.db`, with hashed passwords, and creates the first
    user from these variables. To change the password later, delete that file.

    Raises:
        StorageError: `<home>/mlflow-auth.ini` cannot be written.
    """
    if settings.auth_password is None:
        return {}
    name, password = settings.auth_username, settings.auth_password.get_secret_value()
    config = settings.home / "mlflow-auth.ini"
    with atomic_file(config) as temporary:
        temporary.write_text(
            "[mlflow]\n"
            "default_permission = NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{settings.home / 'mlflow-auth.db'}\n"
        )
    return {
        "PREFECT_SERVER_API_AUTH_STRING": f"{name}:{password}",
        "MLFLOW_AUTH_ADMIN_USERNAME": name,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),  # for sessions: new at each start
    }


def mlflow_options(settings: Settings) -> list[str]:
    """Arguments of `mlflow server`."""
    return [] if settings.auth_password is None else ["--app-name", "basic-auth"]
