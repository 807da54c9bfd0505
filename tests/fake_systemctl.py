"""A systemctl and journalctl for tests: units are JSON files in a folder, their processes are real.

Usage: fake_systemctl.py FOLDER PROGRAM VERB …. What it answers has the form of systemd 252. `daemon-reload` makes the
JSON of every unit file in the folder; of these only what starts a process is understood, and Type=notify.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def fake_systemd(directory: Path) -> Generator[tuple[Path, Path]]:
    """Given a directory, give a folder for units and one with a systemctl and a journalctl that know them."""
    folder, programs = directory / "units", directory / "programs"
    folder.mkdir()
    programs.mkdir()
    for name in ("systemctl", "journalctl"):
        words = [sys.executable, __file__, str(folder), name]
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    yield folder, programs
    for file in folder.glob("*.json"):
        pid = json.loads(file.read_text()).get("pid", 0)
        if pid and Path(f"/proc/{pid}").exists():
            os.killpg(pid, signal.SIGKILL)


def add_unit(folder: Path, name: str, script: str, **more: object) -> None:
    """Given a folder of units, add one that runs a shell script."""
    unit = {"command": ["/bin/sh", "-c", script], "environment": {"KUMO_WORD": "spoken"}, **more}
    (folder / f"{name}.json").write_text(json.dumps(unit))


def main(folder: Path, program: str, words: list[str]) -> int:
    if program == "journalctl":
        name = next(word for word in words if word.startswith("--unit=")).partition("=")[2]
        count = int(next(word for word in words if word.startswith("--lines=")).partition("=")[2])
        log = folder / f"{name}.log"
        sys.stdout.write("\n".join(log.read_text().splitlines()[-count:] if log.exists() else []) + "\n")
        return 0
    verb, names = words[0], [word for word in words[1:] if not word.startswith("-")]
    if verb == "daemon-reload":
        reload(folder)
        return 0
    return max(one(folder, verb, name, now="--now" in words) for name in names)


def reload(folder: Path) -> None:
    for file in [*folder.glob("*.service"), *folder.glob("*.timer")]:
        unit: dict[str, Any] = {"environment": {}, "command": [], "file": file.name}
        for key, _, value in (line.partition("=") for line in file.read_text().splitlines()):
            if key == "ExecStart":
                unit["command"] = shlex.split(value)
            elif key == "Environment":
                unit["environment"] |= dict(word.split("=", 1) for word in shlex.split(value))
            elif key == "Type":
                unit["type"] = value
        json_file = folder / f"{file.name}.json"
        before = json.loads(json_file.read_text()) if json_file.exists() else {}
        json_file.write_text(json.dumps(before | unit))
    for json_file in folder.glob("*.json"):
        made_of = json.loads(json_file.read_text()).get("file")
        if made_of and not (folder / made_of).exists():
            json_file.unlink()


def one(folder: Path, verb: str, name: str, *, now: bool) -> int:
    file = folder / f"{name}.json"
    if not file.exists():
        sys.stdout.write("LoadState=not-found\nActiveState=inactive\n")
        return 0 if verb == "show" else 5
    unit = json.loads(file.read_text())
    pid = unit.get("pid", 0)
    if pid and not alive(pid):
        unit["pid"] = 0
        unit["result"] = "signal" if unit.get("killed") else "success"
    if verb in ("enable", "disable"):
        unit["enabled"] = verb == "enable"
        verb = {"enable": "start", "disable": "stop"}[verb] if now else verb
    if verb in ("stop", "restart") and unit.get("pid"):
        os.kill(pid, signal.SIGTERM)
        unit["stopping"] = True
        if unit.get("file"):  # the units that are installed are waited for; the others are asked for with --no-block
            while alive(pid):
                time.sleep(0.05)
            unit["pid"] = 0
    if verb in ("start", "restart") and not unit.get("pid") and unit["command"]:
        start(folder, name, unit)
    elif verb == "kill" and unit.get("pid"):
        os.kill(pid, signal.SIGKILL)
        unit["killed"] = True
    elif verb == "show":
        show(unit, folder)
    file.write_text(json.dumps(unit))
    return 0


def start(folder: Path, name: str, unit: dict[str, Any]) -> None:
    environment = {**os.environ, **unit["environment"]}
    with open(folder / f"{name}.log", "ab") as log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        if unit.get("type") == "notify":
            address = Path(tempfile.mkdtemp(prefix="kumodr-notify-"), "s")  # a socket's path is short
            heard.bind(str(address))
            heard.settimeout(60)
            environment["NOTIFY_SOCKET"] = str(address)
        child = subprocess.Popen(
            unit["command"], stdout=log, stderr=log, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        if unit.get("type") == "notify":
            unit["notified"] = [heard.recv(4096).decode() for _ in range(2)]
        else:
            time.sleep(0.3)
    unit |= {"pid": child.pid, "status": child.poll() or 0, "killed": False, "stopping": False}
    if child.poll() is not None:
        unit["pid"] = 0
        unit["restarts"] = unit.get("restarts", 0) + (1 if unit.get("restart") else 0)


def show(unit: dict[str, Any], folder: Path) -> None:
    up = bool(unit.get("pid"))
    looping = not up and unit.get("restarts", 0) > 0
    facts = {
        "LoadState": "loaded",
        "ActiveState": ("deactivating" if unit.get("stopping") else "active") if up else
        "activating" if looping else "failed" if unit.get("result") == "signal" else "inactive",
        "SubState": "running" if up else "auto-restart" if looping else "dead",
        "MainPID": unit.get("pid", 0), "ExecMainStatus": unit.get("status", 0),
        "NRestarts": unit.get("restarts", 0), "Result": unit.get("result", "success"),
        "TimeoutStopUSec": unit.get("timeout", "5min"), "MemoryCurrent": "[not set]", "TasksCurrent": "[not set]",
    }  # fmt: skip
    if unit.get("file") and unit["command"]:
        facts["FragmentPath"] = folder / unit["file"]
        facts["ExecStart"] = (
            f"{{ path={unit['command'][0]} ; argv[]={shlex.join(unit['command'])} ; ignore_errors=no ; }}"
        )
    lines = [*(f"{key}={value}" for key, value in facts.items()), *unit.get("files", [])]
    sys.stdout.write("\n".join(lines) + "\n")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
