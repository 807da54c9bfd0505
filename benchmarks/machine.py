"""On what was it measured: processor, memory, file system, and the version of everything."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from benchmarks.tools import Tool

_LIBRARIES = ("rocksdict", "zstandard", "cryptography", "blake3", "duckdb")


def machine(work: Path) -> dict[str, str]:
    """Given the folder that is worked in, return the facts of this machine."""
    processor = _value("/proc/cpuinfo", "model name") or platform.machine()
    memory = int((_value("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{_value('/etc/os-release', 'PRETTY_NAME', '=') or platform.system()}, Linux {platform.release()}",
        "file system": _printed(("stat", "-f", "-c", "%T", str(work))),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def versions(tools: Iterable[Tool]) -> dict[str, str]:
    """Given tools, return the version of each, of Python, and of the libraries that kumodr's speed rests on."""
    found = {tool.name: _printed(tool.version).removeprefix(tool.name).strip() for tool in tools}
    if "tar" in found:
        found["gzip"] = _printed(("gzip", "--version")).removeprefix("gzip").strip()
    found["Python"] = platform.python_version()
    return found | {name: version(name) for name in _LIBRARIES}


def _printed(words: tuple[str, ...]) -> str:
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (result.stdout.splitlines() or ["unknown"])[0].strip()


def _value(path: str, name: str, mark: str = ":") -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(mark)[2].strip(' \t"') for line in lines if line.startswith(name)), None)
