"""The engine's thread: takes one job after the other, encodes its pictures, answers if asked, and tells its client.

A job that is no longer wanted stops at the next run of a graph: a batch of tiles, a chunk of the prompt, a token.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing

from stages.artifacts.errors import BluelmError, ImageError
from stages.device.runtime.album import PictureFeatures
from stages.device.runtime.cache import ContextLengthError
from stages.device.runtime.engine import Answer
from stages.device.runtime.interruption import Interrupted, check_interruption, interruptible
from stages.device.runtime.memory import trim_heap
from stages.device.serve.api_errors import ApiError, failed, our_fault, queue_full, stopping, too_long
from stages.device.serve.chat_request import ChatRequest
from stages.device.serve.fair_queue import ClientFullError, FairQueue, QueueClosedError, QueueFullError
from stages.device.serve.job import Cancelled, Encoded, Failed, Job, JobEnd, TilesDone
from stages.device.serve.limits import ServeLimits
from stages.device.serve.metrics import ServerMetrics
from stages.device.serve.picture_sources import bad_picture
from stages.device.serve.served_model import ServedModel

_LOG = logging.getLogger(__name__)
# Weight of the latest job in the running mean of what jobs take.
_SHARE = 0.2
_LONGEST_RETRY = 60


class Worker:
    """Answers jobs in a thread of its own.

    Args:
        model: what answers.
        limits: how many jobs may wait.
        metrics: where to count.
    """

    def __init__(self, model: ServedModel, limits: ServeLimits, metrics: ServerMetrics) -> None:
        self.model, self.metrics = model, metrics
        self._queue: FairQueue[Job] = FairQueue(limits.queue, limits.client_queue)
        self._running: Job | None = None
        self._job_s = 1.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def running(self) -> bool:
        """Whether a job is being answered."""
        return self._running is not None

    def start(self) -> None:
        """Begins to take jobs."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Accepts a job.

        Raises:
            ApiError: there is no place (429), or the server is being stopped (503).
        """
        try:
            self._queue.put(job)
        except ClientFullError:
            self.metrics.refused.add()
            raise self._client_full() from None
        except QueueFullError:
            self.metrics.refused.add()
            raise self.full() from None
        except QueueClosedError:
            raise stopping() from None
        self.metrics.accepted.add()

    def full(self) -> ApiError:
        """The answer where there is no place."""
        seconds = self._retry_s()
        waiting = f"{self.queued} requests wait, no more may (limits.queue)."
        message = f"The server is busy: {waiting} Try again in {seconds} s."
        return queue_full(message, seconds)

    def _client_full(self) -> ApiError:
        seconds, each = self._retry_s(), self._queue.each
        waiting = f"{each} of your requests wait, no more may of one client (limits.client_queue)."
        message = f"{waiting} Try again in {seconds} s."
        return queue_full(message, seconds)

    def _retry_s(self) -> int:
        return min(max(round(self._job_s * self.queued), 1), _LONGEST_RETRY)

    def cancel(self, job: Job) -> None:
        """Drops a job that is no longer wanted, wherever it is; one that has ended stays as it is."""
        job.cancel()
        if self._queue.discard(job):
            self._end(job, Cancelled())

    def cancel_all(self) -> None:
        """Drops all jobs."""
        running = self._running
        for job in (*self._queue.items(), *([running] if running is not None else [])):
            self.cancel(job)

    def stop(self) -> None:
        """Drops all jobs and ends the thread."""
        self._stopped.set()
        self._queue.close()
        self.cancel_all()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.take()) is not None:
            self._running = job
            started = time.perf_counter()
            event: JobEnd
            try:
                with interruptible(lambda job=job: job.cancelled or self._stopped.is_set()):  # type: ignore[misc]
                    event = self._done(job)
            except Interrupted:
                event = Cancelled()
            except ApiError as error:
                event = Failed(error)
            except BluelmError as error:
                _LOG.error("%s %s", error.what, error.why)
                event = Failed(failed(error.what))
            except Exception:  # a bug in one request must not leave all others without an engine
                _LOG.exception("a request failed")
                event = Failed(our_fault())
            self._job_s += _SHARE * (time.perf_counter() - started - self._job_s)
            self._running = None
            self._end(job, event)
            if not any(waiting.pictures for waiting in self._queue.items()):
                self.model.rest()
            if not len(self._queue):
                trim_heap()  # bodies and pictures of all that came at once

    def _done(self, job: Job) -> Answer | Encoded:
        """Encodes a job's pictures and, where something is asked, answers.

        Raises:
            ApiError: its pictures are broken.
            BluelmError: the model fails.
            Interrupted: it is no longer wanted.
        """
        check_interruption()
        started = time.perf_counter()
        pictures = [self._features(job, index) for index in range(len(job.pictures))]
        if job.request is None:
            return Encoded(time.perf_counter() - started, all(picture.reused for picture in pictures))
        if not any(waiting.pictures for waiting in self._queue.items()):
            self.model.rest()
        return self._answered(job, job.request, pictures)

    def _answered(self, job: Job, request: ChatRequest, pictures: list[PictureFeatures]) -> Answer:
        """Answers, telling tokens as they come; raises as `_done` does."""
        first = True
        try:
            events = self.model.answer(request.messages, pictures, request.options, job.arrived)
            with closing(events):
                for event in events:
                    if first:
                        self.metrics.first_token.observe(time.perf_counter() - job.arrived)
                        first = False
                    if isinstance(event, Answer):
                        self.metrics.answered(event)
                        return event
                    job.tell(event)
                    check_interruption()
        except ContextLengthError as error:
            raise too_long(error.what) from error
        raise RuntimeError("the model ended without an answer")

    def _features(self, job: Job, index: int) -> PictureFeatures:
        picture = job.pictures[index]
        watch = (lambda done, tiles: job.tell(TilesDone(done, tiles))) if job.request is None else None
        try:
            made = self.model.features(picture, watch)
        except ImageError as error:
            raise bad_picture(picture.place, error) from error
        self.metrics.pictures.add(label="cache" if made.reused else "encoder")
        return made

    def _end(self, job: Job, event: JobEnd) -> None:
        ends = {Answer: "answered", Encoded: "encoded", Failed: "failed", Cancelled: "cancelled"}
        self.metrics.jobs.add(label=ends[type(event)])
        job.tell(event)
