"""The document as text: tables of words, for the terminal and for scripts."""

from collections.abc import Sequence

from infra.live.monitoring.document import Document, Instrument

Rows = list[tuple[str, ...]]
NOTES = {
    "starting": "The service starts.",
    "no ticks yet": "No ticks yet. To play recorded days: tickline feed --data PATH",
    "warming up": "Ticks come. A decision needs 64 rows of an instrument without a gap.",
    "live": "",
    "no decisions": "Ticks come, but no decisions. The ledger names the reasons.",
    "interrupted": "Stream interrupted. Check the feed and the broker.",
}


def headline(document: Document) -> str:
    """State, version and age of the service."""
    versions = ", ".join(document.versions) or "none"
    canary = ""
    if document.candidate is not None:
        canary = f", canary {document.candidate} gets {document.share:.0%}"
    up_s = (document.at_ms - document.started_ms) // 1000
    up = f"{up_s // 3600} h {up_s // 60 % 60} min" if up_s >= 3600 else f"{up_s // 60} min"
    return f"{document.state}, version {versions}{canary}, up {up}"


def rates(document: Document) -> str:
    """How much comes, and how old the newest is."""
    lag = "unknown" if document.lag is None else f"{document.lag:,}"
    return (
        f"ticks {document.ticks_per_s:,.0f}/s, decisions {document.decisions_per_s:,.0f}/s, "
        f"newest {age(document.decision_age_s)}, lag {lag}"
    )


def age(seconds: float | None) -> str:
    """A duration since something, in its largest unit."""
    if seconds is None:
        return "never"
    if seconds < 60:
        return f"{seconds:.1f} s ago"
    return f"{seconds // 60:.0f} min ago" if seconds < 3600 else f"{seconds / 3600:.1f} h ago"


def instrument_rows(document: Document) -> Rows:
    """Heading, then one row for each instrument."""
    heading = ("instrument", "price", "p", "threshold", "answer", "decisions", "true")
    return [heading, *map(_instrument, document.instruments)]


def _instrument(one: Instrument) -> tuple[str, ...]:
    answer = (one.side or "yes") if one.decision else "no"
    return (
        one.symbol,
        f"{(one.bid_price + one.ask_price) / 2:,.8g}",
        f"{one.probability:.3f}",
        f"{one.threshold:.3f}",
        answer,
        f"{one.decisions:,}",
        f"{one.opportunities / one.decisions:.1%}" if one.decisions else "",
    )


def stage_rows(document: Document) -> Rows:
    """Heading, then the latency of each stage over the last minute."""
    found: Rows = [("ms, last minute", "p50", "p99", "p99.9")]
    for one in document.stages:
        if one.count:
            found.append((one.name, _ms(one.p50), _ms(one.p99), _ms(one.p999)))
    return found if len(found) > 1 else [*found, ("no decision", "", "", "")]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def ledger_rows(document: Document) -> Rows:
    """Heading, then the ledger and what is counted besides."""
    ledger = document.ledger
    found: Rows = [("ledger", f"{ledger.taken:,}")]
    found += [(name, f"{count:,}") for name, count in ledger.columns.items()]
    found += [("waiting", f"{ledger.waiting:,}")]
    others = (
        ("lost", ledger.lost),
        ("reordered", ledger.reordered),
        ("duplicated", ledger.duplicated),
        ("fallback, last minute", document.flags.get("fallback", 0)),
    )
    return found + [(name, f"{count:,}") for name, count in others]


def part_line(document: Document) -> str:
    """What the service needs, and whether it reaches it."""
    return ", ".join(
        f"{part.name} {part.state}" + (f" ({part.detail})" if part.detail else "")
        for part in document.parts
    )


def plain(document: Document) -> str:
    """All of it, for scripts."""
    reasons = ", ".join(f"{name} {count:,}" for name, count in document.ledger.reasons.items())
    lines = [
        f"state: {headline(document)}",
        f"rates: {rates(document)}",
        f"connections: {part_line(document)}",
        f"no decision: {reasons or 'none'}",
    ]
    note = NOTES[document.state]
    tables = (instrument_rows(document), stage_rows(document), ledger_rows(document))
    blocks = ["\n".join([*lines, note] if note else lines), *map(aligned, tables)]
    return "\n\n".join(blocks)


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as text: the first column to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
