"""The loop with another node of its name in the vault, and with an object store."""

import uuid
from pathlib import Path

from protected import Protected, is_well
from servers import wait_for

from kumodr.vault.open import Vault, create_vault
from kumodr.vault.points import survey
from kumodr.vault.stream import epochs, extent, trust_of


def test_two_nodes_of_one_name_in_one_vault(tmp_path: Path) -> None:
    """One wins each number; the other notices, and goes on in an epoch of its own. Nothing mixes."""
    made: list[Protected] = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(Protected(folder))
    first, second = made
    try:
        for each in made:
            each.accept(1, 1 + made.index(each))
        second.made.vault = first.made.vault
        second.made.identity = first.made.identity
        second.vault = Vault(second.store, first.made.vault.id, first.made.vault.recipients)
        second.store._store = first.made.vault.store
        second.crash()
        first.store.faults = [None, *["before"] * 10_000]
        first.accept(2, 20)
        first.round(wait=0)
        first.accept(2, 21)
        first.round(wait=0)  # its numbers are not in the vault yet
        second.round()
        second.accept(3, 30)
        second.round()
        assert first.board.now.epoch == second.board.now.epoch == 1
        first.store.faults = []
        wait_for("another epoch", lambda: not first.round() and first.board.now.epoch == 2)
        assert first.board.now.rebase_counts == {"first": 1, "another writer": 1}
        for turn in range(4):
            for each in made:
                each.accept(10 + turn, 100 * made.index(each) + turn)
                each.round()
                each.base()
                each.round()
        first.bases |= second.bases
        for each in made:
            each.bases = {name: base for name, base in first.bases.items() if base.state in each.states.values()}
        assert survey(first.made.vault, {}).problems == ()
        for each in made:
            mine = [
                point for point in survey(first.made.vault, {}).points if point.stream.epoch == each.board.now.epoch
            ]
            assert mine
            assert {point.signed_by for point in mine} == {each.made.key.public}
            listed = epochs(first.made.vault, "primary")[each.board.now.epoch]
            reach, problems = extent(first.made.vault, listed, 1, trust_of(first.made.vault, {}))
            assert problems == ()
            assert reach is not None
            assert reach.last == each.stream._writer.next - 1
        assert {each.board.now.state for each in made} == {"protected"}
    finally:
        for each in made:
            each.close()


def test_an_object_store(tmp_path: Path) -> None:
    """The same through obstore."""
    made = Protected(tmp_path)
    try:
        vault = create_vault(f"memory://{uuid.uuid4()}", list(made.made.vault.recipients), made.clock)
        made.made.vault = vault
        made.store._store = vault.store
        made.vault = Vault(made.store, vault.id, vault.recipients)
        made.crash()
        made.accept(1, 1)
        is_well(made)
        made.store.faults = ["after", "before", "cut"]
        made.accept(2, 2)
        made.round()
        made.stop()
        made.finish_message(1)
        is_well(made)
        assert made.board.now.rebase_counts == {"first": 1}
    finally:
        made.close()
