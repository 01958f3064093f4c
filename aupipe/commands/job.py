"""What every command shares: the common options, logging, and errors turned into exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from aupipe.edge_errors import explain
from aupipe.errors import one_line

DONE, FAILED, USAGE, PARTIAL = 0, 1, 2, 3


def make_parser(name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """A parser with `--set` and `--dry-run`. `examples` are shown below the options by `--help`."""
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=summary, epilog=f"examples:\n{examples}", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a setting, repeatable; the value is YAML",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is already done; start nothing")
    return parser


def location(text: str) -> str:
    """An option's path, made absolute: workers have working directories of their own. A URI stays as it is."""
    from aupipe.storage import local_path

    text = local_path(text)
    return text if not text or "://" in text else os.path.abspath(os.path.expanduser(text))


def run(parser: argparse.ArgumentParser, body: Callable[[argparse.Namespace], int], argv: Sequence[str] | None) -> int:
    """Parse, run `body`, and turn what is no fault of our own code into one sentence and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale that cannot print a name must not end the job
            stream.reconfigure(errors="backslashreplace")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    for talkative in ("botocore", "aiobotocore"):  # say where they found credentials and endpoints
        logging.getLogger(talkative).setLevel(logging.WARNING)
    try:
        return body(args)
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    except Exception as error:
        named = explain(error)
        if named is None:
            raise
        if args.verbose:
            traceback.print_exception(error)
        print(f"{parser.prog}: {one_line(named)}", file=sys.stderr)  # noqa: T201
        return named.exit_code
