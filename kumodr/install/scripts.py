"""The tool tree that written recovery plans name, each script a thin call of kumodr."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from kumodr.install.installation import Installation
from kumodr.install.marked import marked
from kumodr.plan.model import Plan

_SHELL = "#!/bin/sh\n"
_HEAD = 'set -eu\nkumodr() {{ {program} "$@"; }}\nKUMODR_PLAN={plan}\n'

_RESTORE = """if [ "${1:-}" = --test ]; then
    shift
    kumodr verify --plan "$KUMODR_PLAN" --restore "$@"
else
    kumodr recover system --plan "$KUMODR_PLAN" "$@"
fi"""


def scripts(
    folder: Path, plan_file: Path, plan: Plan, program: Sequence[str], components: Sequence[str]
) -> Installation:
    """Given a folder, the plan, the words that run kumodr and the components protected, return the tree to write."""
    data = " ".join(each for each in components if each != "config")
    texts = {
        "backup/backup-config.sh": ("store the configuration now", 'kumodr backup --plan "$KUMODR_PLAN" config "$@"'),
        "backup/backup-data.sh": ("store all data now", f'kumodr backup --plan "$KUMODR_PLAN" {data} "$@"'),
        "backup/verify-backup.sh": ("is what is stored good?", 'kumodr verify --plan "$KUMODR_PLAN" "$@"'),
        "recovery/restore-from-backup.sh": (
            "bring the site back; with --test only prove that it can be brought back, in a scratch folder",
            _RESTORE,
        ),
        "recovery/health-check.sh": ("does the mail service work now?", 'kumodr health --plan "$KUMODR_PLAN" "$@"'),
        "recovery/email-test.sh": (
            "a message through the mail server, followed to its end; give an address, or set KUMODR_TEST_ADDRESS",
            'kumodr mail-test --plan "$KUMODR_PLAN" --to "${1:-${KUMODR_TEST_ADDRESS:?give an address}}"',
        ),
        "testing/test-backup-restore.sh": (
            "restore the newest state into a scratch folder and prove it; the identity comes from KUMODR_IDENTITY_FILE",
            'kumodr verify --plan "$KUMODR_PLAN" --restore "$@"',
        ),
    }
    head = _HEAD.format(program=shlex.join(program), plan=shlex.quote(str(plan_file)))
    files = {folder / name: marked(f"# {text}\n{head}{call}\n", before=_SHELL) for name, (text, call) in texts.items()}
    notes = (f"the site is {plan.site}; the scripts call {shlex.join(program)} with {plan_file}",)
    return Installation(files, (), f"remove {folder}", notes=notes, mode=0o755)
