"""`bluelm chat --serve`: one model behind an OpenAI-compatible API.

No torch, transformers or onnx.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.artifacts.events import Finished, Notice
from stages.artifacts.folder import open_artifact
from stages.device.runtime.chat_config import ChatConfig, chat_options
from stages.device.runtime.engine import Engine
from stages.device.runtime.pictures import StoredFeatures
from stages.device.serve.access import Access, hosts_of, is_loopback
from stages.device.serve.limits import ServeLimits
from stages.device.serve.listening import Address, HttpServer, listen, parse_address
from stages.device.serve.metrics import JOB_ENDS
from stages.device.serve.picture_files import PictureFolder
from stages.device.serve.picture_sources import PictureSources
from stages.device.serve.remote import RemotePictures
from stages.device.serve.served_model import EngineModel
from stages.device.serve.service import Service


class ServeConfig(ChatConfig):
    """How to serve; what `ChatConfig` says of an answer holds where a request does not say otherwise.

    Attributes:
        name: what clients call the model; None takes its own name.
        api_key_env: environment variable with the key that requests must carry; None for no key.
        allow_files: folder whose pictures requests may name; None for none.
        allow_urls: fetch pictures from public machines that requests name.
        hosts: further names that clients may call this server by.
        limits: what requests may take.
    """

    name: str | None = None
    api_key_env: str | None = None
    allow_files: Path | None = None
    allow_urls: bool = False
    hosts: tuple[str, ...] = ()
    limits: ServeLimits = Field(default_factory=ServeLimits)


@dataclass(frozen=True)
class ServeResult:
    """What a server did before it was stopped."""

    url: str
    answered: int
    encoded: int
    cancelled: int
    failed: int
    refused: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def run(
    config: ServeConfig, model: Path, address: str, features: Path | None = None
) -> Iterator[Notice | Finished[ServeResult]]:
    """Serves a model until Ctrl-C or SIGTERM.

    Args:
        config: how.
        model: an exported model.
        address: `[HOST:]PORT`.
        features: a `features` artifact whose pictures need not be encoded again.

    Yields:
        Where it listens, then what it did.

    Raises:
        BluelmError: anything that cannot be used; all bad values together.
    """
    wanted, access, folder = _checked(config, address)
    answering, running = chat_options(config, load_vision=features is None)
    artifact = open_artifact(model, "onnx")
    stored = None if features is None else StoredFeatures(open_artifact(features, "features").path, artifact.digest)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(wanted))
        engine = Engine(artifact.path, running, stored)
        stack.callback(engine.close)
        engine.wait()
        fetch = RemotePictures(config.limits.url_s) if config.allow_urls else None
        service = Service(
            EngineModel(
                engine,
                config.name or engine.config.name,
                f"fp_{artifact.digest[:12]}",
                config.limits,
                stored,
            ),
            config.limits,
            answering,
            PictureSources(config.limits, folder, fetch),
            access,
        )
        server = HttpServer(service, listener)
        yield from (Notice(notice) for notice in engine.notices)
        yield Notice(f"Serving {service.model.name} at {server.address.url}/v1 (Ctrl-C ends).")
        if config.api_key_env is None and not is_loopback(wanted.host):
            yield Notice("Anyone who reaches this machine can ask: --api-key-env NAME sets a key.", "warning")
        server.run()
        metrics = service.metrics
        ends = {end: int(metrics.jobs.value(end)) for end in JOB_ENDS}
        yield Finished(ServeResult(server.address.url, **ends, refused=int(metrics.refused.value())))


def _checked(config: ServeConfig, address: str) -> tuple[Address, Access, PictureFolder | None]:
    """What can be checked before a model is loaded; raises all problems together."""
    problems: list[BluelmError] = []
    wanted, key, folder = Address("", 0), None, None
    try:
        wanted = parse_address(address)
    except UsageError as problem:
        problems.append(problem)
    if config.api_key_env is not None:
        key = os.environ.get(config.api_key_env, "").strip()
        if not key:
            problems.append(
                UsageError(
                    f"The environment variable {config.api_key_env} is not set or empty.",
                    "It holds the key that requests must carry.",
                    f"Set it: export {config.api_key_env}=…",
                )
            )
    if config.allow_files is not None:
        if config.allow_files.is_dir():
            folder = PictureFolder(config.allow_files)
        else:
            problems.append(
                UsageError(
                    f"--allow-files {config.allow_files} is no folder.",
                    "Requests may name the pictures in it.",
                    "Name a folder that exists.",
                )
            )
    raise_all(problems)
    return wanted, Access(key, hosts_of(wanted.host, config.hosts)), folder
