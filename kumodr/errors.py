"""Every error a user can meet: its name, its exit code and its remedy.

A message is one sentence: what is wrong, where, and what to do. `KumodrError(what)` takes the what
and the where; the class brings the remedy, which a caller may sharpen with `remedy=`.
Exit codes are the contract of design §10.
"""

from collections.abc import Mapping
from typing import ClassVar

DONE = 0
FAILED = 1
USAGE = 2
IMPERFECT = 3
NOTHING = 4
UNSAFE = 5
WRONG_KEY = 6
LOCKED = 7
INTERRUPTED = 130


class KumodrError(Exception):
    """Something the user can act on. Never raised bare: raise one of the named errors below."""

    exit_code: ClassVar[int] = FAILED
    default_remedy: ClassVar[str] = "see the log file for details"

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what.rstrip(".")
        self.remedy = remedy or self.default_remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}."


# --- how it was called


class UsageWrong(KumodrError):
    exit_code = USAGE
    default_remedy = "run the verb with --help for its options"


class PlanMissing(KumodrError):
    exit_code = USAGE
    default_remedy = "name it with --plan FILE, or write one with `kumodr init`"


class PlanInvalid(KumodrError):
    """Raised once with every mistake in `mistakes`, one line each: `line 7: …`."""

    exit_code = USAGE
    default_remedy = "correct the lines named above; `kumodr plan schema` prints what is allowed"

    def __init__(self, what: str, mistakes: tuple[str, ...] = (), *, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.mistakes = mistakes


class ToolMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "install it and run the command again"


class Interrupted(KumodrError):
    exit_code = INTERRUPTED
    default_remedy = "nothing half-written counts; run the same command again"


class AnotherRun(KumodrError):
    exit_code = LOCKED
    default_remedy = "wait for it to end, then run this again"


class RunbookMissing(KumodrError):
    exit_code = USAGE
    default_remedy = "name a runbook file; `kumodr runs sample` prints one"


class RunbookInvalid(PlanInvalid):
    default_remedy = "correct the lines named above; `kumodr runs schema` prints what is allowed"


# --- runs


class NobodyToAsk(KumodrError):
    exit_code = UNSAFE
    default_remedy = "run it at a terminal, or give --yes where every answer is yes"


class RunMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "`kumodr runs list` shows all"


class RunOver(KumodrError):
    exit_code = UNSAFE
    default_remedy = "begin a new run"


class RunChanged(KumodrError):
    exit_code = UNSAFE
    default_remedy = "resume it with the version of kumodr that began it, or give it up and begin a new run"


class RunStopped(KumodrError):
    default_remedy = "`kumodr runs resume` goes on from there"


class StepFailed(KumodrError):
    default_remedy = "see to that, then resume the run"


class StateUnavailable(KumodrError):
    exit_code = NOTHING
    default_remedy = "see that it can be reached and written to; the plan names it in runbooks.state"


# --- vault


class VaultMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "check the address, or make a vault with `kumodr vault init`"


class VaultExists(KumodrError):
    exit_code = UNSAFE
    default_remedy = "use it as it is, or choose another address"


class VaultFormatUnknown(KumodrError):
    default_remedy = "use the kumodr version that wrote it, or a newer one"


class StoreUnavailable(KumodrError):
    default_remedy = "check that the vault is mounted and reachable, then run this again"


class StoreReadOnly(KumodrError):
    default_remedy = "give this host the right to add objects to the vault"


class StoreRefused(KumodrError):
    default_remedy = "check the credentials, the rights that they have there, and this host's clock"


class CredentialsMissing(KumodrError):
    exit_code = USAGE
    default_remedy = "give them by environment variables, or name their file with vault.credentials_file"


class CredentialsOpen(KumodrError):
    exit_code = UNSAFE
    default_remedy = "let only its owner read it (`chmod 600`), and change what others could have read"


class StoreUnconditional(KumodrError):
    exit_code = UNSAFE
    default_remedy = "choose a store with conditional puts (If-None-Match), or a directory"


class ObjectsLocked(KumodrError):
    """Raised after everything else was deleted: `refused` is why, by name, for what the store keeps."""

    default_remedy = "they go with a later `kumodr prune`, when the store's lock on them ends"

    def __init__(self, what: str, refused: Mapping[str, str], *, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.refused = refused


class StoreFull(KumodrError):
    default_remedy = "free or add space at the vault, then run this again; what was stored is reused"


class ObjectMissing(KumodrError):
    default_remedy = "choose another point (`kumodr points`) or bring the object back from a copy of the vault"


class ObjectDamaged(KumodrError):
    default_remedy = "choose another point (`kumodr points`) or bring the object back from a copy of the vault"


class ManifestForged(KumodrError):
    default_remedy = "do not trust this point; look at who can write to the vault, and use an older point"


class ManifestUnsafe(KumodrError):
    exit_code = UNSAFE
    default_remedy = "do not trust this point; look at who can write to the vault"


class ChainBroken(KumodrError):
    default_remedy = "look at who can write to the vault; points before the break are still good"


class PruneUnsafe(KumodrError):
    exit_code = UNSAFE
    default_remedy = "look at it with `kumodr verify`; bring back or move away what is wrong, then run this again"


class PointMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "list what there is with `kumodr points`"


class KeyMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "give the identity file with --identity FILE or KUMODR_IDENTITY_FILE"


class WrongKey(KumodrError):
    exit_code = WRONG_KEY
    default_remedy = "use the identity that `kumodr vault init` printed for this vault"


class RecipientsUnknown(KumodrError):
    exit_code = UNSAFE
    default_remedy = (
        "if this host was rebuilt, say anew whom it seals to with `kumodr vault keys rotate`; otherwise somebody else "
        "wrote it"
    )


class KeyBesideVault(KumodrError):
    exit_code = UNSAFE
    default_remedy = "keep the identity in another place: who gets the vault would get the key with it"


# --- spool, components and protection


class SpoolMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "check the spool paths in kumodr.yaml"


class SpoolUnreadable(KumodrError):
    default_remedy = "give kumodr read access to the spool (it never needs to write there)"


class SpoolChanging(KumodrError):
    default_remedy = "run this again; if it stays, look for something that replaces files in the spool"


class SpoolDamaged(KumodrError):
    default_remedy = "keep this spool as it is and look at it with `kumodr spool vet`"


class MessageMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "list the ids with `kumodr spool list`"


class LogUnreadable(KumodrError):
    default_remedy = "check the log directories in kumodr.yaml"


class ComponentUnavailable(KumodrError):
    default_remedy = "start it or correct its address in kumodr.yaml, then run this again"


class ComponentDamaged(KumodrError):
    default_remedy = "choose another point (`kumodr points`)"


class FileUnreadable(KumodrError):
    default_remedy = "give kumodr read access to it, or take it out of kumodr.yaml"


class DiskFull(KumodrError):
    default_remedy = "free space there, then run this again"


class BacklogFull(KumodrError):
    default_remedy = "make the vault reachable again; until then new mail is not protected"


class SpoolNotFollowed(KumodrError):
    exit_code = USAGE
    default_remedy = "give both halves of the spool the same kind, or take points on a timer with `kumodr backup`"


# --- restore, lab and mail server


class TargetNotEmpty(KumodrError):
    exit_code = UNSAFE
    default_remedy = "give an empty or new directory: kumodr never restores over something"


class TargetIsLive(KumodrError):
    exit_code = UNSAFE
    default_remedy = "restore to a fresh directory, then vet it, then put it in place"


class SpoolNotReconciled(KumodrError):
    exit_code = UNSAFE
    default_remedy = "run `kumodr spool reconcile --spool DIR/spool --apply` on it first"


class StandbyMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "make one with `kumodr standby --to DIR`"


class StandbyDamaged(KumodrError):
    default_remedy = "begin a new standby in an empty directory"


class LabMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "make one with `kumodr lab up`"


class LabFailed(KumodrError):
    default_remedy = "look at the process logs in the lab's run directory"


class MailServerSilent(KumodrError):
    default_remedy = "start it, or correct kumod.http and kumod.smtp in kumodr.yaml"


class MailServerRefuses(KumodrError):
    default_remedy = "look into KumoMTA's own log; this host must be among the listener's trusted_hosts"


# --- runtimes and installation


class RuntimeUnknown(KumodrError):
    exit_code = USAGE
    default_remedy = "set runtime in kumodr.yaml; `kumodr init` on that machine finds it out"


class DockerAbsent(KumodrError):
    exit_code = USAGE
    default_remedy = "install Docker and its compose plugin (or docker-compose), or run kumodr where they are"


class DockerStopped(KumodrError):
    default_remedy = "start it (`systemctl start docker`), or correct DOCKER_HOST"


class DockerForbidden(KumodrError):
    exit_code = USAGE
    default_remedy = "run as root or as a member of the group docker"


class ComposeInvalid(KumodrError):
    exit_code = USAGE
    default_remedy = "correct it; `docker compose config` shows what is wrong"


class ServiceMissing(KumodrError):
    exit_code = USAGE
    default_remedy = "name a service of this site"


class ServiceFailed(KumodrError):
    default_remedy = "read the service's log"


class ServiceRestarts(KumodrError):
    default_remedy = "read its log, correct the cause, then start it again"


class ScaleImpossible(KumodrError):
    exit_code = USAGE
    default_remedy = "give 0 or 1"


class PortTaken(KumodrError):
    default_remedy = "stop what listens there, or publish another port"


class RuntimeSlow(KumodrError):
    default_remedy = "see whether the machine or its container engine hangs, then try again"


class InstallUnsafe(KumodrError):
    exit_code = UNSAFE
    default_remedy = "move it away, or leave that part out: kumodr writes over nothing that is not its own"


class InstallFailed(KumodrError):
    default_remedy = "correct the cause and run the same command again; what is done already is not done twice"


class ImageMissing(KumodrError):
    exit_code = NOTHING
    default_remedy = "build it (`docker build -t kumodr .` where kumodr's source is), or name another with --image"


class NothingInstalled(KumodrError):
    exit_code = NOTHING
    default_remedy = "install it with `kumodr install units` or `kumodr install sidecar`"
