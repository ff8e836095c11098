"""Basic authentication of Prefect's and MLflow's servers: one password switches both.

`TICKLINE_AUTH_PASSWORD` set: servers started here demand it, and every client sends it. Unset: no
authentication, which suits loopback only.
"""

import secrets

from model_code.artifacts import atomic_file
from model_code.settings import Settings


def client_environment(settings: Settings) -> dict[str, str]:
    """What processes need to be let in; empty without a password."""
    if settings.auth_password is None:
        return {}
    name, password = settings.auth_username, settings.auth_password.get_secret_value()
    return {
        "PREFECT_API_AUTH_STRING": f"{name}:{password}",
        "MLFLOW_TRACKING_USERNAME": name,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def server_environment(settings: Settings) -> dict[str, str]:
    """What makes the servers ask; empty without a password.

    MLflow keeps its users in `<home>/mlflow-auth.db`, the password hashed, and makes the first
    one from these variables. A later change of password needs that file removed.

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
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),  # of sessions, so per start
    }


def mlflow_options(settings: Settings) -> list[str]:
    """Arguments of `mlflow server`."""
    return [] if settings.auth_password is None else ["--app-name", "basic-auth"]
