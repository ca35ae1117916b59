"""agent-framework-core, in two ways.

    python -m frameworks.agent_framework_work graph|functional

`graph`: executors joined by edges. One workflow runs one thing at a time, so the tasks have a workflow each, built
beforehand. `functional`: a chain is a coroutine that awaits steps; the tasks are one run that fans out to as many
executors: a single task to the framework, and the most that it does at once.
"""

from __future__ import annotations

import asyncio
import sys

from agent_framework import Executor, WorkflowBuilder, WorkflowContext, handler, step, workflow

from frameworks.turns import STEPS, TASKS, gathered, serve


class HandOn(Executor):
    @handler
    async def run(self, n: int, ctx: WorkflowContext[int]) -> None:
        await ctx.send_message(n)


class PutOut(Executor):
    @handler
    async def run(self, n: int, ctx: WorkflowContext[int, int]) -> None:
        await ctx.yield_output(n)


class PutOutOwn(Executor):
    """Puts out the number in its name: what all of a fan-out are given is the same."""

    @handler
    async def run(self, n: int, ctx: WorkflowContext[int, int]) -> None:
        await ctx.yield_output(int(self.id))


def chain_of(n_steps: int):
    steps = [*(HandOn(id=f"s{i}") for i in range(n_steps - 1)), PutOut(id="last")]
    builder = WorkflowBuilder(start_executor=steps[0], output_from=[steps[-1]])
    return (builder.add_chain(steps) if n_steps > 1 else builder).build()


def fan_out(n_steps: int):
    start, others = HandOn(id="start"), [PutOutOwn(id=str(i)) for i in range(n_steps)]
    return WorkflowBuilder(start_executor=start, output_from=others).add_fan_out_edges(start, others).build()


@step
async def hand_on(n: int) -> int:
    return n


@workflow
async def awaited(n: int) -> int:
    for _ in range(STEPS):
        n = await hand_on(n)
    return n


async def last(built, n: int) -> object:
    return (await built.run(n)).get_outputs()[-1]


async def main(way: str) -> None:
    if way == "graph":
        chain, single = chain_of(STEPS), [chain_of(1) for _ in range(TASKS)]
        await serve(lambda n: last(chain, n), lambda: gathered(lambda n: last(single[n], n)))
    else:
        chain, fan = awaited.build(), fan_out(TASKS)

        async def all_of_fan() -> list[object]:
            return list((await fan.run(0)).get_outputs())

        await serve(lambda n: last(chain, n), all_of_fan)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
