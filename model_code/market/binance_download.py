"""Download Binance's public daily archives: checksums verified, resumable, with a progress bar.

`<base>/<kind>/<SYMBOL>/<SYMBOL>-<kind>-<YYYY-MM-DD>.zip` and, beside it, `.zip.CHECKSUM` in
sha256sum's format. Source: github.com/binance/binance-public-data.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from model_code.artifacts import hash_path, storage_error
from model_code.errors import IntegrityError, MarketError

BASE_URL = "https://data.binance.vision/data/futures/um/daily"
KINDS = ("bookTicker", "trades")


def download(
    symbol: str,
    date: dt.date,
    folder: Path,
    *,
    base_url: str = BASE_URL,
    kinds: Sequence[str] = KINDS,
    attempts: int = 5,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Download one instrument-day's archives into `folder`.

    A file already there is kept if its checksum matches. An interrupted transfer leaves
    `<name>.part`; the next call resumes from it.

    Args:
        symbol: as Binance writes it, e.g. BTCUSDT.
        date: UTC date.
        folder: created if missing; open it afterwards with `open_market`.
        base_url: folder of the archives; spot and coin-margined futures have others.
        kinds: archive kinds, in this order.
        attempts: per file, when the network or the server fails.
        progress: bar to update; None creates one on standard error.

    Returns:
        The files, in the order of `kinds`.

    Raises:
        MarketError: the host is unreachable or has no such archive.
        IntegrityError: the bytes differ from the published checksum; the file is deleted.
        StorageError: the disk is full or the folder not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    with (
        progress or _bar() as bar,
        httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30.0)) as client,
    ):
        return tuple(
            _fetch(
                client,
                f"{base_url.rstrip('/')}/{kind}/{symbol}/{name}",
                folder / name,
                bar,
                attempts,
            )
            for kind in kinds
            for name in [f"{symbol}-{kind}-{date}.zip"]
        )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _fetch(client: httpx.Client, url: str, target: Path, bar: Progress, attempts: int) -> Path:
    retry = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=0.2, max=10.0),
        retry=retry_if_exception(_transient),
        reraise=True,
    )
    part = target.with_name(target.name + ".part")
    task = bar.add_task(target.name, total=None)
    try:
        expected = retry(_checksum, client, f"{url}.CHECKSUM")
        if target.exists() and hash_path(target) == expected:
            return target
        retry(_transfer, client, url, part, bar, task)
        found = hash_path(part)
        if found != expected:
            part.unlink()
            raise IntegrityError(
                f"{target.name} differs from its published checksum: "
                f"expected sha256 {expected[:12]}, found {found[:12]}; the file was deleted",
                where=url,
                remedy="download it again; if it fails again, a proxy may alter the file",
            )
        part.replace(target)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise MarketError(
            f"cannot download {target.name}: HTTP {status}",
            where=str(error.request.url),
            remedy="check symbol and date (archives appear a day later, some dates never)"
            if status == httpx.codes.NOT_FOUND
            else "try again later",
        ) from error
    except httpx.HTTPError as error:
        raise MarketError(
            f"the download of {target.name} was interrupted: {error or type(error).__name__}",
            where=url,
            remedy="check the network and run the same command again; it resumes where it stopped",
        ) from error
    except OSError as error:
        raise storage_error(error, target) from error
    return target


def _transient(error: BaseException) -> bool:
    """Whether a retry may help: a broken transfer or a server error, not a missing file."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError)


def _checksum(client: httpx.Client, url: str) -> str:
    text = client.get(url).raise_for_status().text.split()
    if not text or len(text[0]) != 64:
        raise IntegrityError(
            "the published checksum is not a sha256", where=url, remedy="open the URL in a browser"
        )
    return text[0].lower()


def _transfer(client: httpx.Client, url: str, part: Path, bar: Progress, task: TaskID) -> None:
    """Append the missing bytes to `part`; start over if the server does not support ranges."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if have and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # already complete: the checksum decides
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0
        length = response.headers.get("Content-Length")
        bar.update(task, completed=have, total=have + int(length) if length else None)
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.advance(task, len(chunk))
