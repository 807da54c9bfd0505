"""The stand-in's HTTP interface against KumoMTA's OpenAPI file, its list of metrics and captured answers."""

import gzip
import json
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from servers import wait_for
from standin import StandIn, sink, stand_in

UNKNOWN = "1991731ee78611f1aadf660aaeccde59"
MESSAGE = "From: s@load.test\r\nTo: x@d.test\r\nSubject: http\r\nX-Tenant: t0\r\n\r\nbody\r\n"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StandIn]:
    settings = {"max_segment_duration": 0.1, "retry_interval": 30, "seed": 1}
    with sink(tmp_path / "world") as address, stand_in(tmp_path / "a", address, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def openapi(kumomta_directory: Path) -> dict[str, Any]:
    """KumoMTA's own file; where it contradicts KumoMTA's captured answers, these win: one recipient is a bare text."""
    text = (kumomta_directory / "kumod.openapi.json").read_text()
    document = json.loads(text)
    for schema in document["components"]["schemas"].values():
        recipient = schema.get("properties", {}).get("recipient")
        if recipient and recipient.get("type") == "array":
            recipient["type"] = ["array", "string"]
    return document


def checked(openapi: dict[str, Any], method: str, path: str, answer: httpx.Response) -> Any:
    """Hold a JSON answer against the schema that the OpenAPI file gives for it."""
    operation = openapi["paths"][path][method]
    assert answer.status_code == 200, answer.text
    content = operation["responses"]["200"].get("content", {})
    schema = next(iter(content.values()), {}).get("schema")
    document = answer.json()
    if schema:
        # The file gives the element where captured answers are lists of it.
        for each in document if isinstance(document, list) and schema.get("type") != "array" else [document]:
            jsonschema.validate(each, {**schema, "components": openapi["components"]})
    return document


def inject(node: StandIn, *recipients: str, sender: str = "s@load.test") -> None:
    body = {"envelope_sender": sender, "recipients": [{"email": each} for each in recipients], "content": MESSAGE}
    assert node.post("/api/inject/v1", body).json()["success_count"] == len(recipients)


def queued(node: StandIn, queue: str) -> list[dict[str, Any]]:
    answer = node.get("/api/admin/inspect-sched-q/v1", params={"queue_name": queue})
    return answer.json()["messages"] if answer.status_code == 200 else []


def attempts(node: StandIn, queue: str) -> list[int]:
    return [each["message"]["num_attempts"] for each in queued(node, queue)]


def test_every_endpoint_is_in_the_openapi_file_and_answers_as_it_says(node: StandIn, openapi: dict[str, Any]) -> None:
    body = {"envelope_sender": "s@load.test", "recipients": [{"email": "defer@d.test"}], "content": MESSAGE}
    answer = checked(openapi, "post", "/api/inject/v1", node.post("/api/inject/v1", body))
    assert answer == {"success_count": 1, "fail_count": 0, "failed_recipients": [], "errors": []}
    checked(openapi, "get", "/api/machine-info", node.get("/api/machine-info"))
    (message,) = queued(node, "t0@d.test")
    words = {"params": {"id": message["id"], "want_body": "true"}}
    inspected = checked(
        openapi, "get", "/api/admin/inspect-message/v1", node.get("/api/admin/inspect-message/v1", **words)
    )
    assert inspected["message"]["data"].endswith("\r\n\r\nbody\r\n")
    suspend = {"domain": "d.test", "reason": "test", "duration": "10m"}
    rule = checked(openapi, "post", "/api/admin/suspend/v1", node.post("/api/admin/suspend/v1", suspend))
    listed = checked(openapi, "get", "/api/admin/suspend/v1", node.get("/api/admin/suspend/v1"))
    assert [each["id"] for each in listed] == [rule["id"]]
    removed = httpx.request("DELETE", node.http + "/api/admin/suspend/v1", json=rule)
    assert (removed.status_code, removed.text) == (200, f"removed {rule['id']}")
    assert httpx.request("DELETE", node.http + "/api/admin/suspend/v1", json=rule).status_code == 404
    bounce = {"domain": "none.test", "reason": "test", "duration": "10s"}
    checked(openapi, "post", "/api/admin/bounce/v1", node.post("/api/admin/bounce/v1", bounce))
    checked(openapi, "get", "/api/admin/bounce/v1", node.get("/api/admin/bounce/v1"))
    checked(openapi, "post", "/api/admin/rebind/v1", node.post("/api/admin/rebind/v1", {"reason": "x", "data": {}}))
    checked(openapi, "get", "/api/admin/ready-q-states/v1", node.get("/api/admin/ready-q-states/v1"))
    assert node.post("/api/admin/spool-compact/v1", {"name": "meta"}).content == b""


def test_answers_have_the_keys_of_captured_ones(node: StandIn, fixtures_directory: Path) -> None:
    inject(node, "defer@d0.test")
    node.post("/api/admin/suspend/v1", {"domain": "d3.test", "reason": "test", "duration": "10m"})
    node.post("/api/admin/bounce/v1", {"domain": "d4.test", "reason": "test bounce", "duration": "10s"})
    (message,) = queued(node, "t0@d0.test")
    captured = {
        "machine-info.json": node.get("/api/machine-info").json(),
        "suspend-list.json": node.get("/api/admin/suspend/v1").json(),
        "bounce-list.json": node.get("/api/admin/bounce/v1").json(),
        "inspect-message.json": node.get("/api/admin/inspect-message/v1", params={"id": message["id"]}).json(),
        "inspect-sched-q.json": node.get("/api/admin/inspect-sched-q/v1", params={"queue_name": "t0@d0.test"}).json(),
    }
    for name, document in captured.items():
        real = json.loads((fixtures_directory / "api" / name).read_text())
        one, other = (real[0], document[0]) if isinstance(real, list) else (real, document)
        assert list(one) == list(other), name


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (f"/api/admin/inspect-message/v1?id={UNKNOWN}", 500, f"Error: no such key {UNKNOWN}"),
        ("/api/admin/inspect-sched-q/v1?queue_name=none.test", 404, "Error: no such queue none.test"),
    ],
)  # fmt: skip
def test_what_is_not_there(node: StandIn, path: str, status: int, text: str) -> None:
    answer = node.get(path)
    assert (answer.status_code, answer.text) == (status, text)


def test_a_body_that_lacks_something_is_refused_as_kumod_does(node: StandIn) -> None:
    answer = node.post("/api/inject/v1", {"envelope_sender": "nope"})
    assert answer.status_code == 422
    assert "missing field `recipients`" in answer.text


def test_metrics_have_kumods_names_types_and_labels(node: StandIn, kumomta_directory: Path) -> None:
    assert "total_messages_received" not in node.get("/metrics.json").json()
    inject(node, "ok@d.test", "defer@d.test", "refuse@d.test")
    wait_for("deliveries", lambda: "total_messages_fail" in node.get("/metrics.json").json())
    known = {each["name"]: each for each in json.loads((kumomta_directory / "kumod-metrics.json").read_text())}
    document = node.get("/metrics.json").json()
    for name, metric in document.items():
        assert known[name]["metric_type"].lower().startswith(metric["type"]), name
        labels = known[name]["label_names"]
        assert (list(metric["value"]) == labels) if labels else isinstance(metric["value"], (int, float)), name
    text = node.get("/metrics").text
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == set(document)
    assert "x_message_count" in node.get("/metrics", params={"prefix": "x_"}).text


def test_records_have_kumods_fields_in_kumods_order(node: StandIn, fixtures_directory: Path) -> None:
    real = [json.loads(each) for each in (fixtures_directory / "api" / "log-records.jsonl").read_text().splitlines()]
    shapes = {each["type"]: each for each in real}
    with smtplib.SMTP(*node.smtp.split(":")) as client:
        for recipient in ("ok1@d0.test", "defer1@d0.test", "bounce1@d0.test", "defer4@d4.test"):
            client.sendmail("s@load.test", [recipient], MESSAGE)
    wait_for("the attempts", lambda: attempts(node, "t0@d4.test") == [1])
    node.post("/api/admin/bounce/v1", {"domain": "d4.test", "reason": "test bounce"})
    wanted = {"Reception", "Delivery", "TransientFailure", "Bounce", "AdminBounce"}
    wait_for("the records", lambda: wanted <= {each["type"] for each in node.records()})
    for record in node.records():
        shape = shapes[record["type"]]
        assert list(record) == list(shape), record["type"]
        for key, value in shape.items():
            if value is None or (isinstance(value, (dict, str)) and not value):
                continue
            assert type(record[key]) is type(value), (record["type"], key)
        assert (record["response"]["enhanced_code"] is None) == (shape["response"]["enhanced_code"] is None)
    sent = {each["recipient"]: each for each in node.records() if each["type"] != "Reception"}
    assert sent["bounce1@d0.test"]["response"]["command"] == "RCPT TO:<bounce1@d0.test>\r\n"
    assert sent["ok1@d0.test"]["response"]["content"] == "taken"


def test_an_answer_to_smtp_names_the_id_that_is_spooled(node: StandIn) -> None:
    with smtplib.SMTP(*node.smtp.split(":")) as client:
        client.ehlo("load.test")
        client.mail("s@load.test")
        client.rcpt("defer1@d0.test")
        client.rcpt("defer2@d1.test")
        code, text = client.data(MESSAGE)
    assert code == 250
    match = re.fullmatch(rb"OK ids=([0-9a-f]{32}),([0-9a-f]{32})", text)
    assert match, text
    wait_for("the first queue", lambda: len(queued(node, "t0@d0.test")) == 1)
    assert queued(node, "t0@d0.test")[0]["id"] == match[1].decode()


def test_a_transfer_moves_the_mail_and_its_time(tmp_path: Path) -> None:
    with sink(tmp_path / "world") as address:
        settings = {"max_segment_duration": 0.1, "retry_interval": 30}
        with (
            stand_in(tmp_path / "a", address, mac="02:00:00:00:00:01", **settings) as one,
            stand_in(tmp_path / "b", address, mac="02:00:00:00:00:02", **settings) as two,
        ):
            inject(one, "defer7@d7.test")
            wait_for("the queue", lambda: len(queued(one, "t0@d7.test")) == 1)
            (message,) = queued(one, "t0@d7.test")
            assert (
                one.post("/api/admin/xfer/v1", {"target": two.http, "reason": "drain", "domain": "d7.test"}).json()
                == {}
            )
            wait_for("the transfer", lambda: any(each["type"] == "XferOut" for each in one.records()))
            (out,) = [each for each in one.records() if each["type"] == "XferOut"]
            wait_for("its record", lambda: any(each["type"] == "XferIn" for each in two.records()))
            (into,) = [each for each in two.records() if each["type"] == "XferIn"]
            assert out["response"]["content"] == f"new id is {into['id']}"
            assert into["id"] == message["id"][:20] + "020000000002"
            assert into["created_time"] == out["created_time"]
            assert queued(one, "t0@d7.test") == []
            assert len(queued(two, "t0@d7.test")) == 1


def test_a_repeated_injection_by_transfer_queues_twice_and_one_mac_breaks_the_time(tmp_path: Path) -> None:
    with sink(tmp_path / "world") as address, stand_in(tmp_path / "a", address, mac="02:00:00:00:00:01") as node:
        (tmp_path / "world" / "control.json").write_text(json.dumps({"mode": "defer"}))
        head = {"id": "3f48db3fe78911f1a99d660aaeccde59", "sender": "s@load.test", "recipient": ["x@d9.test"]}
        head["meta"] = {"xfer_queue_info": {}}
        payload = gzip.compress(json.dumps(head).encode() + b"\n" + MESSAGE.encode())
        answers = [httpx.post(node.http + "/api/xfer/inject/v1", content=payload).json()["id"] for _ in range(2)]
        assert answers == ["3f48db3fe78911f1a99d020000000001"] * 2
        head["id"] = answers[0]
        again = httpx.post(
            node.http + "/api/xfer/inject/v1", content=json.dumps(head).encode() + b"\n" + MESSAGE.encode()
        ).json()["id"]
        assert again != answers[0]
        without = {**head, "meta": {}}
        refused = httpx.post(node.http + "/api/xfer/inject/v1", content=json.dumps(without).encode() + b"\nx")
        assert refused.status_code == 500
