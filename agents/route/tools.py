"""Which team answers a message, and how soon."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

QUEUES: dict[str, str] = {
    "card_lost": "fraud",
    "unknown_charge": "fraud",
    "card_declined": "cards",
    "card_arrival": "cards",
    "pin_problem": "cards",
    "account_access": "access",
    "order_status": "orders",
    "order_change": "orders",
    "order_cancel": "orders",
    "return_item": "returns",
    "damaged_item": "returns",
    "wrong_item": "returns",
    "refund_status": "billing",
    "invoice_request": "billing",
    "fees": "billing",
}
ELSEWHERE = "general"
PRIORITIES: dict[str, int] = {"fraud": 2, ELSEWHERE: 4}
ORDINARY = 3
SHIFTS: dict[str, int] = {"high": -1, "low": 1}
HIGH_AMOUNT = Decimal(500)  # in whatever currency: this sorts a queue and pays nothing


def run(intent: str, urgency: str, fields: dict[str, Any]) -> dict[str, str | int]:
    """The queue for `intent` and a priority from 1 (answer first) to 4.

    `urgency` is `low`, `normal` or `high`; `fields["amount"]` is a sum as the customer wrote it, or null. An unknown
    intent goes to the general queue, an unknown urgency counts as normal. Raises nothing for values of these types.
    """
    queue = QUEUES.get(intent, ELSEWHERE)
    priority = PRIORITIES.get(queue, ORDINARY) + SHIFTS.get(urgency, 0)
    amount = parse_amount(fields.get("amount"))
    if amount is not None and amount >= HIGH_AMOUNT:
        priority -= 1
    return {"queue": queue, "priority": min(max(priority, 1), 4)}


def parse_amount(written: str | None) -> Decimal | None:
    """The number in `1,299.00`, `1.299,00`, `1 299` or `49,9`; None for anything that is no number.

    The last separator is a decimal point if one or two digits follow it, else all separators group thousands.
    """
    found = re.fullmatch(r"\s*(\d[\d.,'\s]{0,30}?)(?:[.,](\d{1,2}))?\s*", written or "", re.ASCII)
    if found is None:
        return None
    whole = re.sub(r"\D", "", found[1])
    return Decimal(f"{whole}.{found[2] or 0}")
