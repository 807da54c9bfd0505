"""Watch a busy mail site being destroyed, and rebuilt from the vault's address and the key alone.

`python -m kumodr.lab.demo [--json] [--keep DIR] [--kind LocalDisk] [--kumod PATH]`
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from kumodr import errors
from kumodr.lab.demo_story import Story
from kumodr.lab.demo_table import lines_of, verdict


def main() -> int:
    """Run the demo; return 0 where everything that was promised held."""
    parser = argparse.ArgumentParser(prog="script/demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="the closing table as one JSON document")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new directory, and keep it")
    parser.add_argument("--kind", choices=("RocksDB", "LocalDisk"), default="RocksDB", help="of the spool")
    parser.add_argument("--kumod", metavar="PATH", help="a real kumod, instead of the stand-in")
    parser.add_argument("--rate", type=float, default=120.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before the disaster")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    begun = time.monotonic()

    def say(text: str) -> None:
        if not words.json:
            sys.stdout.write(f"[{time.monotonic() - begun:5.1f} s] {text}\n")
            sys.stdout.flush()

    try:
        if words.keep:
            words.keep.mkdir(parents=True)
            return show(
                Story(words.keep.absolute(), words.kind, words.kumod, words.rate, words.seconds, say), words.json
            )
        with tempfile.TemporaryDirectory(prefix="kumodr-demo-") as folder:
            return show(Story(Path(folder), words.kind, words.kumod, words.rate, words.seconds, say), words.json)
    except errors.KumodrError as error:
        sys.stderr.write(f"demo: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"demo: {error}\n")
        return errors.FAILED
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted; everything is stopped and removed\n")
        return errors.INTERRUPTED


def show(story: Story, as_json: bool) -> int:
    """Run a story and print how it ended."""
    result = story.run()
    failed = verdict(result)
    if as_json:
        sys.stdout.write(json.dumps(result.document() | {"promises_broken": failed}, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(lines_of(result, failed)) + "\n")
    return errors.FAILED if failed else errors.DONE


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
