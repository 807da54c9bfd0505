"""What an examination of one component found."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

SOUND, DAMAGED, UNKNOWN = "sound", "damaged", "unknown"


@dataclass(frozen=True)
class Examined:
    """One component's verdict. `evidence` is what decided; `told` is what else is to be known, and does not decide.

    `parts` names what of it is damaged where the rest can stay; `readable` counts messages that can be read whole.
    """

    component: str
    verdict: Literal["sound", "damaged", "unknown"]
    evidence: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    readable: int | None = None

    def document(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)
