"""The ledger again, as plainly as it can be said: one operation after the other, no I/O, no cleverness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protocols.money import Amount, Limit
from swarm.errors import KeyConflict, StoreError
from swarm.state.base import Ended, Refusal, Repeated

UNITS = (("usd", "micro_usd"), ("tokens", "tokens"), ("ms", "ms"))


@dataclass(frozen=True)
class Accept:
    task: str
    limit: Limit
    step: Limit


@dataclass(frozen=True)
class Hold:
    id: str
    task: str
    amount: Amount
    in_step: bool
    sent: bool
    key: str | None


@dataclass(frozen=True)
class Sent:
    id: str


@dataclass(frozen=True)
class End:
    """Settle, or void when `used` is None."""

    id: str
    used: Amount | None


@dataclass(frozen=True)
class Lease:
    amount: Amount


@dataclass(frozen=True)
class Draw:
    id: str
    task: str
    held: Amount
    used: Amount


@dataclass(frozen=True)
class GiveBack:
    pass


Operation = Accept | Hold | Sent | End | Lease | Draw | GiveBack


@dataclass
class Account:
    limit: Limit
    settled: Amount = field(default_factory=Amount)
    held: Amount = field(default_factory=Amount)
    over: Amount = field(default_factory=Amount)

    def refuses(self, name: str, wanted: Amount) -> Refusal | None:
        for unit, of in UNITS:
            limit, amount = getattr(self.limit, of), getattr(wanted, of)
            settled, held = getattr(self.settled, of), getattr(self.held, of)
            if limit is not None and amount > limit - settled - held:
                return Refusal(name, unit, amount, limit - settled - held, passing=amount <= limit - settled)
        return None

    def check(self, name: str) -> None:
        for _, of in UNITS:
            limit, settled, held = (getattr(amount, of) for amount in (self.limit, self.settled, self.held))
            assert settled >= 0, name
            assert held >= 0, name
            assert limit is None or settled + held <= limit, name


@dataclass
class Open:
    names: tuple[str, ...]
    amount: Amount
    sent: bool


class Model:
    def __init__(self, run: str, limit: Limit, tenant: Limit) -> None:
        self.above = (f"run:{run}", "tenant:acme")
        self.accounts = {"tenant:acme": Account(tenant), f"run:{run}": Account(limit)}
        self.open: dict[str, Open] = {}
        self.ever: set[str] = set()
        self.keys: dict[str, tuple[Any, ...]] = {}
        self.lease: Open | None = None
        self.leases = 0
        self.lease_over = False

    @property
    def lease_id(self) -> str:
        return f"l-{self.leases}"

    def begin_burst(self) -> None:
        """Operations of one burst name one lease, also after it has ended among them."""
        self.leases += self.lease_over
        self.lease_over = False

    def expect(self, operation: Operation) -> Any:
        """What the store must answer: a value, or the type of an error or of a value."""
        match operation:
            case Accept(task, limit, step):
                return self.accept(task, limit, step)
            case Hold():
                return self.hold(operation)
            case Sent(id):
                return self.sent(id)
            case End(id, used):
                if id in self.open:
                    self.end(self.open.pop(id), used or Amount())
            case Lease(amount):
                return self.take(amount)
            case Draw():
                return self.draw(operation)
            case GiveBack():
                self.give_back(Amount())
        return None

    def accept(self, task: str, limit: Limit, step: Limit) -> Any:
        if f"task:{task}" in self.accounts:
            return StoreError
        self.accounts[f"task:{task}"] = Account(limit)
        self.accounts[f"step:{task}/s"] = Account(step)
        return None

    def hold(self, hold: Hold) -> Any:
        names = (*((f"step:{hold.task}/s",) if hold.in_step else ()), f"task:{hold.task}", *self.above)
        if names[0] not in self.accounts:
            return StoreError
        content = (hold.id, names[0], hold.amount)
        if hold.key in self.keys:
            if self.keys[hold.key] != content:
                return KeyConflict
            return None if hold.id in self.open else Repeated
        if refusal := self.refusal(names, hold.amount):
            return refusal
        if hold.id in self.ever:
            return StoreError  # an attempt holds once
        self.ever.add(hold.id)
        self.open[hold.id] = Open(names, hold.amount, hold.sent)
        if hold.key is not None:
            self.keys[hold.key] = content
        self.add(names, hold.amount)
        return None

    def sent(self, id: str) -> Any:
        if id not in self.open:
            return StoreError
        self.open[id].sent = True
        return None

    def take(self, amount: Amount) -> Any:
        if self.lease_over:
            return StoreError
        if refusal := self.refusal(self.above, amount):
            return refusal
        if self.lease is None:
            self.lease = Open(self.above, Amount(), sent=True)
        self.lease.amount += amount
        self.add(self.above, amount)
        return None

    def draw(self, draw: Draw) -> Any:
        if draw.id in self.ever:
            return None  # it was told before
        name = f"task:{draw.task}"
        charged, over = split(draw.held, draw.used)
        if self.lease is None or name not in self.accounts or self.accounts[name].refuses(name, charged):
            return StoreError
        left = self.lease.amount - charged
        if min(left.micro_usd, left.tokens, left.ms) < 0:
            return StoreError
        self.ever.add(draw.id)
        self.lease.amount = left
        for of in (name, *self.above):
            self.accounts[of].settled += charged
            self.accounts[of].over += over
            if of != name:
                self.accounts[of].held -= charged
        return None

    def give_back(self, charged: Amount) -> None:
        if self.lease is not None:
            self.end(self.lease, charged)
            self.lease = None
            self.lease_over = True

    def recovered(self) -> Ended:
        sent = [hold for hold in self.open.values() if hold.sent]
        ended = Ended(void=len(self.open) - len(sent), settled=len(sent) + (self.lease is not None))
        for hold in self.open.values():
            self.end(hold, hold.amount if hold.sent else Amount())
        self.open.clear()
        self.give_back(self.lease.amount if self.lease is not None else Amount())
        return ended

    def end(self, hold: Open, used: Amount) -> None:
        charged, over = split(hold.amount, used)
        for name in hold.names:
            self.accounts[name].held -= hold.amount
            self.accounts[name].settled += charged
            self.accounts[name].over += over

    def add(self, names: tuple[str, ...], amount: Amount) -> None:
        for name in names:
            self.accounts[name].held += amount

    def refusal(self, names: tuple[str, ...], amount: Amount) -> Refusal | None:
        refusals = (self.accounts[name].refuses(name, amount) for name in names)
        return next((refusal for refusal in refusals if refusal is not None), None)


def split(held: Amount, used: Amount) -> tuple[Amount, Amount]:
    charged = Amount(
        micro_usd=min(used.micro_usd, held.micro_usd), tokens=min(used.tokens, held.tokens), ms=min(used.ms, held.ms)
    )
    over = used - charged
    return charged, over if held.ms else Amount(micro_usd=over.micro_usd, tokens=over.tokens)
