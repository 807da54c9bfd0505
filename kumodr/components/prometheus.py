"""Prometheus as a component: blocks, which never change, and the newest hours by a snapshot where that is allowed."""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import Plan, PrometheusPlan
from kumodr.source import Capture, CaptureFacts, OnDisk, SourceFile, identity_of

_BLOCK = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")
_TIMEOUT = 120.0
_LARGEST_META = 1 << 20


class PrometheusComponent:
    """One Prometheus server whose data folder this host can read."""

    name = "prometheus"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan: PrometheusPlan = plan.components.prometheus or PrometheusPlan("")
        self._clock = clock

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Give the blocks of a snapshot made now, or without the admin API the blocks that are closed.

        A snapshot holds links to the closed blocks, under the same names, and the newest hours as a block of its own;
        the API has no way to delete it, so this deletes the one that it made, by its name, and no other. Raise
        ComponentUnavailable where the data cannot be read.
        """
        root = Path(self._plan.data)
        snapshot = self._made_snapshot()
        source = root / "snapshots" / snapshot if snapshot else root
        try:
            blocks = _blocks(source)
            if snapshot and not source.is_dir():
                raise errors.ComponentUnavailable(
                    f"prometheus: its snapshot is not at {source}",
                    remedy="correct components.prometheus.data in kumodr.yaml",
                )
            facts = {"snapshot": bool(snapshot), "newest_hours_stored": bool(snapshot), **_totals(source, blocks)}
            files = [file for block in blocks for file in _block_files(source, block)]
            yield Capture(files=files, facts=lambda: CaptureFacts(facts, {}))
        except OSError as error:
            raise errors.ComponentUnavailable(
                f"prometheus: {error.filename} cannot be read: {error.strerror}"
            ) from error
        finally:
            if snapshot:
                shutil.rmtree(source, ignore_errors=True)

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/prometheus`, have promtool read every block and count the samples."""
        blocks = _blocks(restored)
        totals = _totals(restored, blocks)
        if not blocks:
            return Verdict(None, totals, ("no block was stored",))
        if shutil.which("promtool") is None:
            raise errors.ToolMissing("promtool is not on this machine, so the Prometheus blocks cannot be tried")
        listed = subprocess.run(
            ["promtool", "tsdb", "list", str(restored)], capture_output=True, timeout=_TIMEOUT, check=False
        )
        known = {line.split()[0] for line in listed.stdout.decode("utf-8", "replace").splitlines() if line.split()}
        missing = [block for block in blocks if block not in known]
        if listed.returncode or missing:
            return Verdict(f"promtool does not read {len(missing) or len(blocks)} of {len(blocks)} blocks", totals)
        return Verdict(None, totals)

    def health(self) -> tuple[Finding, ...]:
        """Say whether the data can be read, the server answers, and snapshots are allowed."""
        found: list[Finding] = []
        try:
            found.append(
                Finding("good", f"prometheus: {len(_blocks(Path(self._plan.data)))} closed blocks can be read")
            )
        except OSError as error:
            text = f"prometheus: {self._plan.data} cannot be read: {error.strerror}"
            found.append(Finding("bad", text, "give kumodr read access to it, or correct its path"))
        if self._plan.url is None:
            text = "prometheus: without its address the newest hours are not stored"
            return (*found, Finding("warning", text, "set components.prometheus.url in kumodr.yaml"))
        import httpx

        try:
            flags = httpx.get(f"{self._plan.url.rstrip('/')}/api/v1/status/flags", timeout=5).json()["data"]
            allowed = flags.get("web.enable-admin-api") == "true"
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            text = f"prometheus at {self._plan.url} does not answer"
            return (*found, Finding("bad", text, "start it, or correct its address"))
        if not allowed:
            text = "prometheus: its admin API is off, so the newest hours are not stored"
            found.append(Finding("warning", text, "start it with --web.enable-admin-api"))
        return tuple(found)

    def _made_snapshot(self) -> str | None:
        """Ask for a snapshot; return its name, or None where there is no address or the admin API is off."""
        if self._plan.url is None:
            return None
        import httpx

        address = f"{self._plan.url.rstrip('/')}/api/v1/admin/tsdb/snapshot"
        try:
            answer = httpx.post(address, timeout=_TIMEOUT)
            document: Any = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise errors.ComponentUnavailable(f"prometheus at {self._plan.url} does not answer") from error
        if answer.status_code != 200:
            return None
        name = str(document.get("data", {}).get("name", "")) if isinstance(document, dict) else ""
        if not _SNAPSHOT.fullmatch(name):
            raise errors.ComponentUnavailable(f"prometheus at {self._plan.url} answers without a snapshot's name")
        return name


def _blocks(root: Path) -> list[str]:
    """Return the closed blocks in a data folder: those with a meta.json. Raise OSError."""
    return sorted(name for name in os.listdir(root) if _BLOCK.fullmatch(name) and (root / name / "meta.json").is_file())


def _totals(root: Path, blocks: list[str]) -> dict[str, int]:
    samples = 0
    for block in blocks:
        with open(root / block / "meta.json", "rb") as file:
            try:
                samples += int(json.loads(file.read(_LARGEST_META)).get("stats", {}).get("numSamples", 0))
            except (ValueError, TypeError, AttributeError) as error:
                raise errors.ComponentDamaged(f"prometheus: block {block} has a damaged meta.json") from error
    return {"blocks": len(blocks), "samples": samples}


def _block_files(root: Path, block: str) -> Iterator[SourceFile]:
    for folder, folders, names in os.walk(root / block):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                continue
            # The status of a link in a snapshot differs in ctime; a block is known by its name, which is unique.
            identity = identity_of(status)[:4]
            yield SourceFile(
                path=os.path.relpath(path, root),
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                mtime_ns=status.st_mtime_ns,
                size=status.st_size,
                content=OnDisk(path),
                identity=identity,
            )
