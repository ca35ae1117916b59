"""What a run can still spend, and what a dollar of that is worth: seen by the policy, never asked of the store.

The store alone holds and refuses. This is the dispatcher's own count of the same money, good enough to weigh with.
"""

from __future__ import annotations

from protocols.money import MicroUSD
from swarm.dispatch.choice import Value
from swarm.dispatch.judge import Verdict
from swarm.dispatch.pacing import Offered, Pacer, pacer
from swarm.plan.plan import Plan

EXPECTED = [(i + 0.5) / 20 for i in range(20)]  # gains in P(right), as long as nothing is known of them


class Purse:
    """One run's. `expected`: how many tasks there will be, if anybody knows."""

    def __init__(self, plan: Plan, expected: int | None = None) -> None:
        self.expected = expected
        self._run, self._task = plan.run_limit.micro_usd, plan.task_limit.micro_usd
        self._mean = plan.aim.micro_usd_per_task
        self._spent: MicroUSD = 0  # and held
        self._begun = self._judged = 0
        self._judged_in_a_task = max(1, sum(any(t.kind == "remote" for t in step.ladder) for step in plan.steps))
        self._pacer: Pacer | None = None  # made when the first way on is weighed, as its price says what to expect

    def begin(self) -> None:
        """A task has begun."""
        self._begun += 1

    def resume(self, micro_usd: MicroUSD, tasks: int) -> None:
        """The run has been here before: so much is spent or held, and so many tasks are over."""
        self._spent += micro_usd
        self._begun += tasks
        self._judged += tasks * self._judged_in_a_task

    def change(self, micro_usd: MicroUSD) -> None:
        """So much more is held or spent; less where it is negative."""
        self._spent += micro_usd

    def left(self, task_spent: MicroUSD, back: MicroUSD = 0) -> float | None:
        """Millionths of a dollar that this task may still hold; None where nothing limits it.

        `back`: of what counts as held, so much is about to be given back.
        """
        limits = []
        if self._task is not None:
            limits.append(self._task - task_spent + back)
        if (whole := self._whole()) is not None:
            limits.append(whole - self._spent + back)
        return max(0.0, float(min(limits))) if limits else None

    def shadow_price(self) -> float:
        """λ: what a dollar must bring beyond itself, for the money to last the tasks that are still to come."""
        whole, n = self._whole(), self._tasks()
        if whole is None or n is None or self._pacer is None:
            return 0.0
        left = n * self._judged_in_a_task - self._judged  # offers that are still to come
        return self._pacer.price(max(0.0, float(whole - self._spent)), max(1.0, float(left)))

    def weighed(self, verdict: Verdict, value: Value) -> None:
        """An answer was judged: what the dearest way on would have brought teaches how dear money is."""
        self._judged += 1
        ways = [w for w in verdict.weighed if w.path and w.micro_usd > 0.0]
        stay = max((w for w in verdict.weighed if not w.path), key=lambda w: w.net, default=None)
        if ways and stay is not None:
            best = max(ways, key=lambda w: (w.quality - stay.quality) / w.micro_usd)
            if self._pacer is None:
                self._pacer = pacer([Offered(value.usd * gain, best.micro_usd) for gain in EXPECTED])
            self._pacer.observe(Offered(max(0.0, (best.quality - stay.quality) * value.usd), best.micro_usd))

    def _whole(self) -> MicroUSD | None:
        """The run's limit, or what its tasks may cost on average times their number so far expected."""
        if self._mean is None:
            return self._run
        meant = self._mean * max(self.expected or 0, self._begun)
        return meant if self._run is None else min(meant, self._run)

    def _tasks(self) -> int | None:
        if self.expected is not None:
            return max(self.expected, self._begun)
        return self._begun if self._mean is not None else None
