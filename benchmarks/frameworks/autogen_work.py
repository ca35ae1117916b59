"""autogen-core: agents on its single-threaded runtime, each asked by a message that it answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler

from frameworks.turns import STEPS, gathered, serve


@dataclass
class Number:
    n: int


class Nothing(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("Does nothing.")

    @message_handler
    async def hand_on(self, message: Number, ctx: MessageContext) -> Number:
        return Number(message.n)


async def main() -> None:
    runtime = SingleThreadedAgentRuntime()
    agents = [AgentId(f"s{i}", "default") for i in range(STEPS)]
    for agent in agents:
        await Nothing.register(runtime, agent.type, Nothing)
    runtime.start()

    async def run(message: Number, through: list[AgentId]) -> object:
        for agent in through:
            message = await runtime.send_message(message, agent)
        return message.n

    await serve(lambda n: run(Number(n), agents), lambda: gathered(lambda n: run(Number(n), agents[:1])))
    await runtime.stop()


if __name__ == "__main__":
    asyncio.run(main())
