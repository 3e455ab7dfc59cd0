"""Models on the server: files into its repository, loading and unloading by name, the router's route.

Every version is a model of its own name (``srgpt_v7``), because Triton's explicit control loads by name and
not by version; the router (``srgpt``) is what clients call.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from srgpt.errors import InputError, SrgptError
from srgpt.export.repository import write_config, write_route, write_router
from srgpt.params import Params
from srgpt.progress import console
from srgpt.promotion import registry, server
from srgpt.promotion.server import Server, ServerGoneError
from srgpt.serving.bundle import bundle_hash, read_manifest, verify
from srgpt.serving.client import connect
from srgpt.tracking import Version

log = logging.getLogger(__name__)

LOAD_SECONDS = 300.0
"""How long loading a model may take: a large one reads gigabytes."""


class Deployment:
    """The models of one running server."""

    def __init__(self, params: Params, running: Server) -> None:
        self.params = params
        self.server = running
        self.repository = server.repository(params.serve)
        self._client = connect(running.grpc)
        self._serving: list[str] = []

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def router(self) -> str:
        """Name of the model that clients call."""
        return self.params.promote.model_name

    def name_of(self, version: int) -> str:
        """Return the name of a version's model."""
        return f"{self.router}_v{version}"

    # Files --------------------------------------------------------------------------------------------

    def install(self, version: Version, export: Path | None = None) -> str:
        """Put a version's files (of ``export``, else of the registry) into the repository; return its name.

        Files that are there already are kept where their hashes are the registered ones.
        """
        name = self.name_of(version.version)
        target = self.repository / name
        if not self._intact(target, version):
            with tempfile.TemporaryDirectory(prefix=".install-", dir=self.repository.parent) as temporary:
                source = export or registry.fetch(self.params, version, Path(temporary) / "download")
                staged = Path(temporary) / name
                shutil.copytree(source / "triton" / self.router, staged)
                if not self._intact(staged, version):
                    raise SrgptError(
                        f"version {version.version}: the export at {source} is not the registered one "
                        f"({version.tags.get('srgpt.export_hash', '')[:12]})"
                    )
                shutil.rmtree(target, ignore_errors=True)
                staged.rename(target)
        if not self.is_ready(name):
            self._configure(target)
        return name

    def _intact(self, folder: Path, version: Version) -> bool:
        try:
            manifest = read_manifest(folder / "1")
            verify(folder / "1", manifest)
        except InputError:
            return False
        return bundle_hash(manifest) == version.tags.get("srgpt.export_hash")

    def _configure(self, target: Path) -> None:
        """Write the configuration anew: batching is a setting of the server, not of the export."""
        device = read_manifest(target / "1" / "onnx")["device"]
        tokens = self.params.evaluate.max_new_tokens
        write_config(target, self.params.serve, device=device, max_new_tokens=tokens)

    # Loading ------------------------------------------------------------------------------------------

    def is_ready(self, name: str) -> bool:
        """Return whether a model is loaded."""
        with self._errors(name):
            return bool(self._client.is_model_ready(name, client_timeout=30))

    def load(self, name: str) -> None:
        """Load a model and wait until it is ready.

        On a machine short of time the server has been seen to abort while it starts a model's process. What
        served is then brought back, and the model tried once more.
        """
        try:
            self._load(name)
        except ServerGoneError as error:
            console.print(f"triton: ended while loading {name}; starting it again", highlight=False)
            log.warning("%s", error)
            self.revive()
            self._load(name)
        if name not in self._serving:
            self._serving.append(name)

    def _load(self, name: str) -> None:
        if not self.is_ready(name):
            with self._errors(f"loading {name}"):
                self._client.load_model(name, client_timeout=LOAD_SECONDS)

    def revive(self) -> None:
        """Start the server again where it is gone, with the models that were loaded through this deployment."""
        if server.state(self.params.serve) != "running":
            self.server = server.start(self.params.serve)
            self._client.close()
            self._client = connect(self.server.grpc)
            for name in self._serving:
                self._load(name)

    def unload(self, name: str) -> None:
        """Unload a model after the requests that it is working on, and wait until it is gone."""
        if name in self._serving:
            self._serving.remove(name)
        with self._errors(f"unloading {name}"):
            self._client.unload_model(name, client_timeout=LOAD_SECONDS)
            deadline = time.monotonic() + LOAD_SECONDS
            while self._state(name) not in ("", "UNAVAILABLE"):
                if time.monotonic() > deadline:
                    raise SrgptError(f"Triton did not unload {name} within {LOAD_SECONDS:.0f} s")
                time.sleep(0.05)

    def _state(self, name: str) -> str:
        index = self._client.get_model_repository_index(as_json=True, client_timeout=30)
        found = [m.get("state", "") for m in index.get("models", []) if m["name"] == name]
        return str(found[0]) if found else ""

    def remove(self, name: str) -> None:
        """Unload a model where it is loaded, and take its files away."""
        with self._errors(name):
            loaded = self._state(name) not in ("", "UNAVAILABLE")
        if loaded:
            self.unload(name)
        shutil.rmtree(self.repository / name, ignore_errors=True)

    def tidy(self, keep: set[str]) -> None:
        """Remove all versions but those in ``keep``."""
        for folder in self.repository.glob(f"{self.router}_v*"):
            if folder.name not in keep:
                self.remove(folder.name)

    # Routing ------------------------------------------------------------------------------------------

    def route(self, name: str) -> None:
        """Let the router pass requests on to the model ``name``, and make sure that the router runs."""
        write_route(self.repository / self.router, name)
        if not self.is_ready(self.router):
            write_router(self.repository / self.router, self.params.serve)
        self.load(self.router)

    def routed(self) -> str | None:
        """Return the model that the router passes requests on to; None where there is no route."""
        try:
            target = json.loads((self.repository / self.router / "route.json").read_text())["target"]
        except (OSError, ValueError, KeyError):
            return None
        return str(target)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            server.running(self.params.serve)  # raises with the log where the process is gone
            raise SrgptError(
                f"Triton at {self.server.grpc}: {what}: {error.message().strip()} "
                f"(see {server.log_file(self.params.serve)})"
            ) from None
