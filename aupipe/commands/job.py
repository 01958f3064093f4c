"""The parts that all commands share: common options, logging, and errors turned into exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import aupipe
from aupipe.edge_errors import explain
from aupipe.errors import one_line, printable
from aupipe.interrupts import sigterm_interrupts

if TYPE_CHECKING:
    from aupipe.config import Section

DONE, FAILED, USAGE, PARTIAL = 0, 1, 2, 3

Sections: TypeAlias = "Sequence[Section | type[Section]]"


def make_parser(prog: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all jobs have.

    Args:
        prog: the name that help and errors use: `annotate.py`, or `aupipe annotate` for the installed command.
        summary: one or two sentences on the job.
        examples: command lines, each beginning with two spaces and `JOB.py`. Help shows them below the options, under
            the name of `prog`.
    """
    if prog.startswith("aupipe "):
        examples = re.sub(r"(?m)^  (\w+)\.py\b", r"  aupipe \1", examples)
    parser = argparse.ArgumentParser(
        prog=prog, description=summary, epilog=f"examples:\n{examples}", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"aupipe {aupipe.__version__}")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an error too")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is already done; start nothing")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a setting; the value is YAML; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--list-settings", action="store_true",
        help="print every KEY of --set with its type, default and explanation; other options are not required",
    )  # fmt: skip
    return parser


def location(text: str) -> str:
    """Return the path that an option names, made absolute; a URI is returned unchanged.

    Workers have other working directories than the driver, so a relative path would name another file there.
    """
    from aupipe.storage import absolute_place, local_path

    try:
        return absolute_place(text)
    except FileNotFoundError:
        raise argparse.ArgumentTypeError(
            f"{local_path(text)}: the current folder was deleted; fix: cd to another one, or give an absolute path"
        ) from None


def checkpoint(text: str) -> str:
    """Return the model folder that an option names: that of `starter` is in the package, any other is a `location`."""
    from aupipe.models import default_models

    if text != default_models.STARTER:
        return location(text)
    (folder,) = default_models.FOLDERS
    return folder


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    settings: Callable[[argparse.Namespace], Sections] = lambda args: (),
) -> int:
    """Parse the command line, run `body` and return the exit code.

    An error whose cause is outside aupipe's code is printed as one sentence. Any other error is raised.

    Args:
        settings: returns the sections that `--set` changes, for `--list-settings`.
    """
    _open_closed_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # not one that a caller has put there
            stream = LogStream(stream.buffer, stream.encoding, line_buffering=stream.line_buffering)
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):  # A locale without a character of a name must not end the job.
            stream.reconfigure(errors="backslashreplace")
    args = _parse(parser, sys.argv[1:] if argv is None else argv)
    handler = logging.StreamHandler()
    handler.setFormatter(_LogFormatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for verbose in ("botocore", "aiobotocore"):  # They report at INFO where they found credentials and endpoints.
        logging.getLogger(verbose).setLevel(logging.WARNING)
    try:
        if args.list_settings:
            from aupipe.commands.settings import table

            print(table(settings(args)))  # noqa: T201
            return DONE
        with sigterm_interrupts():
            return body(args)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; re-run the same command to resume", file=sys.stderr)  # noqa: T201
        return 130
    except Exception as error:
        named = explain(error)
        if named is None:
            raise
        if args.verbose:
            traceback.print_exception(error)
        print(f"{parser.prog}: {one_line(named)}", file=sys.stderr)  # noqa: T201
        return named.exit_code


class LogStream(io.TextIOWrapper):
    """A standard stream that discards its text as soon as its reader has gone: `| head`, or a terminal that is closed.

    A job may run for days, and must not end with the reader of its log.
    """

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        with self._surviving():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._surviving():
            super().flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # Buffered text and that of C libraries goes there too.
            os.close(null)


class _LogFormatter(logging.Formatter):
    """A format of log lines that shows the control characters of names as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, which may have several lines."""
        return "\n".join(map(printable, super().format(record).split("\n")))


def _open_closed_streams() -> None:
    """Open each standard stream that the parent process has closed, as daemons do, on the null device.

    Otherwise the next file that is opened would take its number, and receive what C libraries log.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 # it stays open until the process ends
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def recipe_settings(args: argparse.Namespace) -> Sections:
    """Return the recipe that `--recipe` names, with its values as defaults; the class of all recipes without one."""
    from aupipe.commands.settings import Ablation
    from aupipe.training import recipe

    named = recipe.read(args.recipe, quick=args.quick, overrides=args.overrides) if args.recipe else recipe.Recipe
    return [named, Ablation]


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line. `--list-settings` makes every other option optional."""
    if "--list-settings" in argv:
        for action in parser._actions:
            action.required = False
        for group in parser._mutually_exclusive_groups:
            group.required = False
    if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
        return parser.parse_args(argv)
    if "--" in argv:  # parse_intermixed_args would take a name after it for an option, if it begins with a dash
        first = argv.index("--") + 1
        argv = [*argv[:first], *(f"./{name}" if name.startswith("-") else name for name in argv[first:])]
    return parser.parse_intermixed_args(argv)  # Inputs may be before, between and after the options.
