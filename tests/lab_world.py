"""A lab site, `kumodr protect` beside it as a process, a vault that fails, and the judge of what it gives back."""

import contextlib
import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_mail import Post, deliveries, unfinished
from live import Live
from servers import wait_for
from streams import content

from kumodr.cli.main import main
from kumodr.clock import time_of_text
from kumodr.lab.options import Options
from kumodr.lab.processes import is_running
from kumodr.lab.site import Site, adopt, create, plan_values
from kumodr.ledger.segments import read_records, segments_below
from kumodr.protect.figures import published
from kumodr.spool.metadata import parse

SLACK = 3_000_000_000
"""Within so many ns after it was taken, a message has left the spool and the stream has read so."""


@dataclass(frozen=True)
class Mark:
    """`kumodr protect` said: everything before `until` can be recovered. It was read at `seen`; both in ns."""

    until: int
    seen: int


@dataclass
class LabWorld:
    """Everything in one folder. `disk` is a small disk of its own for the vault, where this user may mount one."""

    folder: Path
    options: Options
    loop: Mapping[str, Any]
    disk: Path | None = None
    marks: list[Mark] = field(default_factory=list)
    stops: list[tuple[int, int]] = field(default_factory=list)
    looked: int = 0
    judged: int = 0

    def __post_init__(self) -> None:
        vault = (self.disk or self.folder) / "vault"
        self.site: Site = create(self.folder / "lab", self.options)
        self.site.sink_rules(mode="rules", defer_share=0.3)
        self.site.start(["sink", "kumod"])
        self.live = Live(
            self.folder, {**plan_values(self.site, str(vault)), "protect": dict(self.loop)}, vault_at=vault
        )
        self.identity = self.folder / "identity.txt"
        self.identity.touch(0o600)
        self.identity.write_text(self.live.secret + "\n")
        self.post = Post(self.site)

    @property
    def serves(self) -> bool:
        return self.site.running("kumod")

    @property
    def protects(self) -> bool:
        return self.live.process is not None and is_running(self.live.process)

    def protect(self) -> None:
        """Start `kumodr protect` and wait for its first round."""
        self.live.protect()

        def begun() -> bool:
            figures = published(self.live.state)
            process = self.live.process
            return figures is not None and process is not None and figures.process == process.pid

        wait_for("the first round", begun, 30)

    @contextlib.contextmanager
    def server_down(self) -> Iterator[None]:
        """Around whatever ends the mail server: what is taken meanwhile may be sent again."""
        begun = time.time_ns()
        yield
        self.stops.append((begun, time.time_ns()))

    def note_mark(self) -> None:
        """Look at what `kumodr protect` says of itself, running or not."""
        figures = published(self.live.state)
        if figures is not None and figures.recoverable_until is not None:
            until = round(time_of_text(figures.recoverable_until).timestamp() * 1e6) * 1000
            if not self.marks or self.marks[-1].until != until:
                self.marks.append(Mark(until, time.time_ns()))

    def all_is_protected(self) -> None:
        """Wait until everything up to now can be recovered."""
        self.live.wait()
        self.note_mark()

    def kumodr(self, *words: str, good: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a verb in this process and return its document."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--json"])
        assert code in good, f"kumodr {' '.join(words)}: {code} {out.getvalue()[-2000:]} {err.getvalue()[-2000:]}"
        return json.loads(out.getvalue())

    def check(self, mark: Mark | None, choice: str = "send") -> None:
        """Restore the newest state, or the one of a mark; judge it; reconcile it; judge that; put everything back."""
        target = self.restored(mark)
        try:
            newest = self.marks[-1] if mark is None else mark
            ended = time.time_ns() if mark is None else mark.seen
            self.holds_what_was_acknowledged(target, newest.until, ended)
            self.reconciled(target, newest.until, choice)
            spool = target / "spool"
            before = content(spool)
            self.kumodr("spool", "quarantine", "put-back", "--all", "--spool", str(spool))
            assert self.before == content(spool), "all that was taken out can be put back"
            assert before != self.before or not list((spool / "quarantine").glob("[0-9a-f]*"))
        finally:
            shutil.rmtree(target)

    def restored(self, mark: Mark | None) -> Path:
        self.looked += 1
        target = self.folder / f"restored-{self.looked}"
        until = "latest"
        if mark is not None:
            seconds, rest = divmod(mark.until, 1_000_000_000)
            until = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}+00:00"
        words = ["--vault", self.live.vault.store.address, "--identity", str(self.identity), "--to", str(target)]
        found = self.kumodr("restore", "--at", until, *words, good=(0, 3))
        assert found["problems"] == []
        return target

    def holds_what_was_acknowledged(self, target: Path, begun: int, ended: int) -> None:
        """Invariant 1, and that nothing is in it that had left before."""
        meta, bodies = self.before = content(target / "spool")
        took = deliveries(self.site.world)
        wanted = unfinished(self.post.sent, took, begun, ended)
        self.judged += len(wanted)
        assert [each.id for each in wanted if bytes.fromhex(each.id) not in meta] == [], "metadata that is missing"
        for each in wanted:
            body = bodies.get(bytes.fromhex(each.id))
            assert body is not None, f"the body of {each.id} is missing"
            assert body.endswith(each.content)

    def reconciled(self, target: Path, until: int, choice: str) -> None:
        """Invariants 4 and 5: nothing that was delivered is sent, everything that is taken out is kept."""
        spool = target / "spool"
        words = ["--retry-interval", "1s", "--uncertain", choice, "--apply", "--spool", str(spool)]
        found = self.kumodr("spool", "reconcile", *words, good=(0, 3))
        meta, bodies = self.before
        meta_now, bodies_now = content(spool)
        ended = ended_in_the_logs(target / "logs")
        load_ids = {each.id: each.load_id for each in self.post.sent}
        settled = self.settled(until)
        for key, raw in meta_now.items():
            for recipient in parse(raw).recipients:
                assert (key.hex(), recipient) not in ended, f"{key.hex()} has an end for {recipient} in the log"
                assert (load_ids.get(key.hex()), recipient) not in settled, f"{key.hex()} was taken for {recipient}"
        kept = spool / "quarantine"
        for before, now, name in ((meta, meta_now, "meta.json"), (bodies, bodies_now, "body.eml")):
            assert now.keys() <= before.keys()
            for key, raw in before.items():
                assert now.get(key) == raw or (kept / key.hex() / name).read_bytes() == raw
        if choice == "send":
            assert {bytes.fromhex(each) for each in found["uncertain"]["ids"]} <= meta_now.keys()
        else:
            assert not meta_now.keys() & {bytes.fromhex(each) for each in found["uncertain"]["ids"]}

    def settled(self, until: int) -> set[tuple[str, str]]:
        """What the sink took long enough before a time, and not about when the mail server was ended."""
        stops = self.stops
        return {
            key
            for key, times in deliveries(self.site.world).items()
            if any(
                each < until - SLACK and not any(begun - SLACK < each < ended + SLACK for begun, ended in stops)
                for each in times
            )
        }

    def sent_from(self, target: Path) -> None:
        """The site is lost; the reconciled copy becomes the site, and the world takes everything."""
        self.site.wipe()
        before = {key: len(times) for key, times in deliveries(self.site.world).items()}
        settled = self.settled(time.time_ns())
        self.site = adopt(self.site.directory, target)
        self.site.sink_rules(mode="accept")
        self.site.start(["kumod"])
        due = [
            (each.load_id, recipient)
            for each in self.post.sent
            for recipient in each.recipients
            if not recipient.startswith("refuse")
        ]
        wait_for("the last message", lambda: all(key in deliveries(self.site.world) for key in due), 60)
        after = deliveries(self.site.world)
        again = [key for key in settled if len(after[key]) > before[key]]
        assert again == [], "sent again although it was delivered"

    def close(self) -> None:
        if self.live.process is not None:
            self.live.end()
        self.site.kill()

    @contextlib.contextmanager
    def vault_away(self) -> Iterator[None]:
        vault = self.live.vault_folder
        elsewhere = vault.with_name("elsewhere")
        vault.rename(elsewhere)
        yield
        elsewhere.rename(vault)

    @contextlib.contextmanager
    def vault_read_only(self) -> Iterator[None]:
        subprocess.run(["mount", "-o", "remount,ro", self.disk], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw", self.disk], check=True)

    @contextlib.contextmanager
    def vault_full(self) -> Iterator[None]:
        ballast = self.live.vault_folder.with_name("ballast")
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(64 << 10))
        yield
        ballast.unlink()


def ended_in_the_logs(logs: Path) -> set[tuple[str, str]]:
    """Who had an end by the delivery logs, by id and recipient."""
    ended: set[tuple[str, str]] = set()
    for path, _ in segments_below(logs):
        for line in read_records(logs / path):
            record = json.loads(line)
            if record["type"] in ("Delivery", "Bounce"):
                whom = record["recipient"]
                ended |= {(record["id"], each) for each in ([whom] if isinstance(whom, str) else whom)}
    return ended
