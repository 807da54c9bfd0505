"""Why a service ended, where the end of its log tells: the two causes that an operator can do away with at once."""

from kumodr import errors


def explained(log: str, service: str) -> errors.KumodrError | None:
    """Given the last lines that a service printed before it ended, return the error that they tell of, or None."""
    lower = log.lower()
    if "no space left on device" in lower:
        return errors.DiskFull(f"{service} ends because no space is left where it writes")
    if "address already in use" in lower:
        return errors.PortTaken(f"{service} ends because a port that it listens on is taken")
    return None
