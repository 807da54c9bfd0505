"""Images: named by digest, archived layer by layer, proved without Docker, given back to Docker without a network."""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from captured import written_out
from compose_site import IMAGE, compose_project, make_image, needs_docker
from vaults import bench, quiet

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.components.images import ImagesComponent
from kumodr.components.registry import vetter
from kumodr.images.archive import CONFIGS, LAYERS, LIST, read_archive
from kumodr.images.load import load, plan_loading
from kumodr.plan.model import Components, ImagesPlan, Plan, RuntimePlan, VaultPlan
from kumodr.runtimes.commands import Answer
from kumodr.vault.facts import Section
from kumodr.vault.fetch import fetch

COMPOSE = f"""version: "3.9"
services:
  kumod: {{build: kumod, command: ["/bin/busybox", "sleep", "60"], networks: [inside]}}
  redis: {{image: "${{COMPOSE_PROJECT_NAME}}-redis:7", command: ["/bin/busybox", "sleep", "60"], networks: [inside]}}
  plain: {{image: "{IMAGE}", command: ["/bin/busybox", "sleep", "60"], networks: [inside]}}
  absent: {{image: "kumodr-no-such-image:1", networks: [inside]}}
networks: {{inside: {{internal: true}}}}
"""


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def component(directory: Path, *, archives: bool = True) -> ImagesComponent:
    runtime = RuntimePlan("compose", directory=str(directory), kumod="kumod")
    parts = Components(images=ImagesPlan(archives))
    return ImagesComponent(Plan(1, "site", VaultPlan("/v"), str(directory), parts, runtime=runtime), system_clock)


def build(directory: Path, tag: str, content: bytes) -> None:
    """Build an image on top of the base, with one file more."""
    directory.mkdir(exist_ok=True)
    (directory / "content").write_bytes(content)
    (directory / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY content /content\n")
    docker("build", "-q", "-t", tag, str(directory))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A project whose images share a layer, and the names of those that were built."""
    make_image(tmp_path)
    tags: list[str] = []
    try:
        with compose_project(tmp_path, COMPOSE) as name:
            tags += (f"{name}_kumod:latest", f"{name}-redis:7")
            for tag in tags:
                build(tmp_path / tag.partition(":")[0][-5:], tag, tag.encode() * 100_000)
            yield tmp_path, name
    finally:
        # only when no container of the project holds them any more
        subprocess.run(["docker", "rmi", *tags], capture_output=True)


@needs_docker
def test_images_come_back_without_a_network_and_a_layer_is_stored_once(
    project: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory, name = project
    subprocess.run(["docker-compose", "up", "-d", "kumod"], cwd=directory, check=True, capture_output=True)
    made, images = bench(tmp_path_factory.mktemp("bench")), component(directory)
    ids = {tag: docker("image", "inspect", "-f", "{{.Id}}", tag) for tag in (f"{name}_kumod:latest", f"{name}-redis:7")}

    def backup() -> Section:
        with images.capture() as capture:
            (section,) = made.backup({"images": capture}).sections
            return section

    section = backup()
    assert section.facts == {"services": 4, "images": 3, "archived": 3, "layers": 3, "missing": 1}
    before = made.objects
    assert backup() == section
    assert made.objects == before
    build(directory / "redis", f"{name}-redis:7", b"another" * 300_000)
    docker("rmi", ids[f"{name}-redis:7"])
    section = backup()
    added = set(made.objects) - set(before)
    assert 0 < len(added) <= 4, "the layer that changed, the pack of small files, the index"

    restored = tmp_path_factory.mktemp("restored") / "images"
    fetch(made.vault, section, made.identities, restored, quiet)
    verdict = vetter("images", system_clock)(restored)
    assert verdict.problem is None
    assert verdict.facts == {"services": 4, "archived": 3, "layers": 3}
    assert verdict.warnings == (
        "service absent: its image kumodr-no-such-image:1 was not on the host and is not stored",
    )
    redis = docker("image", "inspect", "-f", "{{.Id}}", f"{name}-redis:7")
    assert all(each.action == "nothing" for each in plan_loading(restored))

    subprocess.run(["docker-compose", "rm", "-fsv"], cwd=directory, check=True, capture_output=True)
    docker("rmi", f"{name}_kumod:latest", redis)
    docker("tag", IMAGE, f"{name}-redis:7")
    base = docker("image", "inspect", "-f", "{{.Id}}", IMAGE)
    planned = {each.image.tags[0]: each for each in plan_loading(restored)}
    assert planned[f"{name}_kumod:latest"].action == planned[f"{name}-redis:7"].action == "load"
    assert planned[f"{name}-redis:7"].moves == ((f"{name}-redis:7", base),)
    words = [sys.executable, "-m", "kumodr", "images", "load", str(restored.parent), "--json"]
    shown = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    assert (
        not shown["applied"] and subprocess.run(["docker", "image", "inspect", ids[f"{name}_kumod:latest"]]).returncode
    )
    done = subprocess.run([*words, "--apply"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert docker("image", "inspect", "-f", "{{.Id}}", f"{name}_kumod:latest") == ids[f"{name}_kumod:latest"]
    assert docker("image", "inspect", "-f", "{{.Id}}", f"{name}-redis:7") == redis
    assert all(each.action == "nothing" for each in plan_loading(restored))
    up = ["docker-compose", "up", "-d", "--no-build", "redis"]
    subprocess.run(up, cwd=directory, check=True, capture_output=True)


@needs_docker
def test_without_archives_the_digests_are_stored(project: tuple[Path, str], tmp_path: Path) -> None:
    directory, name = project
    images = component(directory, archives=False)
    facts = written_out(images, tmp_path / "restored")
    assert facts.clear == {"services": 4, "images": 3, "archived": 0, "layers": 0, "missing": 1}
    assert facts.sealed == {"missing": ["absent: kumodr-no-such-image:1"]}
    listed = {each["service"]: each for each in json.loads((tmp_path / "restored" / LIST).read_text())["services"]}
    assert listed["redis"]["name"] == f"{name}-redis:7"
    assert listed["redis"]["id"] == docker("image", "inspect", "-f", "{{.Id}}", f"{name}-redis:7")
    assert vetter("images", system_clock)(tmp_path / "restored").problem is None
    with pytest.raises(errors.ComponentUnavailable, match="holds the names of images"):
        plan_loading(tmp_path / "restored")
    warned = [each.text for each in images.health() if each.level == "warning"]
    assert any("kumodr-no-such-image" in each for each in warned)
    assert any(f"{name}-redis:7 of service redis is in no registry" in each for each in warned)


def test_a_runtime_that_is_not_there_costs_only_the_images(tmp_path: Path) -> None:
    plan = Plan(1, "site", VaultPlan("/v"), "/s", Components(images=ImagesPlan()))
    with pytest.raises(errors.ComponentUnavailable, match="images: the plan does not say"):
        written_out(ImagesComponent(plan, system_clock), tmp_path)
    assert ImagesComponent(plan, system_clock).health()[0].level == "bad"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def saved(path: Path, layers: list[bytes], diffs: list[str]) -> str:
    """Write what Docker 25 does: blobs named by content, layers as they are, the first one again by a link; return the
    config's digest.
    """
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in diffs]}}).encode()
    names = [f"blobs/sha256/{sha256(layer)}" for layer in layers]
    entry = {"Config": f"blobs/sha256/{sha256(config)}", "RepoTags": ["a:1"], "Layers": [*names, "again/layer.tar"]}
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("again/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{names[0]}"
        tar.addfile(link)
        parts = [*zip(names, layers, strict=True), (entry["Config"], config)]
        for name, data in [*parts, ("manifest.json", json.dumps([entry]).encode())]:
            member = tarfile.TarInfo(str(name))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return sha256(config)


def written(path: Path, folder: Path) -> dict[str, str | list[str]]:
    """Take an archive apart into a folder, as the component does, and list it."""
    (folder / LAYERS).mkdir(parents=True)
    (folder / CONFIGS).mkdir()
    with open(path, "rb") as file:
        archive = read_archive(file)
        (folder / CONFIGS / f"{archive.config}.json").write_bytes(archive.config_bytes)
        for digest, piece in archive.layers:
            (folder / LAYERS / digest).write_bytes(piece.read(0, piece.size))
    entry: dict[str, str | list[str]] = {"id": f"sha256:{archive.config}", "tags": ["a:1"], "config": archive.config}
    entry["layers"] = [digest for digest, _ in archive.layers]
    (folder / LIST).write_text(json.dumps({"services": [], "archives": [entry]}))
    return entry


def test_compressed_layers_and_links_of_newer_dockers_are_proved_too(tmp_path: Path) -> None:
    import zstandard

    plain = [b"one" * 1000, b"two" * 1000, b"three" * 1000]
    diffs = [sha256(each) for each in plain]
    layers = [plain[0], gzip.compress(plain[1]), zstandard.ZstdCompressor().compress(plain[2])]
    config = saved(tmp_path / "saved.tar", layers, [*diffs, diffs[0]])
    entry = written(tmp_path / "saved.tar", tmp_path / "images")
    assert entry["config"] == config
    assert vetter("images", system_clock)(tmp_path / "images").facts == {"services": 0, "archived": 1, "layers": 3}
    assert vetter("images", system_clock)(tmp_path / "images").problem is None
    for layer in layers:
        path = tmp_path / "images" / LAYERS / sha256(layer)
        whole = path.read_bytes()
        for harm in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], b""):
            path.write_bytes(harm)
            assert "is damaged" in str(vetter("images", system_clock)(tmp_path / "images").problem)
        path.unlink()
        assert "is missing" in str(vetter("images", system_clock)(tmp_path / "images").problem)
        path.write_bytes(whole)
    saved(tmp_path / "other.tar", layers, [diffs[0], diffs[0], diffs[0], diffs[0]])
    written(tmp_path / "other.tar", tmp_path / "others")
    assert "is damaged" in str(vetter("images", system_clock)(tmp_path / "others").problem)


@pytest.mark.parametrize(
    "list_",
    [
        "",
        "[]",
        '{"services": [], "archives": [{"id": "a", "tags": [], "config": "../../etc/shadow", "layers": []}]}',
        f'{{"services": [], "archives": [{{"id": "a", "tags": ["--x"], "config": "{"0" * 64}", "layers": []}}]}}',
        f'{{"services": [], "archives": [{{"id": "-a", "tags": [], "config": "{"0" * 64}", "layers": []}}]}}',
        f'{{"services": [], "archives": [{{"id": "a", "tags": [1], "config": "{"0" * 64}", "layers": ["/x"]}}]}}',
    ],
)
def test_a_list_that_a_stranger_wrote_leads_nowhere(tmp_path: Path, list_: str) -> None:
    (tmp_path / LIST).write_text(list_)
    assert "cannot be read" in str(vetter("images", system_clock)(tmp_path).problem)
    with pytest.raises(errors.ComponentDamaged, match="cannot be read"):
        plan_loading(tmp_path)


def test_damaged_images_are_not_given_to_docker(tmp_path: Path) -> None:
    layer = b"layer" * 1000
    saved(tmp_path / "saved.tar", [layer], [sha256(layer)] * 2)
    written(tmp_path / "saved.tar", tmp_path / "images")
    (tmp_path / "images" / LAYERS / sha256(layer)).write_bytes(b"other")

    def docker_without_images(command: object, **_: object) -> Answer:
        return Answer(1, b"", b"Error: No such image: a")

    planned = plan_loading(tmp_path / "images", runner=docker_without_images)
    assert [each.action for each in planned] == ["load"]
    with pytest.raises(errors.ComponentDamaged, match=r"layer .* is damaged"):
        load(tmp_path / "images", planned, runner=docker_without_images)


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000])
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with open(tmp_path / "x", "rb") as file, pytest.raises(errors.ComponentDamaged, match="docker save"):
        read_archive(file)
