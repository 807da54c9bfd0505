"""Every runtime does the same things: processes of a lab site, containers of a compose project, units of systemd."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kumodr import errors
from kumodr.lab.options import Options
from kumodr.lab.site import create
from kumodr.runtimes.commands import Answer, run
from kumodr.runtimes.compose import ComposeRuntime, Project
from kumodr.runtimes.process import ProcessRuntime
from kumodr.runtimes.protocol import Runtime
from kumodr.runtimes.systemd import SystemdRuntime
from tests.compose_site import COMPOSE, IMAGE, STUBBORN, WEB, compose_project, make_image, needs_docker
from tests.disks import mounted
from tests.fake_systemctl import add_unit, fake_systemd
from tests.servers import free_port, wait_for


@dataclass
class Case:
    """A runtime with a service that ends when asked, and one that can be made deaf."""

    runtime: Runtime
    folder: str
    service: str
    stubborn: str
    deafen: Callable[[], None]
    word: str
    scalable: bool
    said: list[str] = field(default_factory=list[str])


@pytest.fixture(params=["process", "systemd", pytest.param("compose", marks=needs_docker)])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(f"{request.param}_case")


@pytest.fixture
def process_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setenv("KUMO_WORD", "spoken")
    site = create(tmp_path / "lab", Options(prometheus=False))
    said: list[str] = []
    runtime = ProcessRuntime(site, say=said.append)

    def deafen() -> None:
        pid = runtime.state("redis").pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    yield Case(runtime, str(tmp_path), "kumod", "redis", deafen, "initialization complete", scalable=False, said=said)
    site.kill()


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with fake_systemd(tmp_path) as (folder, programs):
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        yield folder


@pytest.fixture
def systemd_case(units: Path) -> Case:
    add_unit(units, "kumomta.service", WEB)
    add_unit(units, "deaf.service", STUBBORN)
    said: list[str] = []
    runtime = SystemdRuntime(["kumomta.service", "deaf.service"], say=said.append)
    folder = str(units.parent)
    word = "begun spoken"
    return Case(runtime, folder, "kumomta.service", "deaf.service", lambda: None, word, scalable=False, said=said)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> None:
    make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def project(tmp_path: Path, image: None) -> Iterator[Project]:
    (tmp_path / "policy").mkdir()
    with compose_project(tmp_path, COMPOSE, "WORD=spoken", f"PORT={free_port()}"):
        yield Project(tmp_path)


@pytest.fixture
def compose_case(project: Project) -> Case:
    said: list[str] = []
    runtime = ComposeRuntime(project, say=said.append)
    return Case(runtime, "/tmp", "web", "stubborn", lambda: None, "begun spoken", scalable=True, said=said)


def test_a_service_is_started_looked_into_and_ends_by_itself(case: Case, tmp_path: Path) -> None:
    runtime, service = case.runtime, case.service
    assert service in runtime.services()
    assert not runtime.state(service).running
    runtime.start(service)
    first = runtime.state(service)
    assert first.running and first.pid
    runtime.start(service)
    assert runtime.state(service).pid == first.pid
    assert runtime.environment(service)["KUMO_WORD"] == "spoken"
    assert case.word in runtime.logs(service)
    assert len(runtime.logs(service, lines=1).splitlines()) == 1
    assert runtime.digest(service).startswith("sha256:")
    use = runtime.usage(service)
    assert use.memory > 0 and use.tasks >= 1
    stopped = runtime.stop(service, patience=20)
    assert stopped.how == "by itself" and stopped.seconds < 20
    assert "waiting up to 20 s" in case.said[-1]
    assert not runtime.state(service).running
    assert runtime.stop(service, patience=20).how == "not running"


def test_commands_and_files_go_in_and_out_unchanged(case: Case, tmp_path: Path) -> None:
    runtime, service = case.runtime, case.service
    runtime.start(service)
    secret = bytes(range(256)) * 300
    assert runtime.exec(service, ["cat"], stdin=secret) == Answer(0, secret, b"")
    words = ["sh", "-c", 'echo "$1" $KUMO_WORD; exit 7', "sh", "$(id); `id`"]
    assert runtime.exec(service, words) == Answer(7, b"$(id); `id` spoken\n", b"")
    (tmp_path / "given").write_bytes(secret)
    runtime.copy_in(service, tmp_path / "given", f"{case.folder}/inside")
    assert runtime.exec(service, ["cat", f"{case.folder}/inside"]).out == secret
    runtime.copy_out(service, f"{case.folder}/inside", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == secret
    with pytest.raises(errors.TargetNotEmpty):
        runtime.copy_out(service, f"{case.folder}/inside", tmp_path / "back")
    with pytest.raises(errors.KumodrError):
        runtime.copy_out(service, f"{case.folder}/absent", tmp_path / "absent")
    with pytest.raises(errors.RuntimeSlow):
        runtime.exec(service, ["sleep", "30"], limit=0.5)


def test_what_a_service_is_made_from_and_where_its_files_are(case: Case, tmp_path: Path) -> None:
    runtime, service = case.runtime, case.service
    before = runtime.image(service)
    assert before.name
    runtime.start(service)
    image = runtime.image(service)
    assert image.id == runtime.digest(service)
    if isinstance(runtime, ComposeRuntime):
        assert before == image
        assert image.name == IMAGE and image.tags == (IMAGE,) and len(image.layers) == 1
        assert runtime.host_path(service, "/policy/x") is None
        (tmp_path / "policy" / "x").write_text("policy")
        assert runtime.host_path(service, "/policy/x") == tmp_path / "policy" / "x"
        runtime.exec(service, ["sh", "-c", "echo kept > /spool/y"])
        kept = runtime.host_path(service, "/spool/y")
        assert kept is not None and kept.read_text() == "kept\n"
        assert runtime.host_path(service, "/tmp") is None
    else:
        assert before.id is None
        assert runtime.host_path(service, str(tmp_path)) == tmp_path
        assert runtime.host_path(service, f"{tmp_path}/absent") is None
    with open(tmp_path / "long", "w+b") as output:
        script = "zeros() { $* -c 20000000 /dev/zero; }; zeros head 2>&- || zeros busybox head"
        answer = runtime.exec(service, ["sh", "-c", script], output=output)
        assert answer == Answer(0, b"", b"") and os.fstat(output.fileno()).st_size == 20_000_000


def test_a_service_that_does_not_listen_is_killed_after_the_patience_and_said_so(case: Case) -> None:
    case.runtime.start(case.stubborn)
    case.deafen()
    stopped = case.runtime.stop(case.stubborn, patience=1)
    assert stopped.how == "killed" and stopped.seconds >= 1
    assert not case.runtime.state(case.stubborn).running


def test_killing_ends_at_once_and_twice_is_once(case: Case) -> None:
    case.runtime.start(case.stubborn)
    case.runtime.kill(case.stubborn)
    assert not case.runtime.state(case.stubborn).running
    case.runtime.kill(case.stubborn)


def test_scale(case: Case) -> None:
    case.runtime.scale(case.service, 1)
    assert case.runtime.state(case.service).running
    if case.scalable:
        case.runtime.scale(case.service, 2)
        assert case.runtime.logs(case.service).count(case.word) == 2
    else:
        with pytest.raises(errors.ScaleImpossible):
            case.runtime.scale(case.service, 2)
    case.runtime.scale(case.service, 0)
    assert not case.runtime.state(case.service).running


def test_what_is_not_there_or_does_not_run_is_named(case: Case, tmp_path: Path) -> None:
    for call in (case.runtime.start, case.runtime.kill, case.runtime.state):
        with pytest.raises(errors.ServiceMissing, match="'absent'"):
            call("absent")
    for ask in (case.runtime.environment, case.runtime.usage, case.runtime.digest):
        with pytest.raises(errors.ServiceFailed, match="does not run; start it"):
            ask(case.service)


@needs_docker
def test_a_loop_an_early_end_and_a_taken_port_are_named(project: Project) -> None:
    runtime = ComposeRuntime(project, say=print)
    with pytest.raises(errors.ServiceRestarts, match="looping ends and is restarted"):
        runtime.start("looping")
    with pytest.raises(errors.ServiceFailed, match="exit code 4"):
        runtime.start("ending")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = dict(os.environ, PORT=str(taken.getsockname()[1]))
        with pytest.raises(errors.PortTaken, match="publishes is taken"):
            ComposeRuntime(project, say=print, environment=env).start("publishing")


@needs_docker
def test_profiles_override_files_and_an_invalid_file(project: Project) -> None:
    extra = ComposeRuntime(replace(project, profiles=("extra",)), say=print)
    assert "hidden" in extra.services()
    extra.start("hidden")
    assert extra.state("hidden").running
    more = project.directory / "more.yml"
    more.write_text('version: "3.9"\nservices: {web: {environment: {KUMO_WORD: changed}}}\n')
    both = replace(project, files=(Path("docker-compose.yml"), more))
    runtime = ComposeRuntime(both, say=print)
    assert b"changed" in runtime.config()
    runtime.start("web")
    assert runtime.environment("web")["KUMO_WORD"] == "changed"
    more.write_text("services: {web: {no_such_key: 1}}\n")
    with pytest.raises(errors.ComposeInvalid, match="no_such_key"):
        ComposeRuntime(both, say=print).services()


@needs_docker
def test_a_daemon_that_does_not_answer_is_named(project: Project) -> None:
    env = dict(os.environ, DOCKER_HOST=f"unix://{project.directory}/absent.sock")
    with pytest.raises(errors.DockerStopped, match="does not answer; start it"):
        ComposeRuntime(project, say=print, environment=env).state("web")


def test_docker_absent(tmp_path: Path) -> None:
    def absent(command: list[str], **_: object) -> Answer:
        raise errors.ToolMissing(f"{command[0]} cannot be run: No such file or directory")

    with pytest.raises(errors.DockerAbsent, match="install Docker"):
        ComposeRuntime(Project(tmp_path), say=print, runner=absent).services()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Got permission denied while trying to connect to the Docker daemon socket", errors.DockerForbidden),
        ("version: ('Connection aborted.', PermissionError(13, 'Permission denied'))", errors.DockerForbidden),
        ('exec: "/docker-entrypoint.sh": permission denied: unknown', errors.ServiceFailed),
        ("Error while fetching server API version: [Errno 111] Connection refused", errors.DockerStopped),
        ("write /spool/x: no space left on device", errors.DiskFull),
        ('Service "web" uses an undefined network "nowhere"', errors.ComposeInvalid),
        ('service "web" refers to undefined network nowhere: invalid compose project', errors.ComposeInvalid),
        ("something else", errors.ServiceFailed),
    ],
)
def test_what_docker_says(tmp_path: Path, text: str, kind: type[errors.KumodrError]) -> None:
    def refusing(command: list[str], **_: object) -> Answer:
        return Answer(1 if "ps" in command else 0, b"web", text.encode())

    with pytest.raises(kind):
        ComposeRuntime(Project(tmp_path), say=print, runner=refusing).state("web")  # pyright: ignore[reportArgumentType]


def test_a_unit_that_loops_and_one_that_ends_are_named(units: Path) -> None:
    add_unit(units, "looping.service", "exit 3", restart=True)
    add_unit(units, "ending.service", "exit 4")
    runtime = SystemdRuntime(["looping.service", "ending.service", "gone.service"], say=print)
    with pytest.raises(errors.ServiceRestarts, match="ends and is restarted in a loop; read its log"):
        runtime.start("looping.service")
    with pytest.raises(errors.ServiceFailed, match="exit code 4"):
        runtime.start("ending.service")
    with pytest.raises(errors.ServiceMissing, match="systemd has no unit"):
        runtime.start("gone.service")


def test_a_unit_that_ends_for_a_full_disk_or_a_taken_port_is_named(units: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "64k") as small, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        add_unit(units, "filling.service", f"exec dd if=/dev/zero of={small}/file bs=64k count=4")
        listening = f"import socket; socket.create_server(('127.0.0.1', {taken.getsockname()[1]}))"
        add_unit(units, "listening.service", f'exec {sys.executable} -c "{listening}"')
        runtime = SystemdRuntime(["filling.service", "listening.service"], say=print)
        with pytest.raises(errors.DiskFull, match=r"filling\.service ends because no space is left"):
            runtime.start("filling.service")
        with pytest.raises(errors.PortTaken, match=r"listening\.service ends because a port"):
            runtime.start("listening.service")


def test_a_unit_with_less_patience_than_asked_for_is_said(units: Path) -> None:
    add_unit(units, "kumomta.service", WEB, timeout="1min 30s")
    said: list[str] = []
    runtime = SystemdRuntime(["kumomta.service"], say=said.append)
    runtime.start("kumomta.service")
    assert runtime.stop("kumomta.service", patience=1200).how == "by itself"
    assert said[-1].startswith("systemd kills kumomta.service after 90 s")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("System has not been booted with systemd as init system", "does not run on this machine"),
        ("Failed to stop x: Access denied", "does not let this user show x.service; run as root"),
        ("Something else", "systemctl show x.service failed: Something else"),
    ],
)
def test_what_systemctl_says(text: str, said: str) -> None:
    def refusing(command: list[str], **_: object) -> Answer:
        return Answer(1, b"", text.encode())

    with pytest.raises(errors.ServiceFailed, match=said):
        SystemdRuntime(["x.service"], say=print, runner=refusing).state("x.service")  # pyright: ignore[reportArgumentType]


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(errors.RuntimeSlow):
        run(["sh", "-c", "sleep 60 & echo $! > child; wait"], limit=0.5, directory=tmp_path)
    child = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{child}/status")
    wait_for("the child's end", lambda: not status.exists() or "zombie" in status.read_text())
