"""What one application is made of; every route gets it."""

from __future__ import annotations

from importlib.metadata import version

from starlette.requests import HTTPConnection

from visavis.server.admission import Admission
from visavis.server.authentication import Authentication
from visavis.server.avatars import AvatarStore
from visavis.server.callers_quota import LineShares
from visavis.server.config import ServerConfig, is_loopback
from visavis.server.connections import Connections
from visavis.server.images import ImageDecoder
from visavis.server.interruption import interrupt_all
from visavis.server.memory_trim import MemoryTrimmer
from visavis.server.metrics import Metrics
from visavis.server.model_host import EngineLoader, ModelHost
from visavis.server.principal import Principal, Scope
from visavis.server.quotas import Quotas
from visavis.server.replica import file_name, replica_name
from visavis.server.request_rate import RequestRates
from visavis.server.resume import ResumeDesk
from visavis.server.tokens import ClientTokens
from visavis.server.tracing import Tracing
from visavis.server.videos import VideoJobs


class Server:
    """Everything that one application owns; `app.state.server`."""

    def __init__(self, config: ServerConfig, load: EngineLoader) -> None:
        self.config = config
        replica = replica_name(config)
        # Before admission is closed, so that a load balancer looks away first.
        self.leaving = False
        self.tracing = Tracing.from_config(config)
        self.metrics = Metrics(self.tracing)
        self.images = ImageDecoder(sandbox=config.image_sandbox)
        self.store = AvatarStore(config.data_dir / "avatars", config.gallery)
        self.host = ModelHost(
            config, self.metrics, self.store, load, decode_image=self.images.decode
        )
        self.admission = Admission(self.host, self.metrics, MemoryTrimmer())
        self.auth = Authentication(
            config.keys,
            ClientTokens(config.keys, config.signing_secrets),
            config.allowed_origins,
            local_names_only=is_loopback(config.host) and not len(config.keys),
        )
        usage = config.data_dir / f"usage-{file_name(replica)}.json"
        self.quotas = Quotas(usage if self.auth.required else None)
        self.line_shares = LineShares()
        self.requests = RequestRates()
        self.connections = Connections(config.max_pending_sockets)
        self.desk = ResumeDesk(config, replica)
        self.desk.reachable = self.host.computing
        self.host.on_interrupted = self._interrupt
        self.videos = VideoJobs(config, self.host, self.store, self.metrics, replica=replica)
        self.metrics.build.info({"version": version("visavis"), "model": config.model})

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self.leaving or self.admission.draining

    @property
    def admin_on_main_port(self) -> bool:
        """Metrics and administration share the port only where no other machine can reach it."""
        return self.config.admin_port is None and is_loopback(self.config.host)

    def caller(self, request: HTTPConnection, scope: Scope | None = None) -> Principal:
        """The authenticated caller of a request, which is counted. Raises ProtocolError.

        What changes something is refused to pages of other origins, since a browser sends their
        forms without asking.
        """
        if request.scope.get("method") not in ("GET", "HEAD"):
            self.auth.check_origin(request)
        principal = self.auth.http(request)
        self.requests.take(principal)
        if scope is not None:
            principal.require(scope)
        return principal

    async def _interrupt(self, kept: bool) -> None:
        """The engine restarts; `kept`: its sessions outlive that."""
        await interrupt_all(
            self.desk.sessions, retry_after_s=self.host.recovery.retry_after_s, kept=kept
        )

    def hurry(self) -> None:
        """End all sessions now: the second signal."""
        self.videos.stop()
        for session in self.admission.sessions:
            session.drain(0.0)

    async def drain(self) -> None:
        """Let live sessions and the running video finish; the caller stops the server then."""
        self.videos.refuse()
        await self.admission.drain(self.config.drain_timeout_s)
        await self.videos.drain()
