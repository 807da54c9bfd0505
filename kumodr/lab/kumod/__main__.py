"""`python -m kumodr.lab.kumod --config FILE`, or as a real kumod is started: `--policy FILE --user NAME`.

Of a policy only the folder counts: the settings are in `kumod.json` beside it.
"""

import argparse
import asyncio
import os
import pwd
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from kumodr.lab.kumod.config import Config, host_and_port, load_config
from kumodr.lab.kumod.http_api import application
from kumodr.lab.kumod.node import Node
from kumodr.lab.kumod.smtp_in import protocol
from kumodr.lab.kumod.startup import enumerate_spool


def main() -> int:
    """Run a stand-in until SIGTERM, SIGINT or SIGHUP; return 0, or 1 where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m kumodr.lab.kumod", description="a stand-in for kumod")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE")
    which.add_argument("--policy", type=Path, metavar="FILE")
    parser.add_argument("--user", metavar="NAME", help="where it is started as root: go on as this user")
    words = parser.parse_args()
    if words.user and os.geteuid() == 0:
        become(words.user)
    return uvloop.run(serve(load_config(words.config or words.policy.with_name("kumod.json"))))


def become(name: str) -> None:
    """Given a user's name, be that user from now on."""
    user = pwd.getpwnam(name)
    os.initgroups(name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


async def serve(config: Config) -> int:
    """Given a configuration, run a node: listeners first, then the spools, then the enumeration (facts §2.3)."""
    node = Node(config)
    start_ns = node.now_ns()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    host, port = host_and_port(config.http)
    runner = web.AppRunner(application(node), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    host, port = host_and_port(config.smtp)
    listener = await loop.create_server(lambda: protocol(node), host, port)
    try:
        node.open_spools()
    except Exception as error:  # noqa: BLE001 — whatever it is, kumod says so and exits 1
        sys.stderr.write(f"Error in spool: Opening spool: {error}\nShutdown due to error\n")
        return 1
    node.run()
    await enumerate_spool(node, start_ns)
    await stop.wait()
    node.stopping = True
    listener.close()
    await runner.cleanup()
    await node.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
