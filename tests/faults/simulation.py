"""One seed, from the first message to the last commit."""

from __future__ import annotations

import random
from dataclasses import replace
from random import Random
from typing import Any

import anyio

from rustmq_sdk import Consumer, ConsumerConfig, DriverError, Producer, ProducerConfig
from rustmq_sdk.drivers.memory import MemoryBroker, MemoryDriver
from rustmq_sdk.drivers.memory.driver import _LOG, _QUEUE
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing import FaultPlan, FaultyDriver
from rustmq_sdk.testing import run as run_loop
from rustmq_sdk.testing.clock import Backend
from tests.faults.journal import Journal
from tests.faults.observer import Observer, Process, outgoing, watchdog
from tests.faults.records import Owner, Violation
from tests.faults.scenario import GROUP, TOPIC, Scenario
from tests.faults.users import User
from tests.faults.watched import WatchedSource

LIMIT = 2000.0
"""Virtual seconds of a simulation: all of them take less than a tenth, unless everybody waits for ever."""
DRAIN = 300.0
"""Virtual seconds that the last consumer has for what the others left."""


def simulate(seed: int, backend: Backend, *, schedule: int | None = None) -> Journal:
    """Plays a seed; raises :class:`Violation` with everything needed to repeat it."""
    scenario = Scenario.of(seed)
    simulation = Simulation(scenario)
    random.seed(seed)
    try:
        with watchdog():
            run_loop(simulation.play, backend=backend, seed=seed if schedule is None else schedule, limit=LIMIT)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise

        simulation.problems.append(repr(error))
        raise Violation(simulation.story(backend)) from error

    if simulation.problems:
        raise Violation(simulation.story(backend))

    return simulation.journal


class Simulation:
    """The world of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.broker = MemoryBroker(wall_clock=anyio.current_time)
        self.journal = Journal(
            self.broker,
            GROUP,
            TOPIC,
            is_queue=scenario.kind == "queue",
            max_attempts=scenario.retry.max_attempts if scenario.has_route else 1000,
        )
        self.problems = self.journal.violations
        self.plans: list[FaultPlan] = []
        self._rng = Random(scenario.seed)
        capabilities = _LOG if scenario.kind == "log" else _QUEUE
        if scenario.kind == "log":
            capabilities = replace(capabilities, checkpoint_room=scenario.checkpoint_room)

        self._capabilities = capabilities
        self._ending = anyio.Event()

    async def play(self) -> None:
        """Everything at once; then one consumer for what is left; then the books are checked."""
        self._ending = anyio.Event()
        self.broker.create_topic(TOPIC, self.scenario.partitions)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._produce, self._fork())
            tasks.start_soon(self._play_fate, self._fork())
            for number in range(self.scenario.consumers):
                tasks.start_soon(self._lives, f"c{number}", self._fork())

            await anyio.sleep(self._rng.uniform(1.0, 7.0))
            self._ending.set()

        self._check_log()
        if self.scenario.ordered:
            self.journal.check_key_order()

        await self._drain()
        if self.scenario.kind == "log":
            self.journal.check_positions()

    def _fork(self) -> Random:
        return Random(self._rng.random())

    # Producing

    async def _produce(self, rng: Random) -> None:
        """All messages, in bursts, over a driver that fails."""
        scenario = self.scenario
        async with self._process(rng, operations=("sink.append", "sink.partitions"), crashes=False) as driver:
            config = ProducerConfig(
                linger=rng.choice((0.0, 0.005)),
                batch_size=rng.choice((3, 20, 500)),
                max_buffered=rng.choice((500, 10_000)),
            )
            async with Producer(driver.sink(), config=config, idempotent=True, rng=self._fork()) as producer:
                number = 0
                while number < scenario.messages:
                    burst = range(number, min(scenario.messages, number + rng.choice((1, 20, 100))))
                    await producer.send_batch(TOPIC, [outgoing(scenario, rng, each) for each in burst])
                    number = burst.stop
                    await anyio.sleep(rng.choice((0.0, 0.01, 0.5)))

    def _check_log(self) -> None:
        """Every message was written once, and those of one partition in the order of sending."""
        found = []
        for number in range(self.scenario.partitions):
            log = self.broker.logs(TOPIC, slot="sink", operation="append")[number]
            numbers = [int(record[0] or b"") for record in log.read(range(log.end)).records]
            if numbers != sorted(numbers):
                self.journal.broken(f"partition {number} has its messages out of order")

            found += numbers

        if sorted(found) != list(range(self.scenario.messages)):
            self.journal.broken(f"{self.scenario.messages} messages were sent, and {len(found)} written")

    # Fate

    async def _play_fate(self, rng: Random) -> None:
        """What happens to the group and the log by itself."""
        left = self.scenario.broken
        while not self._ending.is_set():
            with anyio.move_on_after(rng.uniform(0.2, 6.0)):
                await self._ending.wait()

            if self.scenario.kind == "queue":
                continue

            event = rng.randrange(6)
            if event == 0:
                self.journal.note("rebalance")
                self.broker.rebalance(GROUP)
            elif event == 1 and self.journal.group.members:
                self.journal.note("expire")
                self.broker.expire(GROUP, rng.choice(list(self.journal.group.members)))
            elif event == 2:
                self.broker.skip(TOPIC, rng.randrange(self.scenario.partitions), rng.choice((1, 5)))
            elif left:
                left -= 1
                self.broker.append_broken(TOPIC, rng.randrange(self.scenario.partitions), b"raw")

    # Consumers

    async def _lives(self, name: str, rng: Random) -> None:
        """One consumer after the other, each a process of its own."""
        number = 0
        while not self._ending.is_set():
            number += 1
            owner = Owner(f"{name}.{number}")
            last = number >= self.scenario.lives
            with anyio.CancelScope() as scope:
                await self._live(owner, rng, scope, seconds=1000.0 if last else self._life_span(rng))

            await anyio.sleep(rng.choice((0.0, 0.5)))

    async def _live(self, owner: Owner, rng: Random, scope: anyio.CancelScope, *, seconds: float) -> None:
        config = self._config(rng)
        async with self._process(rng) as driver:
            consumer = self._consumer(driver, owner, config, rng)
            try:
                await self._use(consumer, driver, owner, config, rng, scope, seconds)
            except DriverError as error:
                self.journal.note(f"{owner.name} failed: {error}")
                if not self.plans[-1].injected and not any(plan.injected for plan in self.plans):
                    raise

    async def _use(
        self,
        consumer: Consumer,
        driver: FaultyDriver,
        owner: Owner,
        config: ConsumerConfig,
        rng: Random,
        scope: anyio.CancelScope,
        seconds: float,
    ) -> None:
        began = [0.0]
        try:
            async with consumer:
                try:
                    await self._session(consumer, driver, owner, config, rng, scope, seconds)
                finally:
                    began[0] = anyio.current_time()
        finally:
            self._check_closing(owner, config, began[0])

        self._check_statistics(consumer, owner)

    async def _session(
        self,
        consumer: Consumer,
        driver: FaultyDriver,
        owner: Owner,
        config: ConsumerConfig,
        rng: Random,
        scope: anyio.CancelScope,
        seconds: float,
    ) -> None:
        async with anyio.create_task_group() as tasks:
            user = User(
                consumer,
                self.journal,
                owner,
                self.scenario,
                rng,
                tasks,
                oddity=self._oddity(rng),
                seeks=self.scenario.kind == "log" and rng.random() < 0.2,
                auto_commit=config.auto_commit,
            )
            tasks.start_soon(self._end, consumer, driver, owner, config, scope, rng, seconds)
            observer = Observer(self.journal, consumer, owner, config)
            if not self.scenario.ordered and rng.random() < 0.5:
                owner.in_offset_order = True
                tasks.start_soon(observer.watch, rng, 0)
                await user.receive()
            else:
                await self._run(user, owner, observer, tasks, config, rng)

            tasks.cancel_scope.cancel()

    async def _run(
        self, user: User, owner: Owner, observer: Observer, tasks: Any, config: ConsumerConfig, rng: Random
    ) -> None:
        is_log = self.scenario.kind == "log"
        ordering = rng.choice(("key", "key", "partition", "none")) if is_log else "none"
        if self.scenario.ordered and ordering == "none":
            ordering = "key"

        concurrency = rng.choice((1, 2, 8))
        batch_size = rng.choice((None, None, min(5, config.max_in_flight)))
        owner.in_offset_order = ordering == "partition" or (concurrency == 1 and ordering == "none")
        tasks.start_soon(observer.watch, rng, concurrency)
        await user.work(ordering=ordering, concurrency=concurrency, batch_size=batch_size)

    async def _end(
        self,
        consumer: Consumer,
        driver: FaultyDriver,
        owner: Owner,
        config: ConsumerConfig,
        scope: anyio.CancelScope,
        rng: Random,
        seconds: float,
    ) -> None:
        """How a life ends: crashed by a fault, or in one of the other ways when its time is over."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._crash, driver, owner, scope)
            with anyio.move_on_after(seconds):
                await self._ending.wait()

            tasks.cancel_scope.cancel()

        way = rng.choice(("stop", "close", "cancel", "kill"))
        self.journal.note(f"{owner.name} ends: {way}")
        if way == "kill":
            driver.crashed.set()
            await self._crash(driver, owner, scope)
        elif way == "cancel":
            scope.cancel()
        elif way == "stop":
            owner.may_finish_until = anyio.current_time() + 0.6 * config.close_timeout
            consumer.stop()
        else:
            started = anyio.current_time()
            owner.may_finish_until = started + 0.6 * config.close_timeout
            await consumer.close()
            self._check_closing(owner, config, started)

    async def _crash(self, driver: FaultyDriver, owner: Owner, scope: anyio.CancelScope) -> None:
        await driver.crashed.wait()
        self.journal.note(f"{owner.name} crashes")
        owner.dead = True
        for membership in owner.memberships:
            membership.leave()

        scope.cancel()

    async def _drain(self) -> None:
        """Without faults: everything that is left, and nothing else, and the positions end where the logs end."""
        owner = Owner("last", in_offset_order=True)
        config = ConsumerConfig(
            group=GROUP, retry=self.scenario.retry, lease=8.0, close_timeout=4.0, commit_timeout=4.0, cache_messages=1
        )
        async with MemoryDriver(self.broker, self._capabilities) as driver:
            faulty = FaultyDriver(driver, FaultPlan())
            consumer = self._consumer(faulty, owner, config, self._rng)
            async with consumer:
                with anyio.move_on_after(DRAIN):
                    while await self._settle_rest(consumer, owner) or next(self.journal.unhandled(), None) is not None:
                        pass

                if left := list(self.journal.unhandled()):
                    self.journal.broken(f"lost: {len(left)} messages, {left[:5]}; {consumer.health()}")

            self._check_statistics(consumer, owner)

    async def _settle_rest(self, consumer: Consumer, owner: Owner) -> int:
        settled = 0
        with anyio.move_on_after(2.0):
            while True:
                message = await consumer.receive()
                settled += 1
                self.journal.delivered(owner, message)
                roll = self._rng.random()
                if roll < 0.1 and message.attempt < self.scenario.retry.max_attempts:
                    self.journal.given_back(owner, message, "nack", await message.nack(0.0))
                elif roll < 0.15 and self.scenario.has_route:
                    self.journal.given_back(owner, message, "reject", await message.reject())
                else:
                    self.journal.settling(owner, message)
                    self.journal.acked(owner, message, await message.ack())

        return settled

    # Parts

    def _life_span(self, rng: Random) -> float:
        return rng.uniform(0.3, 5.0)

    def _oddity(self, rng: Random) -> float:
        return rng.choice((0.0, 0.1, 0.5))

    def _config(self, rng: Random) -> ConsumerConfig:
        return self.scenario.config(rng)

    def _process(self, rng: Random, *, operations: tuple[str, ...] | None = None, crashes: bool | None = None) -> Any:
        plan = self.scenario.plan(rng.randrange(1 << 30))
        if operations is not None:
            plan._operations = operations
            plan._kinds = ("refused", "reply_lost", "reply_late", "hang", "disconnect")

        self.plans.append(plan)
        return Process(MemoryDriver(self.broker, self._capabilities), plan)

    def _consumer(self, driver: FaultyDriver, owner: Owner, config: ConsumerConfig, rng: Random) -> Consumer:
        request = SourceRequest(topics=(TOPIC,), group=GROUP, lease=config.lease, revoke_budget=config.close_timeout)
        source = WatchedSource(driver.source(request), self.journal, owner)
        route = driver.dead_letters("dlq") if self.scenario.has_route else None
        consumer = Consumer(source, config=config, route=route)
        consumer._session.rng = Random(rng.random())
        return consumer

    # Checks

    def _check_closing(self, owner: Owner, config: ConsumerConfig, began: float) -> None:
        took = anyio.current_time() - began
        if began and took > config.close_timeout + 0.001:
            self.journal.broken(f"{owner.name} took {took:.3f} s to close, close_timeout={config.close_timeout}")

    def _check_statistics(self, consumer: Consumer, owner: Owner) -> None:
        if owner.dead:
            return

        statistics = consumer.statistics()
        for name in ("acked", "nacked", "rejected"):
            counted, seen = getattr(statistics, name), owner.counts[name]
            if counted != seen and not (self.scenario.kind == "queue" and counted < seen):
                self.journal.broken(f"{owner.name}: statistics say {counted} {name}, it was {seen}")

    def story(self, backend: Backend) -> str:
        """What to read when a seed fails."""
        seed = self.scenario.seed
        injected = [fault for plan in self.plans for fault in plan.injected]
        lines = [
            f"seed {seed} on {backend} broke {len(self.problems)} promises:",
            *(f"  * {problem}" for problem in self.problems[:10]),
            f"scenario: {self.scenario}",
            f"faults: {injected}",
            "the last events:",
            *(f"  {event}" for event in self.journal.events(40)),
            f"repeat it: RUSTMQ_SEED={seed} python -m pytest tests/faults/test_simulations.py -k {backend}-seed",
        ]
        return "\n".join(lines)
