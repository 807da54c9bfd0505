"""What KumoMTA's policy says about what has to be protected, read as text (facts §1, §3), never run.

What the text alone does not decide is not guessed: it is in `unclear`, with file and line.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kumodr.discover.lua.follow import Follower
from kumodr.discover.lua.parse import parse
from kumodr.discover.lua.tokens import NotLua
from kumodr.discover.lua.tree import Block
from kumodr.discover.lua.values import Closure, Library, Said, Table, Unknown, Value
from kumodr.discover.textfile import read_text, there

_MOST_FILES = 40
_SEARCHED = ("/opt/kumomta/etc/policy/{0}.lua", "/opt/kumomta/etc/policy/{0}/init.lua")
"""Where KumoMTA looks for what a policy requires, without its own share folder."""
_ITS_OWN = re.compile(r"kumo(\.|$)|redis$|policy-extras\.")
_A_FILE = re.compile(r"/[^\0\n]*\.(?:toml|json|ya?ml|lua|key|pem|crt|cer|p12|pfx)")
_KEY_FIELDS = ("key", "tls_private_key", "tls_certificate", "hostkey")
_DEFAULT_KEYS = "/opt/kumomta/etc/dkim"


@dataclass(frozen=True)
class SpoolSaid:
    """A spool as the policy defines it: its directory, its kind in kumodr's words, and where that is said."""

    path: str
    kind: str
    place: str


@dataclass
class PolicySaid:
    """What the policy says. Paths are as the mail server sees them; `files` are those that were read, on this host."""

    files: list[Path] = field(default_factory=list[Path])
    spools: dict[str, SpoolSaid] = field(default_factory=dict[str, SpoolSaid])
    logs: list[str] = field(default_factory=list[str])
    unsegmented: list[str] = field(default_factory=list[str])
    deferred: list[str] = field(default_factory=list[str])
    http: list[str] = field(default_factory=list[str])
    redis: list[str] = field(default_factory=list[str])
    named: list[str] = field(default_factory=list[str])
    unclear: list[str] = field(default_factory=list[str])


def read_policy(policy: str, locate: Callable[[str], Path | None], environment: Mapping[str, str] | None) -> PolicySaid:
    """Given the policy's path as the mail server sees it, what finds such a path on this host, and the mail server's
    environment (None: not known), return what the policy says.
    """
    said = PolicySaid()
    folder = posixpath.dirname(policy)

    def load(path: str, missing: str) -> tuple[str, Block] | None:
        place = locate(path)
        if place is None:
            said.unclear.append(missing)
            return None
        text, reason = read_text(place)
        if reason is None and len(said.files) >= _MOST_FILES:
            reason = f"more than {_MOST_FILES} files are not read"
        if reason is not None:
            said.unclear.append(f"{path} is not read: {reason}")
            return None
        said.files.append(place)
        try:
            return posixpath.basename(path), parse(text)
        except NotLua as error:
            said.unclear.append(f"{path} is not understood: {error}")
            return None

    def required(name: str) -> tuple[str, Block] | None:
        if _ITS_OWN.match(name):
            return None
        inside = name.replace(".", "/")
        places = [f"{folder}/{inside}.lua", *(each.format(inside) for each in _SEARCHED)]
        found = next((each for each in places if there(locate(each))), None)
        missing = f"{name}, which the policy requires, is not beside it: what it says is not known"
        if found is None:
            said.unclear.append(missing)
            return None
        return load(found, missing)

    first = load(policy, f"the policy {policy} is not on this host: it cannot be read")
    if first is not None:
        follower = Follower(environment, required)
        try:
            follower.follow(*first)
        except NotLua as error:
            said.unclear.append(f"{policy} is not understood: {error}")
        for each in follower.said:
            _take(each, said)
    return said


def _take(call: Said, said: PolicySaid) -> None:
    place = f"{call.file} line {call.line}"
    given = call.arguments[0] if call.arguments else None
    settings = given if isinstance(given, Table) else Table(known=False)
    match call.path:
        case "kumo.define_spool":
            _spool(settings, call.certain, place, said)
        case "kumo.configure_local_logs":
            _logs(settings, call.certain, place, said)
        case "kumo.aaa.configure_acct_log":
            _directory(settings.get("log_dir"), "the access log's log_dir", place, said)
        case "kumo.start_http_listener":
            if settings.known and settings.get("use_tls"):
                said.unclear.append(f"{place}: this HTTP listener has TLS, by which kumodr does not ask it")
            else:
                _text(settings.get("listen"), "the address of the HTTP listener", place, said.http, said)
        case "kumo.configure_redis_throttles" | "redis.open":
            node = settings.get("node")
            for each in node.items if isinstance(node, Table) and node.known else [node]:
                _text(each, "the address of Redis", place, said.redis, said)
        case "dofile" | "loadfile":
            said.unclear.append(f"{place}: what {call.path} brings in is not read")
        case _:
            pass
    if settings.known and settings.get("deferred_spool") not in (None, False):
        said.deferred.append(f"{call.path} ({place})")
    if call.path.startswith("policy-extras.dkim_sign:"):
        _add(said.named, _DEFAULT_KEYS)
    if call.path.startswith(("kumo.", "policy-extras.")):
        for each in call.arguments:
            for path in _files(each, call.path, place, said):
                _add(said.named, path)


def _spool(settings: Table, certain: bool, place: str, said: PolicySaid) -> None:
    name, path, kind = settings.get("name"), settings.get("path"), settings.get("kind")
    word = "localdisk" if kind is None else kind.lower() if isinstance(kind, str) else ""
    if not isinstance(name, str) or not isinstance(path, str) or word not in ("localdisk", "rocksdb"):
        said.unclear.append(f"{place}: name, path or kind of a spool do not follow from the text")
    elif not certain:
        said.unclear.append(f"{place}: whether the spool {name} is at {path} depends on what the text does not decide")
    elif name in said.spools and said.spools[name].path != posixpath.normpath(path):
        said.unclear.append(f"{place}: the spool {name} is defined again, at another path; the first is used")
    else:
        said.spools.setdefault(name, SpoolSaid(posixpath.normpath(path), word, place))


def _logs(settings: Table, certain: bool, place: str, said: PolicySaid) -> None:
    _directory(settings.get("log_dir"), "log_dir", place, said)
    if not certain:
        said.unclear.append(f"{place}: whether these logs are written depends on what the text does not decide")
    if settings.known and settings.get("max_segment_duration") is None:
        said.unsegmented.append(place)
    records = settings.get("per_record")
    if isinstance(records, Table) and records.known:
        for kind, each in records.fields.items():
            one = each if isinstance(each, Table) else Table(known=False)
            directory = one.get("log_dir")
            if directory is not None:
                _directory(directory, f"log_dir of {kind}", place, said)
            if one.known and one.get("enable") is False:
                said.unclear.append(f"{place}: {kind} is not logged, so what it would say is not known after a loss")
            if one.known and one.get("template") is not None:
                said.unclear.append(f"{place}: {kind} has a template of its own, so its log is stored but not read")
    elif records is not None:
        said.unclear.append(f"{place}: per_record does not follow from the text")


def _directory(value: Value, what: str, place: str, said: PolicySaid) -> None:
    if isinstance(value, str) and value:
        _add(said.logs, posixpath.normpath(value))
    else:
        said.unclear.append(f"{place}: {what} does not follow from the text")


def _text(value: Value, what: str, place: str, found: list[str], said: PolicySaid) -> None:
    if isinstance(value, str):
        _add(found, value)
    else:
        said.unclear.append(f"{place}: {what} does not follow from the text")


def _files(value: Value, path: str, place: str, said: PolicySaid, key: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the files that the settings of a call name, and the folders of keys whose names are made when used."""
    if isinstance(value, str) and (_A_FILE.fullmatch(value) or (key in _KEY_FIELDS and value.startswith("/"))):
        yield posixpath.normpath(value)
    elif isinstance(value, Unknown) and key in _KEY_FIELDS:
        folder = value.prefix.rpartition("/")[0]
        if folder.startswith("/"):
            yield posixpath.normpath(folder)
        else:
            said.unclear.append(f"{place}: where {path} has its {key} from does not follow from the text")
    elif isinstance(value, Table) and depth < 8:
        if key in _KEY_FIELDS and any(name.startswith("vault_") for name in value.fields):
            said.unclear.append(f"{place}: the {key} of {path} is kept in a Vault server, which is not covered")
        for each in value.items:
            yield from _files(each, path, place, said, "", depth + 1)
        for name, each in value.fields.items():
            yield from _files(each, path, place, said, name, depth + 1)
    elif isinstance(value, (Closure, Library)):
        return


def _add(found: list[str], value: str) -> None:
    if value not in found:
        found.append(value)
