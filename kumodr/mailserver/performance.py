"""Why mail is slow: what KumoMTA's metrics and the newest delivery log say, ranked, each with cause and remedy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kumodr.ledger.records import Record
from kumodr.mailserver.queues import Queues, by_label, number, queues_of
from kumodr.mailserver.rates import Rates, mean_between, rates_between

Metrics = Mapping[str, Any]
Rank = Literal["critical", "serious", "notable"]

DEEP = 10_000
"""Messages that wait: the written plan scales from here on."""

_SLOW_SPOOL = 0.05
_MUCH_COMPACTION = 1 << 30
_ONE_SIDED = 0.5
_MANY_DEFERRED = 0.3
_FULL = 90.0
_LITTLE_SPACE = 15.0
_ORDER: Mapping[Rank, int] = {"critical": 0, "serious": 1, "notable": 2}


@dataclass(frozen=True)
class Cause:
    """One thing that makes mail slow: what is seen, why that may be, what helps, and what the help may cost."""

    rank: Rank
    evidence: str
    cause: str
    remedy: str
    risk: str


@dataclass(frozen=True)
class Analysis:
    """How the queues stand, what moves, what receiving servers answer most, and the causes, the worst first."""

    queues: Queues
    rates: Rates
    answers: tuple[tuple[str, int], ...]
    causes: tuple[Cause, ...]


def analyse(before: Metrics, after: Metrics, seconds: float, records: Iterable[Record]) -> Analysis:
    """Given two looks at `/metrics.json`, the seconds between, and records of the newest log, return the analysis."""
    queues, rates = queues_of(after), rates_between(before, after, seconds)
    answers = most_answers(records)
    causes = [*_spool(before, after), *_host(after), *_queues(queues), *_deliveries(rates, answers)]
    causes.sort(key=lambda each: _ORDER[each.rank])
    return Analysis(queues, rates, answers, tuple(causes))


def most_answers(records: Iterable[Record], shown: int = 5) -> tuple[tuple[str, int], ...]:
    """Given records, return the commonest answers that put mail off or refuse it, each with its number."""
    counts: dict[str, int] = {}
    for each in records:
        if each.type in ("TransientFailure", "Bounce"):
            text = " ".join(f"{each.code} {each.content}".split())[:120]
            if text in counts or len(counts) < 10_000:
                counts[text] = counts.get(text, 0) + 1
    return tuple(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:shown])


def _spool(before: Metrics, after: Metrics) -> list[Cause]:
    found: list[Cause] = []
    for path, latched in by_label(after, "rocks_spool_load_shed_active").items():
        if latched:
            found.append(
                Cause(
                    "critical", f"the spool {path} refuses mail", "RocksDB met an error: disk, space or damage",
                    "`kumodr spool diagnose`, then `kumodr spool salvage`", "none: both only look",
                )
            )  # fmt: skip
    for path, stopped in by_label(after, "rocks_spool_write_stopped").items():
        if stopped:
            found.append(
                Cause(
                    "critical", f"RocksDB has stopped writes to {path}", "compaction cannot keep up with the disk",
                    "take load off, or give the spool a faster disk", "mail is refused meanwhile",
                )
            )  # fmt: skip
    for path, size in by_label(after, "rocks_spool_estimate_pending_compaction_bytes").items():
        if size > _MUCH_COMPACTION:
            found.append(
                Cause(
                    "serious", f"{size / (1 << 30):.1f} GiB wait to be compacted in {path}",
                    "the disk is too slow for the rate, or many messages were removed at once",
                    "`kumomta-cli spool optimize` in a quiet hour", "compaction itself takes disk and processor",
                )
            )  # fmt: skip
    for name, what in (
        ("message_save_latency", "storing a message"),
        ("message_data_load_latency", "loading a body"),
        ("message_meta_load_latency", "loading metadata"),
    ):
        mean = mean_between(before, after, name)
        if mean is not None and mean > _SLOW_SPOOL:
            found.append(
                Cause(
                    "serious", f"{what} takes {1000 * mean:.0f} ms", "the spool's disk is slow or busy",
                    "look at the disk's use (iostat -x 1); move the spool or what else uses the disk", "none to look",
                )
            )  # fmt: skip
    return found


def _host(after: Metrics) -> list[Cause]:
    found: list[Cause] = []
    limit, usage = number(after, "memory_limit"), number(after, "memory_usage")
    if limit and 100 * usage / limit > _FULL:
        found.append(
            Cause(
                "serious", f"KumoMTA uses {100 * usage / limit:.0f} % of the memory it may",
                "deep queues, or big messages",
                "raise the limit, or take load off", "above the limit it refuses mail",
            )
        )  # fmt: skip
    for name, what in (("disk_free_percent", "space"), ("disk_free_inodes_percent", "inodes")):
        for place, percent in by_label(after, name).items():
            if percent < _LITTLE_SPACE:
                found.append(
                    Cause(
                        "critical" if percent < 10 else "serious", f"{place}: {percent:g} % of {what} is left",
                        "KumoMTA refuses mail below its limit, 10 % unless the policy says otherwise",
                        "free or add space", "never remove anything of a spool by hand",
                    )
                )  # fmt: skip
    return found


def _queues(queues: Queues) -> list[Cause]:
    found: list[Cause] = []
    if queues.depth > DEEP:
        found.append(
            Cause(
                "serious", f"{queues.depth:,} messages wait", "more comes in than goes out",
                "see what is deferred below", "none to look",
            )
        )  # fmt: skip
    for kind, values in (("domain", queues.by_domain), ("tenant", queues.by_tenant)):
        if values and queues.scheduled >= 100 and values[0][1] > _ONE_SIDED * queues.scheduled:
            name, count = values[0]
            found.append(
                Cause(
                    "notable", f"{count:,} of {queues.scheduled:,} waiting messages are of the {kind} {name}",
                    f"this {kind} is slow, refuses, or was sent very much",
                    f"`kcli suspend --{kind} {name}` while it lasts", "a suspended message can still expire",
                )
            )  # fmt: skip
    return found


def _deliveries(rates: Rates, answers: Sequence[tuple[str, int]]) -> list[Cause]:
    found: list[Cause] = []
    tried = rates.delivered + rates.deferred + rates.bounced
    if tried and rates.deferred / tried > _MANY_DEFERRED:
        said = f"; the commonest answer: {answers[0][0]}" if answers else ""
        found.append(
            Cause(
                "serious", f"{100 * rates.deferred / tried:.0f} % of attempts are put off{said}",
                "receiving servers limit or refuse this sender", "slow down by traffic shaping; look at the answers",
                "mail takes longer",
            )
        )  # fmt: skip
    if rates.refused:
        found.append(
            Cause(
                "serious", f"{rates.refused:.1f} connections a second are refused", "KumoMTA sheds load",
                "see the spool, memory and disk above", "senders try again later",
            )
        )  # fmt: skip
    return found
