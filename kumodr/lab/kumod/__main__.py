"""`python -m kumodr.lab.kumod --config FILE`."""

import argparse
import asyncio
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
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    return uvloop.run(serve(load_config(parser.parse_args().config)))


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
