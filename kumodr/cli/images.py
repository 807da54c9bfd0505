"""`kumodr images`: restored images, and bringing them back into Docker without a registry."""

import argparse
from pathlib import Path

from kumodr import errors
from kumodr.cli.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    summary = "give restored images to Docker; says what it would do, and does it with --apply"
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    load: argparse.ArgumentParser = tasks.add_parser("load", help=summary, description=summary, allow_abbrev=False)
    load.add_argument("directory", help="what `kumodr restore` brought back, or its folder `images`")
    load.add_argument("--apply", action="store_true", help="do it")
    load.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    parser.epilog = (
        "example:\n  kumodr restore --to /srv/recovered --component images --identity key.txt\n"
        "  kumodr images load /srv/recovered\n  kumodr images load /srv/recovered --apply"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.images.load import load, plan_loading
    from kumodr.images.stored import stored_images

    given = Path(arguments.directory).absolute()
    folder = given / "images" if (given / "images").is_dir() else given
    planned = plan_loading(folder)
    if arguments.apply:
        load(folder, planned)
    pinned = [each for each in stored_images(folder).services if "@" in each.name]
    document = {
        "applied": arguments.apply,
        "images": [
            {
                "id": each.image.id,
                "tags": list(each.image.tags),
                "action": each.action,
                "moves": [{"tag": tag, "from": identifier} for tag, identifier in each.moves],
            }
            for each in planned
        ],
        "by_digest": [{"service": each.service, "image": each.name} for each in pinned],
    }
    done = {"nothing": "is there", "tag": "gets its names", "load": "is loaded"}
    past = {"nothing": "was there", "tag": "has its names again", "load": "loaded"}
    lines: list[str] = []
    for each in planned:
        names = ", ".join(each.image.tags) or "no name"
        lines.append(f"{each.image.id[:19]}  {(past if arguments.apply else done)[each.action]}: {names}")
        lines += [f"    {tag} named {was[:19]} before, which stays without it" for tag, was in each.moves]
    lines += [
        f"service {each.service} names its image by digest, which Docker cannot be given back without a registry: "
        f"name it {each.id} in an override file"
        for each in pinned
    ]
    if not arguments.apply and any(each.action != "nothing" for each in planned):
        lines.append("nothing was done; `--apply` does it")
    terminal.result(document, lines)
    return errors.IMPERFECT if pinned else errors.DONE
