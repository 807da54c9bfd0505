"""Keys are changed: what is new opens with the new identity alone, what is old with the old one."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from vaults import Bench, bench, capture_of, quiet

from kumodr import errors
from kumodr.source import Held, SourceFile
from kumodr.vault.keys import NodeKey, generate_identity, parse_identities
from kumodr.vault.open import open_vault
from kumodr.vault.recipients import rotate, sealed_to
from kumodr.vault.verify import verify_deep


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    return bench(tmp_path)


def files() -> list[SourceFile]:
    return [SourceFile("file", size=7, content=Held(b"content"))]


def test_new_points_open_with_the_new_identity_and_old_ones_with_the_old(made: Bench) -> None:
    old = made.backup({"config": capture_of(files(), "same")})
    fresh, escrow = generate_identity(), generate_identity()
    rotate(made.vault, made.key, [fresh.recipient, escrow.recipient], made.clock)
    new = made.backup({"config": capture_of(files(), "same")})
    again = made.backup({"config": capture_of(files(), "same")})
    assert again.sections == new.sections
    for identity in (fresh, escrow):
        opens = parse_identities(identity.secret, "test")
        assert verify_deep(made.vault, new, opens, quiet).problems == ()
        with pytest.raises(errors.WrongKey):
            verify_deep(made.vault, old, opens, quiet)
    assert verify_deep(made.vault, old, made.identities, quiet).problems == ()
    with pytest.raises(errors.WrongKey):
        verify_deep(made.vault, new, made.identities, quiet)
    both = parse_identities(f"{made.identity.secret}\n{fresh.secret}", "test")
    assert (
        verify_deep(made.vault, old, both, quiet).problems == verify_deep(made.vault, new, both, quiet).problems == ()
    )


def test_a_node_believes_its_own_key_only(made: Bench, tmp_path: Path) -> None:
    other = NodeKey.load_or_create(tmp_path / "other", "primary")
    rotate(made.vault, other, [generate_identity().recipient], made.clock)
    with pytest.raises(errors.RecipientsUnknown):
        made.backup({"config": capture_of(files())})
    mine = rotate(made.vault, made.key, [made.identity.recipient], made.clock)
    assert mine.generation == 2
    assert made.backup({"config": capture_of(files())}).sequence == 1


@pytest.mark.parametrize("spoil", ["cut", "other vault", "moved"])
def test_what_was_changed_does_not_count(made: Bench, spoil: str) -> None:
    vault = replace(made.vault, id="another") if spoil == "other vault" else made.vault
    rotate(vault, made.key, [generate_identity().recipient], made.clock)
    folder = made.folder / "vault" / "recipients" / "primary"
    path = folder / "00000001.json"
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    if spoil == "moved":
        path.rename(folder / "00000009.json")
    with pytest.raises(errors.RecipientsUnknown):
        sealed_to(made.vault, made.key)


def test_what_is_no_recipient_is_refused(made: Bench) -> None:
    with pytest.raises(errors.UsageWrong):
        rotate(made.vault, made.key, [made.identity.recipient, "age1nonsense"], made.clock)
    assert sealed_to(made.vault, made.key) == made.vault


def test_the_verb_writes_the_new_identity_and_says_what_to_keep(tmp_path: Path) -> None:
    vault, away = tmp_path / "vault" / "v", tmp_path / "away"
    away.mkdir()
    for folder in ("spool/meta", "spool/data", "vault"):
        (tmp_path / folder).mkdir(parents=True)
    plan = tmp_path / "kumodr.yaml"
    plan.write_text(
        f"version: 1\nsite: primary\nvault: {{url: {vault}}}\nstate: state\n"
        "components: {spool: {meta: spool/meta, data: spool/data}}\n"
    )

    def run(*words: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "kumodr", *words, "--plan", str(plan), "--json"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    first = run("vault", "init", "--identity-out", str(away / "one.txt"))
    second = run("vault", "keys", "rotate", "--identity-out", str(away / "two.txt"))
    assert second["generation"] == 1
    assert second["recipients"] != first["recipients"]
    assert (away / "two.txt").stat().st_mode & 0o777 == 0o600
    assert str(second["recipients"][0]) in (away / "two.txt").read_text()  # type: ignore[index]
    assert open_vault(str(vault)).generation == 0
