"""What a decision on a promotion is about, as the text that the reviewer signs."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

HEADING = "tickline decision 1"  # what the text is, and the version of its form
Word = Literal["approve", "reject"]


class Subject(BaseModel):
    """What a decision is about; all hashes are sha256 in hex.

    Attributes:
        version: to promote.
        manifest: identity of the staged manifest.
        engine_sha256: of the engine.
        config_sha256: of its configuration.
        policy_sha256: of the policy's bytes.
        verdict: the gate's.
        flow_run_id: the promotion's.
        started_by: who or what started the promotion.
        night_by: who or what started the night of the version; empty: not recorded.
        exceptions: why an approval is an exception; empty if it is a plain one.
        loosened: limits that are looser than the policy's, in words.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: int
    manifest: str
    engine_sha256: str
    config_sha256: str
    policy_sha256: str
    verdict: str
    flow_run_id: str
    started_by: str
    night_by: str = ""
    exceptions: Annotated[tuple[str, ...], Field(strict=False)] = ()
    loosened: Annotated[tuple[str, ...], Field(strict=False)] = ()

    def text(
        self, decision: Word, reviewer: str, reason: str, owner: str = "", expires: str = ""
    ) -> str:
        """What the reviewer signs: one fact a line.

        Args:
            decision: approve or reject.
            reviewer: who decides.
            reason: why.
            owner: of the exception, if the approval is one.
            expires: the exception's last day.
        """
        facts = {
            "decision": decision,
            "version": str(self.version),
            "manifest sha256": self.manifest,
            "engine sha256": self.engine_sha256,
            "configuration sha256": self.config_sha256,
            "policy sha256": self.policy_sha256,
            "verdict": self.verdict,
            "loosened": _line("; ".join(self.loosened) or "nothing"),
            "promotion": self.flow_run_id,
            "reviewer": reviewer,
            "reason": _line(reason),
        }
        if self.exceptions and decision == "approve":
            facts["exception"] = _line("; ".join(self.exceptions))
            facts["exception's owner"] = _line(owner)
            facts["exception's last day"] = _line(expires)
        return "\n".join([HEADING, *(f"{name}: {value}" for name, value in facts.items())]) + "\n"


def _line(text: str) -> str:
    """What somebody wrote, as one line: it cannot look like another fact."""
    return json.dumps(text, ensure_ascii=False)
