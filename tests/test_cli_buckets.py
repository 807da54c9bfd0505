"""The whole way through a bucket by the command line: what a person sees, and that no secret is among it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from buckets import KEY, SECRET, credentials, moto
from liar import lying
from test_vault_bucket import versioned

from kumodr import errors
from kumodr.cli.main import main


class Site:
    """A plan with a vault in a bucket, and the command line on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], bucket: str, endpoint: str) -> None:
        self.folder = folder
        self.capsys = capsys
        (folder / "etc").mkdir()
        self.vault = {
            "url": f"s3://{bucket}/mail",
            "endpoint": endpoint,
            "region": "us-east-1",
            "credentials_file": credentials(folder),
            "allow_http": True,
        }
        self.plan = folder / "kumodr.yaml"
        values = {"version": 1, "site": "primary", "vault": self.vault, "state": str(folder / "state")}
        values |= {"components": {"config": {"paths": ["etc"]}}, "retention": {"grace": "1s", "config": {"last": 1}}}
        self.plan.write_text(yaml.safe_dump(values))

    def run(self, *words: str, code: int = errors.DONE) -> str:
        """Run it and return everything that it printed."""
        assert main([*words, "--plan", str(self.plan)]) == code
        shown = self.capsys.readouterr()
        text = shown.out + shown.err
        assert SECRET not in text
        assert KEY not in text
        return text

    def document(self, *words: str, code: int = errors.DONE) -> Any:
        """Run it and return the document that it prints."""
        return json.loads(self.run(*words, "--json", code=code).partition("\n}\n")[0] + "\n}")

    def backup(self, text: str) -> None:
        (self.folder / "etc" / "policy.lua").write_text(text)
        self.run("backup")


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys, versioned(), moto().endpoint)


def test_from_nothing_to_a_second_copy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(site.folder / "identity")
    shown = site.run("vault", "init", "--identity-out", key)
    assert f"made a vault at {site.vault['url']} ({site.vault['endpoint']})" in shown
    site.backup("one")
    site.backup("two")
    assert len(site.document("points")["points"]) == 2
    site.run("verify", "--deep", "--identity", key)
    site.run("restore", "--to", str(site.folder / "back"), "--identity", key)
    (back,) = (site.folder / "back").rglob("policy.lua")
    assert back.read_text() == "two"
    assert site.document("status")["components"][0]["problem"] is None
    info = site.document("vault", "info")
    assert info["bucket"]["versioning"] == "on"
    assert info["conditional_put"] is True
    assert "what is deleted is hidden, and stays stored" in site.run("vault", "info")
    reach = ["--credentials", credentials(site.folder), "--endpoint", moto().endpoint, "--region", "us-east-1"]
    to = f"s3://{moto().bucket()}/copy"
    site.run("vault", "copy", to, *reach, code=errors.USAGE)
    done = site.document("vault", "copy", to, *reach, "--allow-http")
    assert done["points"] == ["primary-1", "primary-2"]
    assert site.document("vault", "copy", to, *reach, "--allow-http")["objects"] == 0
    monkeypatch.setenv("KUMODR_VAULT_CREDENTIALS_FILE", credentials(site.folder))
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto().endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert main(["restore", "--vault", to, "--to", str(site.folder / "again"), "--identity", key]) == errors.DONE
    (back,) = (site.folder / "again").rglob("policy.lua")
    assert back.read_text() == "two"


def test_prune_says_what_a_bucket_keeps(site: Site) -> None:
    with lying(moto().endpoint) as liar:
        site.plan.write_text(site.plan.read_text().replace(moto().endpoint, liar.endpoint))
        site.run("vault", "init", "--identity-out", str(site.folder / "identity"))
        for number in range(3):
            site.backup(str(number))
        assert "NOTE: the bucket keeps versions" in site.run("prune", "--apply")
        site.backup("agrees")
        liar.choose = lambda method, _path: "refused" if method == "DELETE" else None
        site.plan.write_text(site.plan.read_text().replace("grace: 1s", "grace: 0.001s"))
        refused = site.document("prune", "--apply", code=errors.IMPERFECT)
        assert refused["refused_objects"] > 0
        assert refused["refused_why"] == ["AccessDenied until 2030-01-01"]
        assert refused["deleted_stays_stored"] is True
        liar.calm()
        assert site.document("prune", "--apply")["refused_objects"] == 0
        assert site.document("vault", "info")["bucket"]["hidden"] > 0


def test_what_is_wrong_is_one_sentence_with_its_code(site: Site) -> None:
    site.run("vault", "info", code=errors.NOTHING)
    Path(str(site.vault["credentials_file"])).chmod(0o644)
    assert "chmod 600" in site.run("backup", code=errors.UNSAFE)
    Path(str(site.vault["credentials_file"])).chmod(0o600)
    site.plan.write_text(site.plan.read_text().replace("allow_http: true", "allow_http: false"))
    assert "has no TLS" in site.run("points", code=errors.USAGE)
    site.run("vault", "info", "--endpoint", "https://x", code=errors.USAGE)
    site.run("vault", "keys", "--without-conditional-put", code=errors.USAGE)


def test_a_store_without_the_condition_needs_a_word(site: Site) -> None:
    with lying(moto().endpoint) as liar:
        liar.choose = lambda method, _path: "blind" if method == "PUT" else None
        site.plan.write_text(site.plan.read_text().replace(moto().endpoint, liar.endpoint))
        key = str(site.folder / "identity")
        assert "--without-conditional-put" in site.run("vault", "init", "--identity-out", key, code=errors.UNSAFE)
        assert not Path(key).exists()
        assert "ONE WRITER" in site.run("vault", "init", "--identity-out", key, "--without-conditional-put")
        site.backup("one")
        assert "ONE WRITER" in site.run("vault", "info")
        assert "cannot refuse a name" in site.run("check", code=errors.IMPERFECT)
