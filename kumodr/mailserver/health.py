"""Whether the mail service works now: its services, its listeners, its spool's gate, its disks, its queues."""

import smtplib
from collections.abc import Callable, Iterator

from kumodr import errors
from kumodr.components.protocol import Finding
from kumodr.discover.risks import not_alive
from kumodr.mailserver.http import MailServer
from kumodr.mailserver.queues import by_label, queues_of
from kumodr.plan.model import Plan
from kumodr.runtimes.opening import runtime_of, services_of

_LITTLE = 10.0
"""Percent. KumoMTA stops taking mail below 10 % of space or inodes unless its policy says otherwise (facts §1.1)."""

_TIMEOUT = 10.0


def health_of(plan: Plan, say: Callable[[str], None]) -> tuple[tuple[str, Finding], ...]:
    """Given the plan, return what was found, each with the place that it is about."""
    found = [("services", each) for each in _services(plan, say)]
    found += [("smtp", each) for each in _smtp(plan)]
    found += _asked(plan)
    return tuple(found)


def _services(plan: Plan, say: Callable[[str], None]) -> Iterator[Finding]:
    if plan.runtime.kind == "none":
        return
    try:
        runtime = runtime_of(plan, say=say)
        for name in services_of(plan.runtime) or tuple(runtime.services()):
            state = runtime.state(name)
            if state.running:
                yield Finding("good", f"{name} runs")
            else:
                yield Finding("bad", f"{name} does not run: {state.word}", "read its log, correct the cause, start it")
    except errors.KumodrError as error:
        yield Finding("bad", error.what, error.remedy)


def _smtp(plan: Plan) -> Iterator[Finding]:
    address = plan.kumod.smtp
    if address is None:
        yield Finding("warning", "the plan does not say where mail is handed in", "set kumod.smtp in kumodr.yaml")
        return
    host, _, port = address.rpartition(":")
    try:
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=_TIMEOUT) as server:
            code, text = server.noop()
        if code != 250:
            raise smtplib.SMTPResponseException(code, text)
    except (smtplib.SMTPException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        yield Finding("bad", f"no mail is taken at {address}: {reason}", "start KumoMTA, or correct kumod.smtp")
    else:
        yield Finding("good", f"mail is taken at {address}")


def _asked(plan: Plan) -> list[tuple[str, Finding]]:
    wrong = not_alive(plan.kumod.http)
    if wrong is not None:
        return [("kumod", wrong)]
    found = [("kumod", Finding("good", "KumoMTA is alive"))]
    try:
        metrics = MailServer(str(plan.kumod.http)).metrics()
    except errors.KumodrError as error:
        return [("kumod", Finding("bad", error.what, error.remedy))]
    for path, latched in by_label(metrics, "rocks_spool_load_shed_active").items():
        if latched:
            text = f"the spool {path} takes no mail: it met an error"
            found.append(("spool", Finding("bad", text, "run `kumodr spool diagnose`")))
    for name, label in (("disk_free_percent", "space"), ("disk_free_inodes_percent", "inodes")):
        for place, percent in by_label(metrics, name).items():
            if percent < _LITTLE:
                text = f"{place}: {percent:g} % of {label} is left; below its limit KumoMTA takes no mail"
                found.append(("disk", Finding("bad" if percent < 1 else "warning", text, "free or add space")))
    queues = queues_of(metrics)
    found.append(("queues", Finding("good", f"{queues.depth:,} messages wait, {queues.ready:,} of them ready to go")))
    return found
