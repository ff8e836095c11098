"""What a service needs and what judges it, in the words of the document."""

from collections.abc import Callable

from infra.live.inference.triton import Triton
from infra.live.monitoring.document import Figure, Part
from infra.live.redis.state import RedisState
from model_code.live.feedback.figures import Figures


def triton_part(model: Triton) -> Callable[[], Part]:
    """Whether a Triton server is asked, and the requests so far."""
    return lambda: Part(name="Triton", state="down" if model.away else "up", detail=model.state)


def redis_part(state: RedisState) -> Callable[[], Part]:
    """Whether Redis can be used."""

    def read() -> Part:
        error = state.error
        if error is None:
            return Part(name="Redis", state="up", detail=state.address)
        return Part(name="Redis", state="down", detail=f"{error.what} ({state.address})")

    return read


def drift(found: Figures) -> list[Figure]:
    """Quality and drift of the newest judged window, drift last and the largest first."""
    quality = [
        ("AUC", found.auc),
        ("calibration error", found.calibration_error),
        ("precision", found.precision),
        ("base rate", found.base_rate),
    ]
    figures = [Figure(name=name, value=value) for name, value in quality if value is not None]
    for name, value in sorted(found.psi.items(), key=lambda one: -one[1]):
        limit = found.limits.get(name)
        breached = limit is not None and value > limit
        figures.append(Figure(name=f"PSI {name}", value=value, limit=limit, breached=breached))
    return figures
