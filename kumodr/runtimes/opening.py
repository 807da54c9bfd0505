"""The runtime that a plan names."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.plan.model import Plan, RuntimePlan
from kumodr.runtimes.protocol import Runtime

if TYPE_CHECKING:
    from kumodr.runtimes.compose import Project


def runtime_of(plan: Plan, *, say: Callable[[str], None]) -> Runtime:
    """Given a plan and where to say what is waited for, return the runtime of its site. Nothing is started or asked.

    Raise RuntimeUnknown where the plan names none, LabMissing where the lab is gone.
    """
    runtime = plan.runtime
    if runtime.kind == "compose":
        from kumodr.runtimes.compose import ComposeRuntime

        return ComposeRuntime(project_of(runtime), say=say)
    if runtime.kind == "systemd":
        from kumodr.runtimes.systemd import SystemdRuntime

        return SystemdRuntime(services_of(runtime), say=say)
    if runtime.kind == "process":
        from kumodr.lab.site import open_site
        from kumodr.runtimes.process import ProcessRuntime

        return ProcessRuntime(open_site(Path(runtime.directory or ".")), say=say)
    raise errors.RuntimeUnknown("the plan does not say how this site's processes run")


def project_of(runtime: RuntimePlan) -> "Project":
    """Given the runtime of a plan whose kind is compose, return its project."""
    from kumodr.runtimes.compose import Project

    files = tuple(Path(each) for each in runtime.files)
    return Project(Path(runtime.directory or "."), files, runtime.profiles, runtime.project)


def services_of(runtime: RuntimePlan) -> tuple[str, ...]:
    """Given the plan's runtime, return the services that it names, in the order in which they start."""
    named = (runtime.redis, runtime.prometheus, *runtime.others, runtime.kumod)
    return tuple(dict.fromkeys(each for each in named if each))
