"""What `kumodr protect` runs: rounds of the stream, points beside it, figures for whoever asks."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kumodr.clock import Clock, text_of_time
from kumodr.components.registry import configured
from kumodr.plan.model import Plan
from kumodr.protect.figures import Board, Figures, place_of_processes, publish, published
from kumodr.protect.points import Points
from kumodr.protect.shipper import MEANWHILE
from kumodr.protect.stream import Stream
from kumodr.protect.watch import watch
from kumodr.recover.objectives import objectives_of
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.proofs import Result, newest_proofs, newest_results
from kumodr.vault.state import locked

_PROOFS_EVERY = 60.0


class Agent:
    """Given the plan, where it stands, an open vault, the node's key and what is told to the operator."""

    def __init__(
        self, plan_file: Path, plan: Plan, vault: Vault, key: NodeKey, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._vault = vault
        self._clock = clock
        self._say = say
        self._unpublished = False
        self._state = Path(plan.state)
        now = text_of_time(clock())
        figures = Figures(
            site=plan.site,
            process=os.getpid(),
            started=now,
            time=now,
            vault=vault.id,
            every=plan.protect.every,
            place=place_of_processes(),
        )
        before = published(self._state, vault.id)
        if before is not None:
            figures = replace(
                figures,
                recoverable_until=before.recoverable_until,
                rebases=before.rebases,
                components=before.components,
            )
        self.board = Board(figures)
        self.stream = Stream(plan, vault, key, self.board, clock, say)
        self.points = Points(plan_file, plan, self.stream, self.board, clock, say)
        self._proofs: dict[str, Result] = {}

    def run(
        self,
        stop: threading.Event,
        each_round: Callable[[Figures], None] = lambda _figures: None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Protect until `stop` is set; `ready` is called when no other loop can run, before the first round.

        Raise AnotherRun where a loop runs on this state directory.
        """
        with locked(self._state, "protect"):
            config = self._plan.components.config
            if config is not None:
                watch(config.paths, lambda: self.points.note_change("config"), stop)
                threading.Thread(target=self._watch_definition, args=(stop,), daemon=True).start()
            threading.Thread(target=self._look_for_proofs, args=(stop,), daemon=True).start()
            server = None
            if self._plan.protect.metrics is not None:
                from kumodr.protect.exporter import Collector, serve

                allowed = objectives_of(configured(self._plan), self._plan.objectives)
                collector = Collector(self.board, self._clock, allowed, lambda: self._proofs)
                server, _ = serve(self._plan.protect.metrics, collector)
            self.stream.start()
            try:
                ready()
                while not stop.is_set():
                    begun = time.monotonic()
                    self._round(each_round)
                    self._rest(stop, begun + self._plan.protect.every)
            finally:
                self.points.close()
                self.stream.finish()
                self._publish()
                if server is not None:
                    server.shutdown()
                    server.server_close()

    def _watch_definition(self, stop: threading.Event) -> None:
        """Watch what defines the services, which their runtime has to be asked for; not mounts, where data may be."""
        from kumodr.components.config import ConfigComponent

        paths = ConfigComponent(self._plan, self._clock).defining()
        if paths:
            watch(paths, lambda: self.points.note_change("config"), stop)

    def _round(self, each_round: Callable[[Figures], None]) -> None:
        self.stream.round()
        self.points.step()
        self.stream.acknowledge(self._plan.protect.every / 2)
        self._publish()
        each_round(self.board.now)

    def _rest(self, stop: threading.Event, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, MEANWHILE)):
            self.stream.hold()

    def _publish(self) -> None:
        """Say how it stands; a disk that does not take it is no reason to end protection."""
        try:
            publish(self._state, self.board.now)
        except OSError as error:
            if not self._unpublished:
                self._say(f"how protection stands cannot be written to {self._state}: {error.strerror}")
            self._unpublished = True
        else:
            self._unpublished = False

    def _look_for_proofs(self, stop: threading.Event) -> None:
        """Read, now and then, when points were last proved good; it needs no key."""
        from kumodr import errors

        while not stop.is_set():
            with contextlib.suppress(errors.KumodrError):
                self._proofs = newest_proofs(newest_results(self._vault, self._clock()))
            stop.wait(_PROOFS_EVERY)
