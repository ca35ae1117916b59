"""langgraph: a state graph of async nodes, compiled without a checkpointer, as is its default."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from frameworks.turns import STEPS, gathered, serve


class State(TypedDict):
    n: int


async def hand_on(state: State) -> State:
    return {"n": state["n"]}


def graph(n_steps: int):
    builder = StateGraph(State)
    names = [f"s{i}" for i in range(n_steps)]
    for name in names:
        builder.add_node(name, hand_on)
    for one, other in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(one, other)
    return builder.compile()


async def main() -> None:
    chain, single = graph(STEPS), graph(1)

    async def run_chain(n: int) -> object:
        return (await chain.ainvoke({"n": n}))["n"]

    async def run_task(n: int) -> object:
        return (await single.ainvoke({"n": n}))["n"]

    await serve(run_chain, lambda: gathered(run_task))


if __name__ == "__main__":
    asyncio.run(main())
