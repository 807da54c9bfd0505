"""Prometheus as a component: blocks, which never change, and the newest hours by a snapshot where that is allowed."""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.clock import Clock
from kumodr.components.prometheus_blocks import USUAL, Here, Inside, blocks_in
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import Plan, PrometheusPlan
from kumodr.source import Capture, CaptureFacts, OnDisk, SourceFile, identity_of

_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")
_PROMTOOL = 120.0
_LARGEST_META = 1 << 20


class PrometheusComponent:
    """One Prometheus server; its data folder is read on this host, or copied out of its container."""

    name = "prometheus"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._whole = plan
        self._plan: PrometheusPlan = plan.components.prometheus or PrometheusPlan()

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Give the blocks of a snapshot made now, or without the admin API the blocks that are closed.

        A snapshot holds links to the closed blocks, under the same names, and the newest hours as a block of its own;
        the API has no way to delete it, so this deletes the one that it made, by its name, and no other. Where this
        host cannot read the data folder, the blocks are copied out through the container: they never change. Raise
        ComponentUnavailable where the data cannot be read.
        """
        try:
            with ExitStack() as stack:
                place = self._place(stack)
                snapshot = self._made_snapshot()
                source = place.opened(snapshot)
                blocks = blocks_in(source)
                facts = {"snapshot": bool(snapshot), "newest_hours_stored": bool(snapshot), **_totals(source, blocks)}
                files = [file for block in blocks for file in _block_files(source, block)]
                yield Capture(files=files, facts=lambda: CaptureFacts(facts, {}))
        except OSError as error:
            raise errors.ComponentUnavailable(
                f"prometheus: {error.filename} cannot be read: {error.strerror}"
            ) from error

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/prometheus`, have promtool read every block and count the samples."""
        blocks = blocks_in(restored)
        totals = _totals(restored, blocks)
        if not blocks:
            return Verdict(None, totals, ("no block was stored",))
        if shutil.which("promtool") is None:
            raise errors.ToolMissing("promtool is not on this machine, so the Prometheus blocks cannot be tried")
        listed = subprocess.run(
            ["promtool", "tsdb", "list", str(restored)], capture_output=True, timeout=_PROMTOOL, check=False
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
            with ExitStack() as stack:
                found.append(Finding("good", f"prometheus: {self._place(stack).count()} closed blocks can be read"))
        except OSError as error:
            text = f"prometheus: {error.filename} cannot be read: {error.strerror}"
            found.append(Finding("bad", text, "give kumodr read access to it, or correct its path"))
        except errors.ComponentUnavailable as error:
            found.append(Finding("bad", error.what, error.remedy))
        if self._plan.url is None:
            text = "prometheus: without its address the newest hours are not stored"
            return (*found, Finding("warning", text, "set components.prometheus.url in kumodr.yaml"))
        try:
            allowed = self._flags().get("web.enable-admin-api") == "true"
        except errors.ComponentUnavailable as error:
            return (*found, Finding("bad", error.what, error.remedy))
        if not allowed:
            text = "prometheus: its admin API is off, so the newest hours are not stored"
            found.append(Finding("warning", text, "start it with --web.enable-admin-api"))
        return tuple(found)

    def _place(self, stack: ExitStack) -> Here | Inside:
        """Return where the data folder is: where the plan says, where the runtime says, or only inside a container."""
        if self._plan.data:
            return Here(stack, Path(self._plan.data))
        service = self._whole.runtime.prometheus
        if self._whole.runtime.kind == "none" or not service:
            raise errors.ComponentUnavailable(
                "prometheus: where its data folder is, the plan does not say",
                remedy="set components.prometheus.data or runtime.prometheus in kumodr.yaml",
            )
        from kumodr.runtimes.opening import runtime_of

        try:
            runtime = runtime_of(self._whole, say=lambda _text: None)
            inner = self._flags().get("storage.tsdb.path", USUAL) if self._plan.url else USUAL
            # A relative path is of the working directory, which in the official image is /prometheus.
            inner = inner if inner.startswith("/") else USUAL
            here = runtime.host_path(service, inner)
        except errors.ComponentUnavailable:
            raise
        except errors.KumodrError as error:
            raise errors.ComponentUnavailable(f"prometheus: {error.what}", remedy=error.remedy) from error
        scratch = self._whole.state if Path(self._whole.state).is_dir() else None
        return Here(stack, here) if here is not None else Inside(stack, runtime, service, inner, scratch)

    def _flags(self) -> Mapping[str, str]:
        """Return the server's command line flags. Raise ComponentUnavailable."""
        document = self._asked("/api/v1/status/flags")
        flags: Any = document.get("data") if isinstance(document, dict) else None
        if not isinstance(flags, dict):
            raise errors.ComponentUnavailable(
                f"prometheus at {self._plan.url} does not answer", remedy="start it, or correct its address"
            )
        return {str(name): str(value) for name, value in flags.items()}

    def _made_snapshot(self) -> str | None:
        """Ask for a snapshot; return its name, or None where there is no address or the admin API is off."""
        if self._plan.url is None:
            return None
        document = self._asked("/api/v1/admin/tsdb/snapshot", post=True)
        if document is None:
            return None
        data: Any = document.get("data") if isinstance(document, dict) else None
        name = str(data.get("name", "")) if isinstance(data, dict) else ""
        if not _SNAPSHOT.fullmatch(name):
            raise errors.ComponentUnavailable(f"prometheus at {self._plan.url} answers without a snapshot's name")
        return name

    def _asked(self, path: str, *, post: bool = False) -> Any:
        """Given a path of its API, return the answer's document, None where it refuses. Raise ComponentUnavailable."""
        from kumodr.components.prometheus_api import by_network, by_wget

        address = f"{(self._plan.url or '').rstrip('/')}{path}"
        try:
            if self._plan.through == "exec":
                from kumodr.runtimes.opening import runtime_of

                runtime = runtime_of(self._whole, say=lambda _text: None)
                return by_wget(runtime, self._whole.runtime.prometheus or "", address, post=post)
            return by_network(address, post=post)
        except errors.ComponentUnavailable:
            raise
        except errors.KumodrError as error:
            raise errors.ComponentUnavailable(f"prometheus: {error.what}", remedy=error.remedy) from error


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
