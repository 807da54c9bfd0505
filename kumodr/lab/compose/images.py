"""The images of the lab's containers, made here: no image registry is asked.

A Debian with Redis, Prometheus, Python and the locked packages by mmdebstrap, from wheels that were fetched on this
host, since inside there may be no way to a package index; and on it the kumodr image by the project's own Dockerfile.
Every image has a tag of all that goes into it, so what is there already is right, and a second site starts at once.
"""

import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kumodr
from kumodr import errors
from kumodr.runtimes.commands import Answer, Runner
from kumodr.runtimes.docker_errors import named

SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "redis-server", "prometheus")
_INSIDE = ("requirements-image.lock", "script/image-packages", "kumodr/lab/compose/base.sh")
_LEFT_OUT = ("doc", "man", "locale", "javascript", "nodejs")
_SLOW = 1200.0
_QUICK = 60.0
_LIBC = 36
"""The minor version of the C library in SUITE; a wheel may ask for this one or an older one."""


@dataclass(frozen=True)
class Images:
    """The tags of the images of one lab. The stand-in for kumod and the sink are in kumodr's."""

    kumodr: str
    redis: str
    prometheus: str


def ensure_images(say: Callable[[str], None], run: Runner) -> Images:
    """Return the images, made where they are missing. Raise LabFailed, ToolMissing, the errors of Docker."""
    checkout = _checkout()
    with _alone():
        base = _tag("base", *_recipe(), *_contents(checkout, *_INSIDE))
        if not _is_there(base, run):
            say("making a Debian with Redis, Prometheus and Python's packages; once, about a minute")
            _make_base(base, checkout, run)
        found = Images(
            kumodr=_tag("kumodr", base, *_contents(checkout, "Dockerfile", "kumodr")),
            redis=base.replace("-base:", "-redis:"),
            prometheus=base.replace("-base:", "-prometheus:"),
        )
        for alias in (found.redis, found.prometheus):
            if not _is_there(alias, run):
                _docker(["tag", base, alias], run, _QUICK)
        if not _is_there(found.kumodr, run):
            say("making the kumodr image by the Dockerfile; once for each state of the code")
            _make_kumodr(found.kumodr, base, checkout, run)
        return found


def _checkout() -> Path:
    """Return the folder with the Dockerfile. Raise LabFailed where kumodr runs from an installed package."""
    folder = Path(kumodr.__file__).resolve().parent.parent
    if not (folder / "Dockerfile").is_file():
        raise errors.LabFailed(
            "the lab's images are made by kumodr's Dockerfile, and this kumodr was installed without it",
            remedy="run it from a checkout of its source",
        )
    return folder


def _recipe() -> list[str]:
    options = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT]
    return ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *options]


def _make_base(tag: str, checkout: Path, run: Runner) -> None:
    if shutil.which("mmdebstrap") is None:
        raise errors.ToolMissing(
            "mmdebstrap is not on this machine, and the lab's images are made with it",
            remedy="install it (`apt install mmdebstrap`), or run script/setup",
        )
    wheels = fetched_wheels(checkout / "requirements-image.lock", run)
    with tempfile.TemporaryDirectory(prefix="kumodr-lab-") as folder:
        build, archive = Path(folder, "build"), Path(folder, "base.tar")
        shutil.copytree(wheels, build)
        for each in _INSIDE:
            shutil.copy(checkout / each, build)
        words = [f"copy-in {shlex.quote(str(build))} /opt"]
        words += ['chroot "$1" /bin/sh -e /opt/build/base.sh', 'chroot "$1" /opt/build/image-packages /opt/build']
        words += ['rm -r "$1/opt/build"']
        hooks = [f"--customize-hook={each}" for each in words]
        answer = run([*_recipe(), *hooks, SUITE, str(archive)], limit=_SLOW)
        if answer.code:
            lines = answer.err.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise errors.LabFailed(f"mmdebstrap made no base: {lines[-1][:300]}", remedy="see that apt works here")
        _docker(["import", str(archive), tag], run, _SLOW)


def _make_kumodr(tag: str, base: str, checkout: Path, run: Runner) -> None:
    label = f"kumodr.checkout={checkout}"
    _docker(["build", "-q", f"--build-arg=BASE={base}", f"--label={label}", "-t", tag, str(checkout)], run, _SLOW)
    _clear(tag, label, run)


def fetched_wheels(lock: Path, run: Runner) -> Path:
    """Given the lock, return a folder with a wheel of each of its packages, for the Python and C library of SUITE.

    pip compares each with the lock's hashes. It judges the lock's markers by the Python that it runs on, not by the one
    that the wheels are for; so one that is meant for old patch releases, of which SUITE's is one, is taken always.
    """
    wanted = re.sub(r" ; python_full_version < '3\.11\.\d+'", "", lock.read_text())
    kept = _cache() / f"wheels-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if kept.is_dir():
        return kept
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}" for minor in range(_LIBC, 4, -1)] + ["manylinux2014", "manylinux2010", "manylinux1"]
    words = ["-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    words += ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
    words += [f"--platform={each}_{machine}" for each in tags]
    with tempfile.TemporaryDirectory(prefix="kumodr-lab-", dir=_cache()) as name:
        Path(name, "wanted").write_text(wanted)
        pip = [sys.executable, "-m", "pip", "download"]
        answer = run([*pip, *words, "-d", f"{name}/wheels", "-r", f"{name}/wanted"], limit=_SLOW)
        if answer.code:
            lines = answer.err.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise errors.LabFailed(
                f"pip did not fetch the wheels of the image: {lines[-1][:300]}", remedy="see that pip works here"
            )
        os.rename(f"{name}/wheels", kept)
    return kept


def _contents(checkout: Path, *names: str) -> Iterator[str]:
    """Yield what stands in files and folders of the checkout."""
    for name in names:
        top = checkout / name
        files = [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else [top]
        for path in sorted(path for path in files if "__pycache__" not in path.parts):
            yield f"{path.relative_to(checkout)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _clear(tag: str, label: str, run: Runner) -> None:
    """Remove this checkout's images of earlier states that no container uses; whatever refuses, stays."""
    words = ["images", f"--filter=label={label}", "--format={{.Repository}}:{{.Tag}}"]
    for old in _docker(words, run, _QUICK).split():
        if old != tag and old.startswith("kumodr-lab-kumodr:"):
            run(["docker", "rmi", old], limit=_QUICK)


def _tag(name: str, *contents: str) -> str:
    return f"kumodr-lab-{name}:{hashlib.sha256(chr(10).join(contents).encode()).hexdigest()[:16]}"


def _is_there(tag: str, run: Runner) -> bool:
    answer = _call(["image", "inspect", "--format={{.Id}}", tag], run, _QUICK)
    text = answer.err.decode(errors="replace")
    if answer.code and "no such image" not in text.lower():
        raise named(text, "the lab")
    return answer.code == 0


def _docker(words: Sequence[str], run: Runner, limit: float) -> str:
    answer = _call(words, run, limit)
    if answer.code:
        raise named(answer.err.decode(errors="replace"), "the lab")
    return answer.out.decode(errors="replace")


def _call(words: Sequence[str], run: Runner, limit: float) -> Answer:
    try:
        return run(["docker", *words], limit=limit)
    except errors.ToolMissing as error:
        raise errors.DockerAbsent("docker is not on this machine") from error


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kumodr"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextmanager
def _alone() -> Generator[None]:
    """Hold the lock of everything that makes lab images for this user."""
    with open(_cache() / "lab-images.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
