"""A Kafka as tests see it: where it listens, topics of their own, and nodes that can be killed."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from tests.services import control
from tests.services.catalogue import CATALOGUE
from tests.services.checkout import Checkout
from tests.services.kafka_properties import PASSWORD, SECURE, USER
from tests.services.service import Service, Site


class KafkaServer:
    """One Kafka cluster; of one node, or of three.

    Attributes:
        bootstrap: the addresses of all its nodes, without encryption or users.
        user, password: known to every listener with SASL, for PLAIN and for both kinds of SCRAM.
    """

    user = USER
    password = PASSWORD

    def __init__(self, bootstrap: str) -> None:
        """A server that is somebody else's: it can be used, and not be killed."""
        self.bootstrap = bootstrap
        self.disturbed = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of its nodes, for ``kill`` and ``restart``, in the order of ``bootstrap``."""
        return tuple(self.bootstrap.split(","))

    async def kill(self, node: str | None = None) -> None:
        """Kills a node with SIGKILL, all of them if none is named. After the test they are started again."""
        pytest.skip(f"kills a node, and {self.bootstrap} is not ours to kill")

    async def restart(self, node: str | None = None) -> None:
        """Ends a node in good order if it runs, and starts it again on the same port and data; all if none is named."""
        pytest.skip(f"restarts a node, and {self.bootstrap} is not ours to restart")

    @property
    def certificates(self) -> Path:
        """A folder with ``ca.pem``, and ``client.pem`` and ``client.key`` for the listener ``mtls``."""
        pytest.skip(f"needs a listener with TLS, and {self.bootstrap} is all that is known of this server")

    def address(self, listener: str) -> str:
        """Where it listens; ``plain``, ``sasl``, ``tls``, ``mtls`` or ``sasl-tls``."""
        if listener == "plain":
            return self.bootstrap

        pytest.skip(f"needs the listener {listener!r}, and {self.bootstrap} is all that is known of this server")

    def client(self, listener: str = "plain", *, mechanism: str = "PLAIN") -> dict[str, Any]:
        """Arguments for aiokafka's clients that reach a listener; the mechanism is SASL's."""
        options: dict[str, Any] = {"bootstrap_servers": self.address(listener)}
        if listener == "plain":
            return options

        options["security_protocol"] = SECURE[listener]
        if "tls" in listener:
            context = ssl.create_default_context(cafile=str(self.certificates / "ca.pem"))
            if listener == "mtls":
                context.load_cert_chain(self.certificates / "client.pem")

            options["ssl_context"] = context

        if "sasl" in listener:
            options |= {"sasl_mechanism": mechanism}
            options |= {"sasl_plain_username": self.user, "sasl_plain_password": self.password}

        return options

    async def new_topic(
        self,
        name: str = "topic",
        *,
        partitions: int = 1,
        replicas: int | None = None,
        configs: Mapping[str, str] | None = None,
    ) -> str:
        """Makes a topic that no other test has, and returns its name, which begins with ``name``. On both loops."""
        unique = f"{name}-{secrets.token_hex(4)}"
        made = self._create(unique, partitions, replicas or len(self.nodes), dict(configs or {}))
        # aiokafka knows asyncio only, and the test may run on trio.
        await anyio.to_thread.run_sync(asyncio.run, made)
        return unique

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        """An open ``AIOKafkaAdminClient``; on asyncio."""
        from aiokafka.admin import AIOKafkaAdminClient

        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def _create(self, name: str, partitions: int, replicas: int, configs: dict[str, str]) -> None:
        from aiokafka.admin import NewTopic
        from aiokafka.errors import for_code

        async with self.admin() as admin:
            made = await admin.create_topics([NewTopic(name, partitions, replicas, topic_configs=configs)])
            for topic, code, *words in made.topic_errors:
                if code:
                    raise for_code(code)(f"{topic}: {words}")

            # The controller has it; brokers tell clients about it a moment later, and have no event to wait for.
            while not await self._is_known(admin, name, partitions):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _is_known(self, admin: Any, name: str, partitions: int) -> bool:
        (topic,) = await admin.describe_topics([name])
        return len(topic["partitions"]) == partitions and all(one["leader"] >= 0 for one in topic["partitions"])


class OwnKafka(KafkaServer):
    """One that this checkout has started."""

    def __init__(self, name: str) -> None:
        self._checkout = Checkout()
        self._service: Service = CATALOGUE[name]
        site = self._checkout.site(self._service)
        assert site is not None, name
        self._site: Site = site
        super().__init__(",".join(site.address(node, "plain") for node in self._service.nodes))

    @property
    def nodes(self) -> tuple[str, ...]:
        return self._service.nodes

    @property
    def certificates(self) -> Path:
        return self._site.folder / "certificates"

    def address(self, listener: str) -> str:
        return self.bootstrap if listener == "plain" else self._site.address(self.nodes[0], listener)

    async def kill(self, node: str | None = None) -> None:
        self.disturbed = True
        for one in [node] if node else self.nodes:
            await anyio.to_thread.run_sync(control.kill, self._checkout, self._service, one)

    async def restart(self, node: str | None = None) -> None:
        self.disturbed = True
        for one in [node] if node else self.nodes:
            await anyio.to_thread.run_sync(control.restart, self._checkout, self._service, one)

    def mend(self) -> None:
        """Starts what a test has killed and left dead."""
        if self.disturbed:
            control.up(self._checkout, self._service, keep=False, install=False, say=lambda _: None)
            self.disturbed = False
