"""The site that a plan names, as it is now: whether its services run, what is risky, what the plan leaves out."""

from collections.abc import Callable, Mapping
from pathlib import Path

from kumodr import errors
from kumodr.components.protocol import Finding
from kumodr.discover import risks
from kumodr.discover.around import Wanted, look
from kumodr.discover.assemble import Discovered, Given, assemble
from kumodr.discover.policy import read_policy
from kumodr.plan.model import Plan, RuntimePlan
from kumodr.runtimes.commands import Runner, run
from kumodr.runtimes.opening import runtime_of, services_of
from kumodr.spool.kind import kind_of


def host_findings(plan: Plan) -> tuple[Finding, ...]:
    """Given a plan, say what this host and the plan alone show to be risky."""
    found = [risks.clock_adrift(), *risks.stored_too_rarely(plan)]
    spool = plan.components.spool
    for place in (spool.meta, spool.data) if spool else ():
        try:
            found.append(risks.spool_closed(Path(place), kind_of(Path(place), spool.kind if spool else "auto")))
        except (errors.SpoolMissing, errors.SpoolUnreadable):
            continue
    return tuple(dict.fromkeys(each for each in found if each is not None))


def service_findings(plan: Plan, *, say: Callable[[str], None]) -> tuple[Finding, ...]:
    """Given a plan, say which services of its runtime run, and what is in the way where that cannot be told."""
    if plan.runtime.kind == "none":
        text = "the plan does not say how this site's processes run, so kumodr cannot stop or start them"
        return (Finding("warning", text, errors.RuntimeUnknown.default_remedy),)
    found: list[Finding] = []
    try:
        runtime = runtime_of(plan, say=say)
        for name in services_of(plan.runtime):
            state = runtime.state(name)
            if state.word in ("restarting", "auto-restart"):
                found.append(Finding("bad", f"{name} ends and is restarted in a loop", "read its log"))
            elif not state.running:
                found.append(Finding("bad", f"{name} does not run: {state.word}", "start it"))
    except errors.KumodrError as error:
        return (*found, Finding("bad", error.what, error.remedy))
    return tuple(found) or (Finding("good", f"every service runs: {', '.join(services_of(plan.runtime))}"),)


def site_findings(
    plan: Plan,
    *,
    may_read: bool,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    runner: Runner = run,
) -> tuple[Finding, ...]:
    """Given a plan of a compose project or of units, and whether the policy may be read, say what is risky there now.

    With the policy, where the spool and the logs are is compared with the plan.
    """
    if plan.runtime.kind not in ("compose", "systemd"):
        return ()
    try:
        site = look(wanted_of(plan.runtime), say=say, environment=environment, runner=runner)
        policy = read_policy(site.policy, lambda path: site.locate(path).path, site.environment) if may_read else None
        found = assemble(site, policy, Given(plan.site, plan.vault.url, plan.state, http=plan.kumod.http))
    except errors.KumodrError as error:
        return (Finding("bad", error.what, error.remedy),)
    said = [*site.risks]
    if policy is not None:
        of_the_policy = (risks.segments_open_long(policy.unsegmented), risks.deferred(policy.deferred))
        said += [each for each in of_the_policy if each is not None]
        said += [Finding("warning", f"policy: {each}", "see that the plan covers it") for each in policy.unclear]
        said += _left_out(plan, found)
    return tuple(dict.fromkeys(said))


def wanted_of(runtime: RuntimePlan) -> Wanted:
    """Given the plan's runtime, return how to look at that site again."""
    return Wanted(
        directory=Path(runtime.directory or "."),
        way=runtime.kind,
        files=[Path(each) for each in runtime.files],
        profiles=runtime.profiles,
        project=runtime.project,
        service=runtime.kumod,
    )


def _left_out(plan: Plan, found: Discovered) -> list[Finding]:
    """Say where the mail server writes and the plan does not look."""
    components = found.values["components"]
    spool, logs = plan.components.spool, plan.components.logs
    said: list[Finding] = []
    for half, place in components.get("spool", {}).items():
        known = getattr(spool, half, None) if spool else None
        if half in ("meta", "data") and (known is None or Path(known).resolve() != Path(place).resolve()):
            text = f"the policy keeps the spool {half} in {place}, the plan names {known or 'none'}"
            said.append(Finding("bad", text, f"set components.spool.{half} in kumodr.yaml"))
    known_logs = {Path(each).resolve() for each in (logs.directories if logs else ())}
    for place in components.get("logs", {}).get("directories", []):
        if Path(place).resolve() not in known_logs:
            text = f"the policy writes logs to {place}, which the plan does not name"
            said.append(Finding("warning", text, "add it to components.logs.directories in kumodr.yaml"))
    return said
