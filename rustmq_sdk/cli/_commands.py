"""The subcommands of ``rustmq``."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import anyio
import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import rustmq_sdk
from rustmq_sdk._origin import read_origin
from rustmq_sdk._settings import UNREADABLE, from_text, meaning_of, read
from rustmq_sdk.config import ConsumerConfig, ProducerConfig, RetryPolicy, describe
from rustmq_sdk.drivers import find_driver
from rustmq_sdk.options import locate

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A URL with its password is among them.
    pretty_exceptions_show_locals=False,
)
console = Console()
aside = Console(stderr=True)
"""For what is said beside the output, which may go into a pipe."""

Url = Annotated[str | None, typer.Option("--url", "-u", envvar="RUSTMQ_URL", help="For example sqlite:///events.db")]
START = "earliest, latest, an offset, or a date (and time): 2026-01-31, 2026-01-31T12:30, 2026-01-31T12:30+01:00"
FIRST_LOOK = 2.0
"""Seconds for a driver to find out whether a topic exists; what takes longer is said by its messages."""
SEND_TOGETHER = 500
"""Lines of standard input that travel in one batch."""
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")}
_ESCAPED = {code: f"\\x{code:02x}" for code in _CONTROLS}


@contextmanager
def said_plainly() -> Iterator[None]:
    """Errors of ours are for reading, not for debugging: the message, where it comes from, exit code 1."""
    try:
        yield
    except (rustmq_sdk.RustMQError, TimeoutError) as error:
        said = "\n".join((str(error), *getattr(error, "__notes__", ())))
        console.print(f"[red]{type(error).__name__}[/]: {escape(said)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def run(program: Callable[[], Awaitable[None]]) -> None:
    """Runs an async command."""
    with said_plainly():
        anyio.run(program)


def _to_look(url: str | None) -> str | Mapping[str, Any]:
    """What makes a client that only looks: whose driver makes nothing where it would."""
    origin = read_origin(url)
    location = locate(origin.url)
    if "create" not in find_driver(location).options:
        return url if url is not None else origin.url

    query = urlencode({**location.options, "create": "false"})
    return {"url": f"{location.bare}?{query}", "consumer": origin.consumer, "producer": origin.producer}


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(rustmq_sdk.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Look into logs and queues: topics, messages, dead letters. Give the URL with --url, or set RUSTMQ_URL."""


@app.command()
def topics(url: Url = None) -> None:
    """Lists the topics and their partitions."""

    async def program() -> None:
        async with rustmq_sdk.Client(_to_look(url)) as client:
            found = await client.topics()

        table = Table("topic", "partitions")
        for name, partitions in sorted(found.items()):
            table.add_row(escape(_harmless(name)), str(partitions))

        console.print(table if found else "There are no topics yet.")

    run(program)


@app.command()
def create(
    topic: str,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="How many partitions it gets.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="NAME=VALUE", help="A setting of the topic: retention_age=3600. Repeatable."
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Creates a topic."""
    given = dict(map(_setting, settings or ()))

    async def program() -> None:
        async with rustmq_sdk.Client(url) as client:
            await client.create_topic(topic, partitions, **given)

        console.print(f"{topic} has {partitions} partition{'s' if partitions > 1 else ''}.")

    run(program)


def _setting(text: str) -> tuple[str, Any]:
    """Numbers, true, false and none are what they look like, as in a URL; anything else is text."""
    name, equals, value = text.partition("=")
    # These two are arguments of their own, and Python would not take them twice.
    if not name or not equals or name in ("name", "partitions"):
        raise typer.BadParameter(f"expected NAME=VALUE, for example retention_age=3600, got {text!r}")

    return name, next((reading for kind in _KINDS if (reading := read(value, kind)) is not UNREADABLE), value)


_KINDS = (int, float, bool, type(None))


@app.command()
def send(
    topic: str,
    payload: Annotated[str | None, typer.Argument(help="Without it every line of standard input is a message.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", "-k", help="Messages of one key go to one partition, in order.")
    ] = None,
    url: Url = None,
) -> None:
    """Sends one message, or one for each line of standard input; returns when they are durable."""

    async def program() -> None:
        sent = 0
        async with rustmq_sdk.Client(url) as client, client.producer() as producer:
            known = await _topics_of(client)
            if payload is not None:
                await producer.send(topic, payload, key=key)
                sent = 1
            else:
                for batch in _batches(sys.stdin.buffer):
                    messages = [rustmq_sdk.OutgoingMessage(line, key.encode() if key else None) for line in batch]
                    sent += len(await producer.send_batch(topic, messages))

        is_new = sent and known is not None and topic not in known
        console.print(f"{sent} message{'s' if sent != 1 else ''} sent to {topic}{' (new topic)' if is_new else ''}.")

    run(program)


async def _topics_of(client: rustmq_sdk.Client) -> Collection[str] | None:
    """Their names; None where the driver cannot list them."""
    try:
        return await client.topics()
    except rustmq_sdk.Unsupported:
        return None


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line.rstrip(b"\n"))
        if len(batch) == SEND_TOGETHER:
            yield batch
            batch = []

    if batch:
        yield batch


@app.command()
def tail(
    topic: str,
    start: Annotated[str, typer.Option("--start", "-s", help=START)] = "latest",
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after so many messages.")] = None,
    headers: Annotated[bool, typer.Option("--headers", help="Show them, for example of dead letters.")] = False,
    wait: Annotated[float | None, typer.Option("--wait", min=0, help="Stop after so many seconds without one.")] = None,
    url: Url = None,
) -> None:
    """Shows messages as they come: where each is, its key if it has one, and after a | what it says.

    Belongs to no group and commits nothing.
    """

    async def program() -> None:
        left = count
        where = _start(start)
        async with _tailing(topic, where, url) as consumer:
            with rustmq_sdk.stop_on_signals(consumer):
                while left is None or left > 0:
                    try:
                        message = await consumer.receive(timeout=wait)
                    except (TimeoutError, rustmq_sdk.ConsumerClosed):
                        break

                    _show(message, headers=headers)
                    await message.ack()
                    left = left - 1 if left is not None else None

    run(program)


def _start(text: str) -> int | datetime | Literal["earliest", "latest", "error"]:
    """A date without a time zone is meant as the clock of this machine shows it."""
    try:
        start: int | datetime | Literal["earliest", "latest", "error"] = from_text(ConsumerConfig, "start", text)
    except rustmq_sdk.ConfigurationError as error:
        fix = error.fix.replace(meaning_of(ConsumerConfig, "start"), f"Write {START}")
        raise _no_start(text, fix) from error

    if start == "error":
        # It refuses to begin without a position of the group, and there is no group.
        raise _no_start(text, f"Write {START}")

    return start.astimezone() if isinstance(start, datetime) and start.tzinfo is None else start


def _no_start(text: str, fix: str) -> rustmq_sdk.ConfigurationError:
    return rustmq_sdk.ConfigurationError("this is no place to start at", field="start", value=text, fix=fix)


@asynccontextmanager
async def _tailing(
    topic: str, start: int | datetime | Literal["earliest", "latest", "error"], url: str | None
) -> AsyncIterator[rustmq_sdk.Consumer]:
    """What does not exist is said here, with the nearest name; drivers that warn of it would say it again."""
    with ExitStack() as whole, ExitStack() as beginning:
        whole.enter_context(_silent("failed"))  # it is raised as well, and then said
        beginning.enter_context(_silent("topic_missing"))
        async with rustmq_sdk.Client(_to_look(url)) as client, client.consumer(topic, start=start) as consumer:
            await _say_what_is_missing(consumer, topic, await _topics_of(client))
            beginning.close()
            yield consumer


@contextmanager
def _silent(event: str) -> Iterator[None]:
    def is_another(record: logging.LogRecord) -> bool:
        return getattr(record, "event", None) != event

    logger = logging.getLogger("rustmq_sdk")
    logger.addFilter(is_another)
    try:
        yield
    finally:
        logger.removeFilter(is_another)


async def _say_what_is_missing(consumer: rustmq_sdk.Consumer, topic: str, known: Collection[str] | None) -> None:
    """What is no name may be a pattern or a partition: the driver knows, as soon as it has looked."""
    if known is None or topic in known:
        return

    missing: list[str] = []
    with anyio.move_on_after(FIRST_LOOK):
        while not missing and not consumer.assigned_partitions:
            await anyio.sleep(0.01)
            missing = [reason.text for reason in consumer.health().reasons if reason.code == "unknown_topic"]

    for text in missing:
        # Whoever names a partition that is not there has named the topic well.
        near = [] if topic.endswith("]") else difflib.get_close_matches(topic, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        aside.print(f"{text[0].upper()}{text[1:]}.{hint}", markup=False, highlight=False, soft_wrap=True)


def _show(message: rustmq_sdk.Message, *, headers: bool) -> None:
    console.print(_harmless(message.id), style="dim", end=" ", markup=False, highlight=False)
    if message.key is not None:
        # Not _text(): repr() escapes by itself.
        key = message.key.decode("utf-8", "backslashreplace")
        console.print(f"key={key!r}", style="cyan", end=" ", markup=False, highlight=False)

    # Always there, so that a payload that looks like a key is no key.
    console.print("|", style="dim", end=" ", markup=False, highlight=False)
    console.print(_text(message.payload), markup=False, highlight=False, soft_wrap=True)
    for name, value in message.headers if headers else ():
        shown = _text(value).rstrip("\n").replace("\n", "\n        ")
        console.print(f"    {_harmless(name)}: {shown}", markup=False, highlight=False, soft_wrap=True)


def _text(value: bytes | None) -> str:
    return "(nothing)" if value is None else _harmless(value.decode("utf-8", "backslashreplace"))


def _harmless(text: str) -> str:
    """With control characters spelt out as ``repr`` does, where a terminal would obey them; lines and tabs stay.

    Whoever may send to a topic could otherwise move the cursor, rename the window or fill the clipboard of who looks.
    Into a file or a pipe they go as they are.
    """
    return text.translate(_ESCAPED) if console.is_terminal else text


@app.command()
def settings(of: Annotated[str, typer.Argument(metavar="consumer|retry|producer")] = "consumer") -> None:
    """Prints the settings of consumers, of their retries or of producers, as a Markdown table."""
    schemas: dict[str, type[msgspec.Struct]] = {
        "consumer": ConsumerConfig,
        "retry": RetryPolicy,
        "producer": ProducerConfig,
    }
    if of not in schemas:
        raise typer.BadParameter(f"there are settings of consumer, retry and producer, and not of {of!r}")

    typer.echo(describe(schemas[of]))


@app.command()
def check(
    logs: Annotated[
        list[str] | None, typer.Argument(metavar="[LOG]...", help="Files of the embedded log, or their URLs.")
    ] = None,
    url: Url = None,
) -> None:
    """Checks files of the embedded log: structure, checksums, offsets. Exits with 1 if something is wrong."""
    from rustmq_sdk.drivers.sqlite.integrity import check_files

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with said_plainly():
        status = check_files(logs or [_required(url)], say)

    raise typer.Exit(status)


@app.command()
def backup(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[LOG] COPY",
            help="A file of the embedded log, or its URL; it may be in use. Then the file to make: none may be there.",
        ),
    ],
    url: Url = None,
) -> None:
    """Copies a file of the embedded log as it is at this moment, with the positions of all groups."""
    from rustmq_sdk.drivers.sqlite import copy
    from rustmq_sdk.drivers.sqlite.options import file_of

    *source, target = names
    if len(source) > 1:
        raise typer.BadParameter(f"expected a log and the name of its copy, got {len(names)} names")

    with said_plainly():
        if not source and not url:
            raise rustmq_sdk.ConfigurationError(
                "the one name given is the copy's, and no log is named",
                field="target",
                value=target,
                fix=f"Write rustmq backup LOG {target}, or rustmq backup {target} COPY, or set RUSTMQ_URL",
            )

        copy(source[0] if source else _required(url), target)
        size = file_of(target).stat().st_size

    console.print(f"{target}: {size:,} bytes", highlight=False, soft_wrap=True)


def _required(url: str | None) -> str:
    if url:
        return url

    raise rustmq_sdk.ConfigurationError(
        "expected a log", field="url", value=url, fix="Name its file or its URL, or set RUSTMQ_URL"
    )
