"""Files of a store: found at any depth in natural order, each read or named with a reason."""

import datetime as dt
import gzip
import hashlib
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

import fsspec
import pyarrow as pa

from model_code.errors import DataError, MarketError

_CHUNK = 1 << 20
BLOCK = 16 << 20  # bytes that are read and parsed at once
_DATE = r"\d{4}-\d{2}-\d{2}|\d{8}"
_MIDNIGHT = re.compile(rf"^({_DATE})(?:[T ]00:00:00(?:\.0+)?(?:Z|\+00:00)?)?$")
COMPRESSED = (".gz", ".zst")
STATEMENT = "tickline.yaml"
SHOWN = 3

_WALKED: ContextVar[dict[str, list[str]] | None] = ContextVar("walked", default=None)
T = TypeVar("T")
Lines = tuple[int, bytes]  # number of the first line in the file, from 1, and the lines
HashFile = Callable[[fsspec.AbstractFileSystem, str], str]  # sha256 of a file's bytes, in hex


@dataclass(frozen=True)
class PassedOver:
    """A file that is not read, and why."""

    path: str
    reason: str


def summarize(passed: Iterable[PassedOver], shown: int | None = SHOWN) -> tuple[str, ...]:
    """A sentence for each reason, with the first `shown` files that have it; None: all."""
    by_reason: dict[str, list[str]] = {}
    for item in passed:
        by_reason.setdefault(item.reason, []).append(item.path)
    return tuple(
        f"{len(paths):,} file{'s' * (len(paths) > 1)} passed over, {reason}: "
        f"{', '.join(paths[:shown])}"
        + (" (all: tickline data describe)" if shown and len(paths) > shown else "")
        for reason, paths in by_reason.items()
    )


def hash_file(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """sha256 of a file's bytes, in hex."""
    found = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def digest_files(
    fs: fsspec.AbstractFileSystem, paths: Iterable[str], hash_one: HashFile = hash_file
) -> str:
    """sha256 over each file's name and bytes, in the order given, in hex.

    Args:
        fs: where the files are.
        paths: the files.
        hash_one: gives a file's sha256; another than `hash_file` may look up what it knows.
    """
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.rsplit('/', 1)[-1]}\0{hash_one(fs, path)}\n".encode())
    return total.hexdigest()


@contextmanager
def walked_once() -> Iterator[None]:
    """Within the block each root is walked once: each layout looks for its own file names."""
    token = _WALKED.set({})
    try:
        yield
    finally:
        _WALKED.reset(token)


def walk(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    """Every file below `root` in natural order (part2 before part10).

    Hidden files and folders (a name that begins with "." or "_", as `_SUCCESS`) and the store's own
    `tickline.yaml` are not data and are left out.
    """
    if fs.isfile(root):
        return [root]
    known = _WALKED.get()
    if known is not None and root in known:
        return known[root]
    found = sorted(
        (path for path in fs.find(root) if not _hidden(relative(path, root))), key=natural
    )
    if known is not None:
        known[root] = found
    return found


def _hidden(path: str) -> bool:
    return path == STATEMENT or any(part.startswith((".", "_")) for part in path.split("/"))


def relative(path: str, root: str) -> str:
    """The path below `root`; a root that is a file gives its name."""
    below = path.removeprefix(root.rstrip("/")).lstrip("/")
    return below or path.rsplit("/", 1)[-1]


def natural(path: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that compares runs of digits as numbers."""
    return tuple(
        (0, int(part)) if part.isdigit() and part.isascii() else (1, part)
        for part in re.split(r"([0-9]+)", path)
        if part
    )


def parse_date(text: str) -> dt.date | None:
    """Read `2025-03-03`, `20250303` or a midnight such as `2025-03-03 00:00:00`; else None."""
    found = _MIDNIGHT.match(unquote(text))
    try:
        return dt.date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def partitions(path: str) -> dict[str, str]:
    """The `key=value` folders (and file name) of a path, percent-decoded; the innermost wins."""
    pairs = (part.partition("=") for part in path.split("/") if "=" in part)
    return {key: unquote(value) for key, _, value in pairs}


def read_blocks(fs: fsspec.AbstractFileSystem, path: str, size: int = BLOCK) -> Iterator[bytes]:
    """The file's bytes in blocks of at most `size`, decompressed if it is named .gz or .zst.

    Raises:
        MarketError: the file cannot be read, or is damaged.
    """
    with readable(path), fs.open(path, "rb") as file:
        stream = file
        if path.endswith(".gz"):
            stream = gzip.GzipFile(fileobj=file)
        elif path.endswith(".zst"):
            stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        while block := stream.read(size):
            yield bytes(block)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Raise what goes wrong with the file's bytes as MarketError."""
    try:
        yield
    except FileNotFoundError as error:
        raise MarketError(
            "no such file", where=path, remedy="list the store's contents: tickline data describe"
        ) from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        kind = "cannot decompress" if path.endswith(COMPRESSED) else "cannot read"
        raise MarketError(
            f"{kind} the file: {error}",
            where=path,
            remedy="check its permissions; fetch the file again if it is damaged",
        ) from error


def lines_of(blocks: Iterable[bytes], *, trim: bool = False) -> Iterator[Lines]:
    """The whole lines of each block; of a file without bytes one empty piece.

    Args:
        blocks: of the file, in order.
        trim: leave out the blank space at the end of the file.
    """
    line, rest = 1, b""
    for block in blocks:
        rest += block
        cut = rest.rfind(b"\n", 0, len(rest.rstrip())) + 1  # blank lines wait for what follows
        if cut:
            yield line, rest[:cut]
            line += rest.count(b"\n", 0, cut)
            rest = rest[cut:]
    if trim:
        rest = rest.rstrip()
    if rest or line == 1:
        yield line, rest


def parsed(pieces: Iterator[Lines], parse: Callable[[Lines], T]) -> Iterator[T]:
    """Each piece parsed; a fault in the text is reported only if the whole file can be read.

    A damaged file has both faults, and its checksum is at its end.
    """
    for piece in pieces:
        try:
            yield parse(piece)
        except DataError:
            for _ in pieces:  # raises if the file is damaged
                pass
            raise


def require_days(days: Iterable[object], paths: list[str], root: str, expected: str) -> None:
    """Raise if a store has no instrument-day.

    Raises:
        MarketError: with a few of the files found, and the layout expected.
    """
    if any(True for _ in days):
        return
    shown = ", ".join(relative(path, root) for path in paths[:SHOWN])
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    raise MarketError(
        f"no instrument-day found; {len(paths)} files: {shown or 'none'}{more}",
        where=root,
        remedy=f"name the files as expected: {expected}",
    )


def spell_dates(dates: Sequence[dt.date]) -> str:
    """`2025-03-03`, or `3 days from 2025-03-03 to 2025-03-07`."""
    if len(dates) == 1:
        return str(dates[0])
    return f"{len(dates)} days from {dates[0]} to {dates[-1]}"


def refuse_overlap(
    spans: list[tuple[str, int, int]], name: str, root: str
) -> list[tuple[str, int, int]]:
    """Return parts of one instrument-day by first stamp; parts may touch, not overlap.

    Args:
        spans: path, first and last stamp (ns) of each part with rows.
        name: of the instrument-day, for the message.
        root: the store's root, for the message.

    Raises:
        MarketError: two parts cover the same time; both are named.
    """
    ordered = sorted(spans, key=lambda span: (span[1], span[2], natural(span[0])))
    for (first, _, end), (second, start, _) in itertools.pairwise(ordered):
        if start < end:
            raise MarketError(
                f"two files cover the same time of {name}",
                where=f"{relative(first, root)}, {relative(second, root)} in {root}",
                remedy="remove one of them, or write the day as one file in time order",
            )
    return ordered
