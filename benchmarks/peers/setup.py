"""What one run works with, and how its contestants are opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.cases import Cases
from peers.contestant import Contestant
from peers.llama_loop import LlamaLoop
from peers.ours import WAYS, OurHosts, Ours
from peers.report import Report
from peers.server import Server
from swarm.engine.base import EngineSpec
from swarm.engine.llama.process.process import LlamaProcess


@dataclass(frozen=True)
class Setup:
    """`file` is read by everybody; `published` is what peers read where ours reads `file`.

    `quick` makes everything small: a smoke test, no measurement.
    """

    file: str
    published: str
    chat_format: str
    threads: int
    rounds: int
    quick: bool
    rate: float | None  # short requests a second in the mixed load; a third of what the engine can do when `None`
    server: Path | None  # left out when `None`
    server_options: tuple[str, ...]
    llama: bool
    cases: Cases
    report: Report

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def spec(self, **changes: Any) -> EngineSpec:
        """Our engine's settings: the defaults of `EngineSpec`, with memory for 64 requests in flight."""
        settings: dict[str, Any] = {"threads": self.threads, "context": 8192, **changes}
        return EngineSpec(self.file, self.chat_format, **settings)

    # In a process of its own, as hosts use it. In one process with another OpenMP program both would be throttled:
    # their threads together are more than the cores.
    @contextmanager
    def engine(self, **changes: Any) -> Iterator[LlamaProcess]:
        with closing(LlamaProcess.open(self.spec(**changes))) as engine:
            yield engine

    @contextmanager
    def contestants(
        self, *, peers_file: str | None = None, all_ways: bool = False, hosts: bool = True
    ) -> Iterator[list[Contestant]]:
        """Ours first, then the peers, which read `peers_file` if it is given. All are closed afterwards.

        `hosts`: ours once more as hosts of one thread each, as many as there are threads.
        """
        path = peers_file or self.file
        with ExitStack() as stack:
            engine = stack.enter_context(self.engine())
            found: list[Contestant] = [Ours(engine, way) for way in (WAYS if all_ways else ("ours",))]
            if hosts and self.threads > 1:
                found.append(OurHosts([stack.enter_context(self.engine(threads=1)) for _ in range(self.threads)]))
            if self.server is not None:
                server = Server(self.server, path, self.threads, self.server_options)
                found.append(stack.enter_context(closing(server)))
            if self.llama:
                found.append(stack.enter_context(closing(LlamaLoop(path, self.threads))))
            yield found
