"""A receipt for people: rich tables."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from protocols.money import Amount, dollars
from swarm.observe.receipt import Receipt


def rendered(receipt: Receipt) -> RenderableType:
    """The receipt as something to print with rich."""
    head = Text(f"Receipt of run {receipt.run} ({receipt.swarm}{'' if receipt.finished else ', not finished'})", "bold")
    return Group(head, _tiers(receipt), _summary(receipt))


def as_text(receipt: Receipt, width: int = 140) -> str:
    """The same as plain text, `width` characters wide."""
    console = Console(width=width, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(rendered(receipt))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _tiers(receipt: Receipt) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("step")
    table.add_column("tier")
    for name in ("asked", "accepted", "escalated", "other", "tokens in", "out", "ms each", "dollars"):
        table.add_column(name, justify="right")
    last = None
    for line in receipt.tiers:
        other = [
            (line.recalled, "recalled"),
            (line.overruled, "overruled"),
            (line.degraded, "degraded"),
            (line.failed, "failed"),
            (line.cancelled, "cancelled"),
            (line.refused, "refused"),
            (line.unavailable, "missed"),
        ]
        table.add_row(
            line.step if line.step != last else "",
            line.tier,
            f"{line.asked:,}",
            f"{line.accepted:,}",
            f"{line.escalated:,}",
            ", ".join(f"{n:,} {what}" for n, what in other if n),
            f"{line.tokens_in:,}",
            f"{line.tokens_out:,}",
            f"{line.ms / line.asked:.0f}" if line.asked else "",
            dollars(line.micro_usd),
        )
        last = line.step
    return table


def _summary(receipt: Receipt) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    total = sum(receipt.tasks.values())
    outcomes = ", ".join(f"{n:,} {status}" for status, n in receipt.tasks.items())
    table.add_row("tasks", f"{total:,}: {outcomes}" if total else "none")
    table.add_row("hosts", ", ".join(f"{host} {n:,} answers" for host, n in receipt.hosts.items()) or "none")
    table.add_row("spent", f"{dollars(receipt.spent.micro_usd)} and {receipt.spent.tokens:,} tokens{_left(receipt)}")
    if (saved := receipt.saved) is not None:
        cost = f"{dollars(saved.micro_usd)} and {saved.tokens:,} tokens"
        table.add_row("saved", f"{cost}, by {saved.answers:,} answers known from before")
    if (over := receipt.overrun) != Amount():
        table.add_row("overrun", f"{dollars(over.micro_usd)} and {over.tokens:,} tokens of that are more than was held")
    if receipt.per_accomplished_micro_usd is not None:
        table.add_row("a task", f"{dollars(round(receipt.per_accomplished_micro_usd))} for each one accomplished")
    if (base := receipt.baseline) is not None:
        price = f"{dollars(base.input_per_mtok)} / {dollars(base.output_per_mtok)} a million tokens, {base.source}"
        tokens = f"{base.calls:,} calls, about {base.tokens_in:,} tokens in and {base.tokens_out:,} out"
        table.add_row("all remote", f"{dollars(base.micro_usd)} with {base.model} ({tokens}; {price}){_share(receipt)}")
    for missed in receipt.missed:
        cost = f", about {dollars(missed.micro_usd)}" if missed.micro_usd is not None else ""
        table.add_row(missed.tier, f"would have got {missed.asks:,} asks{cost}; {missed.reason}")
    for i, dear in enumerate(receipt.dearest):
        cost = f"{dollars(dear.cost.micro_usd)}, {dear.cost.tokens:,} tokens, {dear.ms:,} ms"
        table.add_row("dearest" if i == 0 else "", f"{dear.task}: {cost} ({dear.status})")
    return table


def _left(receipt: Receipt) -> str:
    limit, spent = receipt.limit, receipt.spent
    left = []
    if limit.micro_usd is not None:
        left.append(f"{dollars(max(0, limit.micro_usd - spent.micro_usd))} of {dollars(limit.micro_usd)}")
    if limit.tokens is not None:
        left.append(f"{max(0, limit.tokens - spent.tokens):,} of {limit.tokens:,} tokens")
    return f"; left of the budget: {', '.join(left)}" if left else "; no limit was set"


def _share(receipt: Receipt) -> str:
    base = receipt.baseline
    if base is None or not base.micro_usd:
        return ""
    return f"; this run cost {100 * receipt.spent.micro_usd / base.micro_usd:.1f}% of that"
