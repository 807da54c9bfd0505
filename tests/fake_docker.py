"""A docker for tests: it answers out of `world.json` in a folder, in the forms of Docker 28 and its compose plugin.

Usage: fake_docker.py FOLDER …. The world says what `config` prints, which containers run with which environment,
where volumes are, and `trouble`: what Docker refuses everything with.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, words: list[str]) -> int:
    world: dict[str, Any] = json.loads((folder / "world.json").read_text())
    if words[0] == "compose":
        if "version" in words:
            sys.stdout.write("2.29.7\n")
        elif world.get("invalid"):
            sys.stderr.write(world["invalid"] + "\n")
            return 15
        elif words[-1] == "--services":
            sys.stdout.write("\n".join(world["services"]) + "\n")
        else:
            sys.stdout.write(world["config"])
        return 0
    if world.get("trouble"):
        sys.stderr.write(world["trouble"] + "\n")
        return 1
    if words[0] == "ps":
        wanted = next(word.rpartition("=")[2] for word in words if "compose.service=" in word)
        sys.stdout.write(f"{wanted}\n" if wanted in world["running"] else "")
    elif words[0] == "inspect":
        answers = [
            {"Id": name, "State": {"Running": True, "Restarting": name in world.get("looping", []), "Pid": 1,
             "Status": "restarting" if name in world.get("looping", []) else "running", "ExitCode": 0},
             "RestartCount": 0, "Config": {"Env": world["running"][name], "Image": name}, "Image": name, "Mounts": []}
            for name in words[1:]
        ]  # fmt: skip
        sys.stdout.write(json.dumps(answers))
    elif words[:2] == ["image", "inspect"]:
        sys.stderr.write(f"Error: No such image: {words[-1]}\n")
        return 1
    elif words[:2] == ["volume", "inspect"]:
        if words[-1] not in world["volumes"]:
            sys.stderr.write(f"Error response from daemon: get {words[-1]}: no such volume\n")
            return 1
        sys.stdout.write(world["volumes"][words[-1]] + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
