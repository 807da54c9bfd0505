"""What `kumodr check` asks beside the components: the vault, and the mail server's own word."""

from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding
from kumodr.discover import risks
from kumodr.plan.model import Plan
from kumodr.vault.open import open_vault


def vault_findings(plan: Plan) -> tuple[Finding, ...]:
    """Given the plan, say whether the vault opens, has recipients, and lies outside what it protects."""
    try:
        vault = open_vault(plan.vault)
    except errors.KumodrError as error:
        return (Finding("bad", error.what, error.remedy),)
    found = [Finding("good", f"the vault opens: {vault.store.address}")]
    if not vault.conditional_put:
        text = "the vault's store cannot refuse a name that exists: a second host that adds to it would replace points"
        found.append(Finding("warning", text, "copy it to a store that can with `kumodr vault copy TO`, and use that"))
    if len(vault.recipients) < 2:
        text = "the vault is sealed to one identity: if that is lost, so is everything"
        found.append(Finding("warning", text, "keep that identity in two places, or begin a vault with two recipients"))
    if "://" not in plan.vault.url:
        spool = plan.components.spool
        if spool and _device(Path(spool.data)) == _device(Path(plan.vault.url)):
            text = "the vault is on the same disk as the spool: they would be lost together"
            found.append(Finding("warning", text, "use a vault on another machine or in an object store"))
        elif inside := risks.vault_inside(plan.vault.url):
            found.append(inside)
    return tuple(found)


def protect_findings(plan: Plan, clock: Clock) -> tuple[Finding, ...]:
    """Given the plan, say whether the loop that follows the spool runs, and what it says of itself."""
    from kumodr.protect.figures import published, why_not_running

    figures = published(Path(plan.state))
    if figures is None:
        text = "the spool is not followed: copies are only as new as the last `kumodr backup`"
        return (Finding("warning", text, "run `kumodr protect` as a service on this host"),)
    ended = why_not_running(figures, clock())
    if ended is not None:
        return (Finding("bad", f"{ended}: it has not run since {figures.time}", "start it again"),)
    if figures.state != "protected":
        text = f"the spool is followed, but the state is {figures.state!r}: {figures.trouble or 'no reason is known'}"
        return (Finding("bad" if figures.trouble else "warning", text, "see `kumodr status`"),)
    return (Finding("good", f"the spool is followed; the vault has all of it up to {figures.recoverable_until}"),)


def kumod_findings(plan: Plan) -> tuple[Finding, ...]:
    """Given the plan, ask the mail server whether it is alive."""
    return (risks.not_alive(plan.kumod.http) or Finding("good", "KumoMTA is alive"),)


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None
