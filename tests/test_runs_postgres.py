"""Several controllers with one Postgres: what one began, another sees, is kept out by, and takes up again."""

import os
import signal
from pathlib import Path

import psycopg
import pytest
from postgres import PASSWORD, postgres_server
from ran import RunSite, says
from servers import wait_for


def test_two_controllers_share_runs_locks_and_what_is_left_of_a_dead_one(tmp_path: Path) -> None:
    with postgres_server(tmp_path) as address:
        secret = tmp_path / "password"
        secret.write_text(PASSWORD + "\n")
        runbooks = f"runbooks: {{state: '{address}', password_file: {secret}}}\n"
        one = RunSite(tmp_path, name="one", runbooks=runbooks)
        two = RunSite(tmp_path, name="two", vault=one.vault, runbooks=runbooks)
        gate = one.folder / "gate"
        os.mkfifo(gate)
        waits = ["sh", "-c", f"echo $$ > {one.folder}/waiting; exec cat {gate}"]
        first = says("first", str(one.folder / "log"))
        file = one.write({"name": "first", "command": first}, {"name": "waits", "command": waits, "repeatable": True})
        other = two.write({"name": "other", "command": says("other")})
        command = one.popen("runs", "start", file)
        wait_for("the first run", lambda: bool(one.lines("waiting")) or command.poll() is not None)
        assert command.poll() is None, command.communicate()
        running = two.document("runs", "list", code=0)["runs"][0]
        assert running["standing"] == "running"
        refused = two.run("runs", "start", other, code=7)
        assert f"{running['run']} on another host" in refused.stderr
        command.kill()
        command.communicate()
        os.kill(int(one.lines("waiting")[0]), signal.SIGKILL)

        def is_free() -> bool:
            return two.document("runs", "list", code=0)["runs"][0]["standing"] == "unfinished"

        wait_for("the server to notice", is_free)
        gate.unlink()
        gate.write_text("open")
        assert two.document("runs", "resume", code=0)["run"] == running["run"]
        assert one.lines("log") == ["first"]
        assert one.document("runs", "show", code=0)["standing"] == "done"
        assert two.document("runs", "start", other, code=0)["standing"] == "done"
        with psycopg.connect(address, password=PASSWORD) as connection:
            pickled = "select count(*) from dbos.operation_outputs where serialization like '%pickle%'"
            assert connection.execute(pickled).fetchone() == (0,)
        secret.write_text("wrong")
        failed = one.run("runs", "list", code=4)
        assert "does not answer" in failed.stderr or "cannot be used" in failed.stderr
        assert "wrong" not in failed.stderr
        secret.unlink()
        assert "password file" in one.run("runs", "list", code=4).stderr


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("postgresql://me:secret@h/d", "holds a password"),
        ("postgresql://me@h/d?password=secret", "holds a password"),
        ("mysql://h/d", "is no address like postgresql://"),
        ("postgresql://h", "is no address like postgresql://"),
        ("postgresql://h:x/d", "is no address like postgresql://"),
    ],
)
def test_an_address_that_is_none_or_holds_a_password_is_a_mistake_of_the_plan(
    value: str, said: str, tmp_path: Path
) -> None:
    site = RunSite(tmp_path, runbooks=f"runbooks:\n  state: {value}\n")
    failed = site.run("runs", "list", code=2)
    assert said in failed.stderr
    assert "line 7: " in failed.stderr
