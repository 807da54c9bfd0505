"""The spool as a component: a consistent snapshot of both databases, read through before it counts."""

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.components.protocol import Finding, Verdict
from kumodr.plan.model import Plan, SpoolPlan
from kumodr.source import Capture, CaptureFacts, SourceFile


class SpoolComponent:
    """KumoMTA's spool, meta and data, of either kind."""

    name = "spool"

    def __init__(self, plan: Plan, clock: Clock) -> None:
        if plan.components.spool is None:
            raise errors.SpoolMissing("the plan names no spool")
        self._plan: SpoolPlan = plan.components.spool
        self._clock = clock

    @contextmanager
    def capture(self) -> Generator[Capture]:
        """Hold a snapshot by pinned descriptors: meta, then data (design §4), and check it while it is stored.

        The check is a scratch copy opened with paranoid checks and read through. It begins when the first file is
        asked for, so that an unchanged spool is neither read nor checked again, and ends in `facts`.
        """
        from kumodr.spool.snapshot import snapshot

        with snapshot(Path(self._plan.meta), Path(self._plan.data), self._plan.kind) as held:
            validation = None

            def files() -> Iterator[SourceFile]:
                nonlocal validation
                validation = held.start_validation()
                yield from held.files

            def facts() -> CaptureFacts:
                census = (validation or held.start_validation()).wait()
                if census.problem is not None:
                    raise errors.SpoolDamaged(
                        f"the spool at {Path(self._plan.meta).parent} is damaged: {census.problem}"
                    )
                clear = {
                    "kind": held.kind,
                    "messages": census.meta_count,
                    "bodies": census.data_count,
                    "body_bytes": census.body_bytes,
                    "without_body": census.without_body_count,
                    "without_meta": census.without_meta_count,
                    "checked": text_of_time(self._clock()),
                }
                sealed = {"without_body": list(census.without_body), "without_meta": list(census.without_meta)}
                return CaptureFacts(clear, sealed)

            yield Capture(files=files(), facts=facts, fingerprint=held.fingerprint)

    def vet(self, restored: Path) -> Verdict:
        """Given `restored/spool`, read all of it with paranoid checks, and say what KumoMTA would do at start."""
        from kumodr.spool import vet

        vetted = vet.vet_and_count(restored / "meta", restored / "data", self._plan.kind, self._clock())
        fatal = (vet.DAMAGED, vet.LOG_DAMAGED, vet.NO_CURRENT)
        problems = [f"{each.reason}: {each.detail}" for each in vetted.findings if each.reason in fatal]
        counts = Counter(each.reason for each in vetted.findings if each.reason not in fatal)
        return Verdict(
            problem="; ".join(problems) or None,
            facts={"messages": vetted.meta_count, "bodies": vetted.data_count},
            warnings=tuple(f"{count} × {reason}" for reason, count in sorted(counts.items())),
        )

    def health(self) -> tuple[Finding, ...]:
        """Say whether the spool can be read without writing, and which kind it is."""
        from kumodr.spool.snapshot import snapshot

        try:
            with snapshot(Path(self._plan.meta), Path(self._plan.data), self._plan.kind) as held:
                return (Finding("good", f"spool of kind {held.kind} can be read while it is in use"),)
        except errors.KumodrError as error:
            return (Finding("bad", error.what, error.remedy),)
