"""A loaded model: pictures in, answers out.

    engine = Engine(open_artifact(folder, "onnx").path)
    picture = engine.album.add(path)            # encodes in the background
    for event in engine.answer(messages, [picture.result()]): ...

Vision and language load side by side in threads (Sec. 3.4: together at start); the vision graphs are freed when no
picture waits. Nothing here imports torch, transformers or onnx.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.device.contract.device_config import read_device_config
from stages.device.contract.names import RUN_FILES
from stages.device.prompt.encoder import load_prompt_encoder
from stages.device.prompt.messages import Message
from stages.device.runtime.album import Album, PictureFeatures
from stages.device.runtime.cache import overflow
from stages.device.runtime.context import PictureSlot, TokenPrompt
from stages.device.runtime.decoder import DEFAULT_CHUNK
from stages.device.runtime.encoder import DEFAULT_BATCH, ImageEncoder
from stages.device.runtime.feature_disk import FeatureDisk
from stages.device.runtime.generator import Generation, StopReason, Token, generate
from stages.device.runtime.language import DEFAULT_CAPACITY, LanguageModel, load_language
from stages.device.runtime.memory import peak_rss_mb
from stages.device.runtime.pictures import FeatureStore, PictureReader
from stages.device.runtime.sampling import Sampler, SamplingSpec
from stages.device.runtime.session_cache import user_cache
from stages.device.runtime.sessions import missing_graph
from stages.device.runtime.stop_texts import until_stop_text


@dataclass(frozen=True)
class EngineOptions:
    """How a model is run.

    Attributes:
        threads: CPU threads; None takes every core.
        capacity: positions of KV cache at first; it grows as needed.
        chunk: positions per prefill run.
        batch: tiles per batch.
        pipeline: overlap patch embedding with the ViT blocks.
        keep_vision: hold the vision graphs in memory between pictures.
        load_vision: load them at the start; they load by themselves when the first picture comes.
        cache: keep prepacked weights of large graphs on disk, see `session_cache`.
    """

    threads: int | None = None
    capacity: int = DEFAULT_CAPACITY
    chunk: int = DEFAULT_CHUNK
    batch: int = DEFAULT_BATCH
    pipeline: bool = True
    keep_vision: bool = False
    load_vision: bool = True
    cache: bool = True

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise UsageError(f"--chunk is {self.chunk}.", "A chunk holds at least one token.", "Give 1 or more.")


@dataclass(frozen=True)
class AnswerOptions:
    """How an answer is made: at most `max_tokens` tokens, chosen by `sampling`, ending before the first `stop` text."""

    max_tokens: int = 256
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(
                f"--max-tokens is {self.max_tokens}.", "An answer has at least one token.", "Give 1 or more."
            )


@dataclass(frozen=True)
class Answer:
    """An answer and what it took.

    Attributes:
        text: the whole answer.
        reason: why it ended.
        image_tokens: image tokens in the prompt.
        prompt_tokens: all tokens of the prompt, image tokens included.
        reused_tokens: those of them that were in the KV cache already.
        generated_tokens: tokens of the answer.
        first_token_s: from the question to its first token: waiting for pictures, and prefill.
        prefill_s: prefill alone.
        decode_tok_s: tokens per second after the first; None where there was only one.
        peak_rss_mb: largest memory of this process so far.
    """

    text: str
    reason: StopReason | None
    image_tokens: int
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    first_token_s: float
    prefill_s: float
    decode_tok_s: float | None
    peak_rss_mb: float


class Engine:
    """An exported model, loading from the moment it is made.

    Args:
        folder: the exported model.
        options: how to run it.
        stored: features that need not be computed.
        disk: where features are kept between runs; None for nowhere.
        clock: what waiting for pictures and for the first token is measured with.

    Raises:
        ModelError: graphs are missing, or configuration, tokenizer or template cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        options: EngineOptions | None = None,
        stored: FeatureStore | None = None,
        disk: FeatureDisk | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder, self.options, self.clock = folder, options or EngineOptions(), clock
        self.config = read_device_config(folder)
        for name in RUN_FILES:
            if not (folder / name).is_file():
                raise missing_graph(folder / name)
        spec = self.config.prompt
        self.prompt = load_prompt_encoder(folder, spec.image_token, {"bos_token": spec.bos_token or ""})
        self._cache = user_cache() if self.options.cache else None
        self.encoder = ImageEncoder(
            folder, self.config, self.options.threads, self.options.batch, self.options.pipeline, self._cache
        )
        self.album = Album(PictureReader(self.encoder, self.config, stored, disk), self._vision_idle, clock)
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="language")
        self._language: Future[LanguageModel] = self._loader.submit(
            load_language,
            folder,
            self.config,
            threads=self.options.threads,
            capacity=self.options.capacity,
            chunk=self.options.chunk,
            cache=self._cache,
        )
        self._vision = self.album.run_first(self.encoder.load) if self.options.load_vision else None

    @property
    def language(self) -> LanguageModel:
        """The language side, once it is loaded; raises ModelError where it cannot be."""
        return self._language.result()

    @property
    def loading(self) -> tuple[Future[object], ...]:
        """What loads at the start; a future raises ModelError where that fails."""
        return tuple(part for part in (self._vision, self._language) if part is not None)  # type: ignore[misc]

    @property
    def load_s(self) -> float:
        """Seconds until both sides were loaded; they load side by side."""
        return max(self.language.load_s, self.encoder.load_s)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user may want to know about loading, so far."""
        return tuple(self._cache.notices) if self._cache is not None else ()

    def wait(self) -> None:
        """Waits until everything that loads at the start is there.

        Raises:
            ModelError: something cannot be loaded; all such problems together.
        """
        problems: list[BluelmError] = []
        for part in self.loading:
            try:
                part.result()
            except BluelmError as problem:
                problems.append(problem)
        raise_all(problems)

    def prompt_tokens(self, messages: Sequence[Message], pictures: Sequence[PictureFeatures] = ()) -> int:
        """How many positions a conversation takes before its answer; raises UsageError as `answer` does."""
        tokens = [picture.tokens for picture in pictures]
        return len(self.prompt.encode(messages, tokens, add_generation_prompt=True).ids)

    def answer(
        self,
        messages: Sequence[Message],
        pictures: Sequence[PictureFeatures] = (),
        options: AnswerOptions | None = None,
        asked: float | None = None,
    ) -> Iterator[Token | Answer]:
        """Answers a conversation whose last turn is the user's.

        Args:
            messages: see `stages.device.prompt.messages`.
            pictures: what its picture parts show, in order.
            options: length and sampling.
            asked: `clock()` when the question came; now where it is not given.

        Yields:
            Every token, then the answer.

        Raises:
            UsageError: the conversation does not fit the model's context, or pictures do not fit its messages.
            ModelError: a graph fails or computes NaN.
        """
        asked = self.clock() if asked is None else asked
        options = options or AnswerOptions()
        encoded = self.prompt.encode(messages, [picture.tokens for picture in pictures], add_generation_prompt=True)
        limit = self.language.context.limit
        if len(encoded.ids) > limit:
            raise overflow(len(encoded.ids), limit)
        started = self.clock()
        slots = [PictureSlot(picture.digest, picture.features) for picture in pictures]
        prompt = TokenPrompt(encoded.ids, self.prompt.image_token_id, slots)
        context = self.language.contexts.choose(prompt.keys())
        read = context.read(prompt)
        prefilled = self.clock()
        state = Generation()
        tokens = generate(
            context,
            read.logits,
            choose=Sampler(options.sampling, never=[self.config.prompt.image_token_id]),
            decode=self.prompt.decode,
            stop_ids=self.config.prompt.eos_token_ids,
            max_tokens=options.max_tokens,
            state=state,
        )
        yield from until_stop_text(tokens, options.stop, state)
        yield Answer(
            text=state.text,
            reason=state.reason,
            image_tokens=encoded.image_tokens,
            prompt_tokens=len(encoded.ids),
            reused_tokens=read.reused,
            generated_tokens=len(state.ids),
            first_token_s=prefilled - asked,
            prefill_s=prefilled - started,
            decode_tok_s=state.tok_s,
            peak_rss_mb=peak_rss_mb(),
        )

    def close(self) -> None:
        """Ends the background threads and frees the graphs of vision."""
        self.encoder.stop()
        self.album.close()
        self._loader.shutdown(wait=True)
        self.encoder.release()

    def _vision_idle(self) -> None:
        if not self.options.keep_vision:
            self.encoder.release()
