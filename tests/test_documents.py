"""What the documents name is there."""

import re
from pathlib import Path

from kumodr.spool import vet

REPOSITORY = Path(__file__).resolve().parent.parent


def test_every_test_that_the_proofs_name_is_there() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (REPOSITORY / "docs" / "proofs.md").read_text())
    assert len(named) > 50
    missing = [
        f"{file}::{name}" for file, name in named
        if not re.search(rf"^def {name}\(", (REPOSITORY / "tests" / file).read_text(), re.MULTILINE)
    ]  # fmt: skip
    assert missing == []


def test_every_reason_of_vet_is_listed() -> None:
    text = (REPOSITORY / "docs" / "proofs.md").read_text()
    reasons = {value for name, value in vars(vet).items() if name.isupper() and isinstance(value, str)}
    assert len(reasons) == 17
    assert {reason for reason in reasons if f'"{reason}"' not in text} == set()


def test_every_link_between_documents_leads_somewhere() -> None:
    broken: list[str] = []
    for page in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http://", "https://")):
                continue
            path, _, anchor = target.partition("#")
            found = page if not path else page.parent / path
            if not found.exists():
                broken.append(f"{page.name}: {target}")
            elif anchor:
                heads = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                if anchor not in anchors:
                    broken.append(f"{page.name}: {target}")
    assert broken == []
