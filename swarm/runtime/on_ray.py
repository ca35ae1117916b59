"""Hosts as Ray actors. The only file that decorates, and with `bus/ray.py` the only one that imports ray.

Ray is used for placement and transport alone: it neither restarts actors nor retries their calls, because what was
asked, answered and paid is known to the dispatcher and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from typing import Any

import ray
import structlog
from ray.exceptions import RayActorError, RayTaskError

from protocols import codec
from protocols.control import HostSpec, Ready
from protocols.envelope import Envelope, Message
from protocols.ids import HostId
from swarm.bus.base import Link
from swarm.bus.ray import RayLink
from swarm.errors import LaunchError
from swarm.observe.log import configure_if_nobody_has
from swarm.runtime.host import Host
from swarm.runtime.workshop import Workshop

log = structlog.get_logger(__name__)

PLACEMENT_TIMEOUT_S = 60.0  # for the cluster to find room for a host
REACH_TIMEOUT_S = 5.0
CALLS_AT_ONCE = 8  # deliver, collect and health may overlap


class _Connection:
    """This process's one connection to Ray, shared by its swarms. Ray allows no second one.

    It ends with the last swarm that uses it, unless the caller had connected before any swarm did.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._address: str | None = None
        self._ours = False

    def join(self, address: str | None, cpus: int) -> None:
        """Connect to the cluster at `address`, or start one here with `cpus`. Raises `LaunchError`."""
        with self._lock:
            if not ray.is_initialized():
                self._connect(address, cpus)
                self._address, self._users, self._ours = address, 0, True
            elif self._ours and address not in (None, self._address):
                here = f"the cluster at {self._address}" if self._address else "a Ray of its own"
                raise LaunchError(f"this process is connected to {here}; close that swarm before you join {address}")
            self._users += 1

    def leave(self) -> None:
        """One swarm less."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._ours:
                self._ours = False
                ray.shutdown()

    def _connect(self, address: str | None, cpus: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        what, remedy = "start Ray on this machine", "try --runtime in-process"
        try:
            if address is None:
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
            else:
                what = f"join the Ray cluster at {address}"
                remedy = "start one with `ray start --head`, and give its HOST:PORT"
                _reach(address)
                remedy = "if its nodes ask for a token, set RAY_AUTH_MODE=token here too"
                _take_own_token(address)
                ray.init(address=address, **quiet)
        except Exception as e:
            raise LaunchError(f"cannot {what}: {str(e)[:300]}; {remedy}") from e


_connection = _Connection()


def join(address: str) -> None:
    """Use the cluster at `address`. Raises `LaunchError`. To be followed by one `leave`."""
    _connection.join(address, 0)


def leave() -> None:
    _connection.leave()


class HostActor:
    """A `Host` behind bytes. Plain class; `RayRuntime` makes it an actor."""

    def __init__(self, spec: bytes) -> None:
        (envelope,) = codec.decode(spec)
        assert isinstance(envelope.body, HostSpec)
        self._spec = envelope.body
        self._host: Host | None = None

    async def placed(self) -> str:
        """The node that this actor runs on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    async def open(self) -> bytes:
        configure_if_nobody_has()
        self._host = Host(self._spec, await Workshop.open(self._spec), node=await self.placed())
        return self._packed(self._host.ready)

    async def deliver(self, batch: bytes) -> bytes:
        assert self._host is not None
        return codec.encode([self._envelope(r) for r in self._host.deliver(codec.decode(batch))])

    async def collect(self) -> bytes:
        assert self._host is not None
        return codec.encode(await self._host.collect())

    async def health(self) -> bytes:
        assert self._host is not None
        return self._packed(self._host.health())

    def _envelope(self, body: Message) -> Envelope:
        return Envelope(to="dispatcher", sender=self._spec.host, body=body)

    def _packed(self, body: Message) -> bytes:
        return codec.encode([self._envelope(body)])


class RayRuntime:
    """Joins the cluster at `address`, or starts one of its own on this machine and ends it on close.

    `cpus` and `memory_bytes` are what each host asks of the cluster; `hosts` is how many there will be.
    """

    def __init__(self, address: str | None, hosts: int, cpus: int, memory_bytes: int | None) -> None:
        self._address = address
        self._hosts = hosts
        self._cpus = cpus
        self._memory = memory_bytes
        self._joined = False

    async def start(self, spec: HostSpec) -> tuple[Link, Ready]:
        await asyncio.to_thread(self._join)
        actor = self._create(spec)
        try:
            ready = await self._opened(spec.host, actor)
        except BaseException:
            ray.kill(actor)
            raise
        log.info("host.ready", host=spec.host, node=ready.node, pid=ready.pid)
        return RayLink(spec.host, actor), ready

    async def _opened(self, host: HostId, actor: Any) -> Ready:
        try:
            await asyncio.wait_for(_plain(actor.placed.remote()), PLACEMENT_TIMEOUT_S)
            (envelope,) = codec.decode(await _plain(actor.open.remote()))
        except TimeoutError:
            raise LaunchError(self._no_room(host)) from None
        except RayTaskError as e:
            raise e.cause from None  # the error as it was raised in the host
        except RayActorError as e:
            raise LaunchError(f"host {host!r} died while loading its models: {str(e).splitlines()[0]}") from e
        assert isinstance(envelope.body, Ready)
        return envelope.body

    async def close(self) -> None:
        if self._joined:
            self._joined = False
            await asyncio.to_thread(_connection.leave)

    def _join(self) -> None:
        if not self._joined:
            _connection.join(self._address, self._hosts * self._cpus)
            self._joined = True
        if not ray.is_initialized():
            raise LaunchError("this process is no longer connected to Ray; close the swarm and launch it again")

    def _create(self, spec: HostSpec) -> Any:
        options: dict[str, Any] = {
            "num_cpus": self._cpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": CALLS_AT_ONCE,
            "scheduling_strategy": "SPREAD",
        }
        if self._memory is not None:
            options["memory"] = self._memory
        envelope = Envelope(to=spec.host, sender="dispatcher", body=spec)
        return ray.remote(HostActor).options(**options).remote(codec.encode([envelope]))

    def _no_room(self, host: HostId) -> str:
        free = ray.available_resources()
        wanted = f"{self._cpus} CPUs" + (f" and {self._memory / 2**30:.1f} GiB" if self._memory else "")
        have = f"{free.get('CPU', 0):g} CPUs and {free.get('memory', 0) / 2**30:.1f} GiB are free"
        found = f"host {host!r} found no node with {wanted} within {PLACEMENT_TIMEOUT_S:.0f} s ({have})"
        return f"{found}; lower runtime.hosts, cpus or memory, or close other swarms of this cluster"


def _reach(address: str) -> None:
    """See that somebody listens at `address`: Ray itself would try for minutes. Raises `OSError` or `ValueError`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    with socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S):
        pass


def _take_own_token(address: str) -> None:
    """Join a cluster of this machine with this machine's token.

    `ray start` asks for the token as soon as one exists here (ray ≥ 2.59 makes one for its first local cluster), but
    `ray.init` with an address does not send it unless RAY_AUTH_MODE says so.
    """
    if address.rsplit(":", 1)[0] not in ("127.0.0.1", "localhost", ray.util.get_node_ip_address()):
        return
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:
        return  # an older ray, which has no tokens
    logging.getLogger(setup.__name__).setLevel(logging.ERROR)  # its advice is for who starts a cluster
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


async def _plain(reference: Any) -> Any:
    return await reference
