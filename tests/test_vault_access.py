"""How object stores are reached: settings, credentials that stay where they are, and what is said where it fails."""

import os
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from buckets import KEY, SECRET, moto
from liar import lying

from kumodr import errors
from kumodr.plan.model import VaultPlan
from kumodr.vault.open import open_vault
from kumodr.vault.patience import Patience
from kumodr.vault.providers import open_object_store

NOW = Patience(tries=0, first=0.001, longest=0.001, total=1.0)
SECRETS = ("AWS", "AZURE", "GOOGLE", "KUMODR")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(SECRETS):
            monkeypatch.delenv(name)


def private(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def said(place: VaultPlan) -> str:
    """Return the one sentence that comes of opening a vault there."""
    with pytest.raises(errors.KumodrError) as caught:
        open_object_store(place, NOW).get("x", 10)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_the_environment_opens_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = moto()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    place = VaultPlan(f"s3://{server.bucket()}/mail")
    with pytest.raises(errors.UsageWrong, match="no TLS"):
        open_object_store(place)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    store = open_object_store(place)
    assert store.put_if_absent("a", [b"x"])
    assert store.address == f"{place.url} ({server.endpoint})"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(errors.UsageWrong, match="AWS_ENDPOINT_URL_S3"):
        open_object_store(replace(place, endpoint=server.endpoint))


def test_a_file_wins_over_the_environment_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    with lying(moto().endpoint) as liar:
        place = moto().place(tmp_path, endpoint=liar.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-environment")
        liar.watch = lambda headers: heads.append(str(headers))
        open_object_store(place).put_if_absent("a", [b"x"])
    assert KEY in heads[0]
    assert "of-the-environment" not in heads[0]


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
def test_a_credentials_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    place = moto().place(tmp_path)
    (tmp_path / "credentials").chmod(mode)
    with pytest.raises(errors.CredentialsOpen, match="chmod 600") as caught:
        open_object_store(place)
    assert caught.value.exit_code == errors.UNSAFE
    (tmp_path / "credentials").chmod(0o640)
    open_object_store(place)


@pytest.mark.parametrize("text", ["", "nothing", "[default]\naws_access_key_id = x\n", "[a]\nb = c\n[d]\ne = f\n"])
def test_a_credentials_file_without_them_is_said(tmp_path: Path, text: str) -> None:
    place = VaultPlan("s3://bucket/x", credentials_file=private(tmp_path / "file", text), region="us-east-1")
    assert str(tmp_path / "file") in said(place)


def test_a_credentials_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "cannot be read" in said(VaultPlan("s3://bucket/x", credentials_file=str(tmp_path / "none")))
    (tmp_path / "binary").touch(mode=0o600)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "is no text" in said(VaultPlan("s3://bucket/x", credentials_file=str(tmp_path / "binary")))


def test_what_fails_is_said_in_one_sentence(tmp_path: Path) -> None:
    place = moto().place(tmp_path)
    assert "no bucket" in said(replace(place, url="s3://no-such-bucket/x"))
    assert "cannot be reached" in said(replace(place, endpoint="http://127.0.0.1:1"))
    assert "no address of a server" in said(replace(place, endpoint="127.0.0.1:9000"))
    assert "no address of a server" in said(replace(place, endpoint=f"https://{KEY}:{SECRET}@127.0.0.1:9000"))
    with lying(moto().endpoint) as liar:
        place = replace(place, endpoint=liar.endpoint)
        liar.choose = lambda _method, _path: "refused"
        assert "refuses x (AccessDenied)" in said(place)
        with pytest.raises(errors.StoreReadOnly):
            open_object_store(place).put_if_absent("x", [b"x"])
        liar.choose = lambda _method, _path: "busy"
        assert "SlowDown" in said(place)
    with pytest.raises(errors.VaultMissing, match="no vault"):
        open_vault(moto().place(tmp_path))


def test_the_bucket_may_be_in_the_hosts_name(tmp_path: Path) -> None:
    paths: list[str] = []
    with lying(moto().endpoint) as liar:
        liar.choose = lambda _method, path: paths.append(path)
        place = moto().place(tmp_path, "bucket", endpoint=liar.endpoint)
        for addressing in ("path", "virtual"):
            with pytest.raises(errors.KumodrError):
                open_object_store(replace(place, addressing=addressing), NOW).get("x", 10)
    assert paths == ["/bucket/mail/one/x", "/mail/one/x"]


def test_a_certificate_counts_by_the_authority_that_is_named(tmp_path: Path) -> None:
    authority, server = certificates(tmp_path)
    with lying(moto().endpoint, server) as liar:
        place = replace(moto().place(tmp_path), endpoint=liar.endpoint, allow_http=False)
        assert "certificate" in said(place)
        store = open_object_store(replace(place, certificate_file=str(authority)), NOW)
        assert store.put_if_absent("a", [b"x"])
    assert "certificate file" in said(replace(place, certificate_file=str(tmp_path / "none")))


def certificates(folder: Path) -> tuple[Path, Path]:
    """Make a private authority and a server's certificate by it, with its key; return their files."""
    run = partial(subprocess.run, check=True, capture_output=True, cwd=folder)
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run([*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.pem"])
    run([*new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.request"])
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    sign = ["openssl", "x509", "-req", "-days", "2", "-in", "server.request", "-CA", "authority.pem"]
    run([*sign, "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "names", "-out", "server.pem"])
    both = folder / "both.pem"
    both.write_text((folder / "server.pem").read_text() + (folder / "server.key").read_text())
    return folder / "authority.pem", both


def test_google_is_opened_by_its_own_file(tmp_path: Path) -> None:
    assert "service account" in said(VaultPlan("gs://bucket/x", credentials_file=private(tmp_path / "file", "{}")))
    key = '{"gcs_base_url": "http://127.0.0.1:1", "disable_oauth": true, "client_email": "", "private_key": "", '
    key += '"private_key_id": ""}'
    place = VaultPlan("gs://bucket/x", credentials_file=private(tmp_path / "key", key), allow_http=True)
    assert "the vault at gs://bucket/x fails with x: it cannot be reached" in said(place)


def test_azure_is_opened_by_a_file_of_its_names(tmp_path: Path) -> None:
    file = private(tmp_path / "file", "[default]\naccount_name = mail\naccount_key = c2VjcmV0\n")
    place = VaultPlan("az://container/x", credentials_file=file, endpoint="http://127.0.0.1:1", allow_http=True)
    assert "az://container/x (http://127.0.0.1:1) fails with x: it cannot be reached" in said(place)
    assert "account_name" in said(VaultPlan("az://container/x"))
    assert "none of account_name" in said(
        VaultPlan("az://container/x", credentials_file=private(tmp_path / "other", "[default]\na = b\n"))
    )


def test_a_slow_store_is_given_up_in_time(tmp_path: Path) -> None:
    with lying(moto().endpoint) as liar:
        liar.choose = lambda _method, _path: "hang"
        place = replace(moto().place(tmp_path), endpoint=liar.endpoint, timeout=0.3)
        assert "did not answer in time" in said(place)


def test_a_key_is_never_printed() -> None:
    from kumodr.vault.access import Keys

    assert SECRET not in repr(Keys(KEY, SECRET, None))
