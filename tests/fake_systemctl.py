"""A systemctl and journalctl for tests: units are JSON files in a folder, their processes are real.

Usage: fake_systemctl.py FOLDER PROGRAM VERB …. What it answers has the form of systemd 252.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(folder: Path, program: str, words: list[str]) -> int:
    if program == "journalctl":
        name = next(word for word in words if word.startswith("--unit=")).partition("=")[2]
        count = int(next(word for word in words if word.startswith("--lines=")).partition("=")[2])
        log = folder / f"{name}.log"
        sys.stdout.write("\n".join(log.read_text().splitlines()[-count:] if log.exists() else []) + "\n")
        return 0
    verb, name, file = words[0], words[-1], folder / f"{words[-1]}.json"
    if not file.exists():
        sys.stdout.write("LoadState=not-found\nActiveState=inactive\n")
        return 0 if verb == "show" else 5
    unit = json.loads(file.read_text())
    pid = unit.get("pid", 0)
    if pid and not alive(pid):
        unit["pid"] = 0
        unit["result"] = "signal" if unit.get("killed") else "success"
    if verb == "start":
        with open(folder / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                unit["command"], stdout=log, stderr=log, env={**os.environ, **unit["environment"]},
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        time.sleep(0.3)
        unit |= {"pid": child.pid, "status": child.poll() or 0, "killed": False, "stopping": False}
        if child.poll() is not None:
            unit["pid"] = 0
            unit["restarts"] = unit.get("restarts", 0) + (1 if unit.get("restart") else 0)
    elif verb == "stop" and unit.get("pid"):
        os.kill(pid, signal.SIGTERM)
        unit["stopping"] = True
    elif verb == "kill" and unit.get("pid"):
        os.kill(pid, signal.SIGKILL)
        unit["killed"] = True
    elif verb == "show":
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
        sys.stdout.write("\n".join(f"{key}={value}" for key, value in facts.items()) + "\n")
    file.write_text(json.dumps(unit))
    return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
