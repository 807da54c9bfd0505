"""Buckets that keep versions, or lock: what a delete means there, said, and fatal to no `kumodr prune`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from buckets import KEY, SECRET, localbucket, moto
from liar import Liar, lying
from vaults import Bench, bench, capture_of, quiet

from kumodr import errors
from kumodr.plan.model import KeepPlan, RetentionPlan, VaultPlan
from kumodr.source import Held, SourceFile
from kumodr.vault.access import Keys
from kumodr.vault.awssign import signed
from kumodr.vault.bucket import bucket_of
from kumodr.vault.open import Vault, create_vault
from kumodr.vault.points import survey
from kumodr.vault.prune import apply_prune, plan_prune
from kumodr.vault.store import open_store
from kumodr.vault.verify import verify_deep

LAST = RetentionPlan(grace=1.0, config=KeepPlan(last=1))
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def versioned(**lock: Any) -> str:
    """Make a bucket that keeps versions, with a lock where one is given; return its name."""
    client = moto().client()
    name = moto().bucket(**({"ObjectLockEnabledForBucket": True} if lock else {}))
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if lock:
        client.put_object_lock_configuration(
            Bucket=name,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": lock}},
        )
    return name


@pytest.mark.parametrize("token", [None, "a/token=="])
@pytest.mark.parametrize("query", [{"versioning": ""}, {"versions": "", "prefix": "a b/ü+", "key-marker": "x/y~z"}])
def test_a_question_is_signed_as_amazons_own_library_does(token: str | None, query: dict[str, str]) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url, headers = signed("https://s3.example.org/bucket-one", query, "eu-west-1", Keys(KEY, SECRET, token), NOW)
    request: Any = AWSRequest("GET", "https://s3.example.org/bucket-one", params=query)
    request.context["timestamp"] = request.context["signing"] = headers["x-amz-date"]
    signer: Any = S3SigV4Auth(Credentials(KEY, SECRET, token), "s3", "eu-west-1")
    for name in ("host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"):
        if name in headers:
            request.headers[name] = headers[name]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert headers["authorization"].endswith(f"Signature={signer.signature(text, request)}")
    assert urlsplit(url).netloc == "s3.example.org"


def test_what_is_deleted_in_a_versioned_bucket_is_still_there(tmp_path: Path) -> None:
    place = moto().place(tmp_path, versioned())
    store = open_store(place)
    for number in range(3):
        store.put_if_absent(f"a/{number}", [bytes(1000)])
    found = bucket_of(place, count=True)
    assert found is not None
    assert (found.versioning, found.lock, found.hidden, found.hidden_bytes) == ("on", None, 0, 0)
    store.delete(["a/0", "a/1"])
    assert sorted(store.list("")) == ["a/2"]
    assert store.put_if_absent("a/0", [bytes(10)])
    open_store(moto().place(tmp_path, place.url.split("/")[2])).delete(["a/2"])
    found = bucket_of(place, count=True)
    assert found is not None
    assert (found.hidden, found.hidden_bytes) == (3, 3000)
    assert "hidden, and stays stored" in found.sentence


def test_a_lock_is_named(tmp_path: Path) -> None:
    place = moto().place(tmp_path, versioned(Mode="COMPLIANCE", Days=30))
    store = open_store(place)
    store.put_if_absent("a", [b"x"])
    store.delete(["a"])
    found = bucket_of(place, count=True)
    assert found is not None
    assert (found.versioning, found.lock, found.hidden) == ("on", "compliance for 30 days", 1)
    assert "under object lock: compliance for 30 days" in found.sentence


def test_what_a_bucket_does_not_tell_is_not_claimed(tmp_path: Path) -> None:
    plain = bucket_of(moto().place(tmp_path), count=True)
    assert plain is not None
    assert (plain.versioning, plain.hidden, plain.keeps_deleted) == ("off", 0, False)
    assert bucket_of(VaultPlan(str(tmp_path))) is None
    for place in (
        VaultPlan("gs://bucket/x"),
        VaultPlan("az://container/x"),
        moto().place(tmp_path, endpoint="http://127.0.0.1:1"),
        replace(moto().place(tmp_path), url="s3://no-such-bucket/x"),
    ):
        found = bucket_of(place, count=True)
        assert found is not None
        assert (found.versioning, found.keeps_deleted) == (None, None)
        assert "is not known: " in found.sentence
    with localbucket(tmp_path / "objects") as second:
        found = bucket_of(second.place(tmp_path))
        assert found is not None
        assert found.versioning is None


@dataclass
class Locked:
    """A vault of three points in a bucket, through a proxy that can refuse deletes."""

    made: Bench
    liar: Liar
    place: VaultPlan


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Locked]:
    made = bench(tmp_path)
    with lying(moto().endpoint) as liar:
        place = replace(moto().place(tmp_path), endpoint=liar.endpoint)
        vault: Vault = create_vault(place, made.vault.recipients, made.clock)
        made = replace(made, vault=vault)
        for number in range(3):
            made.backup({"config": capture_of([SourceFile("file", size=2, content=Held(b"%02d" % number))])})
        yield Locked(made, liar, place)


def pruned(locked: Locked, days: int) -> dict[str, str]:
    made = locked.made
    plan = plan_prune(made.vault, LAST, datetime.now(UTC) + timedelta(days=days))
    return apply_prune(made.vault, plan, made.key, made.clock)


@pytest.mark.parametrize("what", ["/points/", "/objects/", ""])
def test_what_a_lock_keeps_is_said_and_goes_when_it_ends(locked: Locked, what: str) -> None:
    made = locked.made
    assert pruned(locked, 1) == {}
    made.backup({"config": capture_of([SourceFile("file", size=1, content=Held(b"x"))])})  # it agrees to the mark
    locked.liar.choose = lambda method, path: "refused" if method == "DELETE" and what in path else None
    refused = pruned(locked, 2)
    assert refused
    assert all(why == "AccessDenied until 2030-01-01" for why in refused.values())
    found = survey(made.vault, {})
    assert found.problems == ()
    for point in found.points:
        assert verify_deep(made.vault, point, made.identities, quiet).problems == ()
    assert (len(found.points) > 2) == (what != "/objects/")
    locked.liar.calm()
    assert pruned(locked, 3) == {}
    found = survey(made.vault, {})
    assert found.problems == ()
    assert len(found.points) <= 2
    for point in found.points:
        assert verify_deep(made.vault, point, made.identities, quiet).problems == ()


def test_who_may_not_delete_at_all_hears_it_too(locked: Locked) -> None:
    locked.liar.choose = lambda method, _path: "refused" if method == "DELETE" else None
    with pytest.raises(errors.ObjectsLocked, match="2 objects") as caught:
        locked.made.vault.store.delete(["points/primary/00000001.json", "points/primary/00000002.json"])
    assert len(caught.value.refused) == 2
    assert locked.made.vault.store.size("points/primary/00000001.json") is not None
