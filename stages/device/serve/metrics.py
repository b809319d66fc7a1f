"""What a server counts: requests by status, jobs by their end, tokens, times."""

from __future__ import annotations

import itertools

import psutil

from stages.device.runtime.engine import Answer
from stages.device.serve.prometheus import Counter, Histogram, gauge

JOB_ENDS = ("answered", "encoded", "cancelled", "failed")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RATES = (1, 2, 5, 10, 15, 20, 25, 30, 40, 60, 80, 100, 200, 500, 1000, 2000)


class ServerMetrics:
    """Everything that /metrics shows."""

    def __init__(self) -> None:
        self.requests = Counter("bluelm_requests_total", "Requests to /v1 by status of the answer.", "status", ["200"])
        self.jobs = Counter(
            "bluelm_jobs_total",
            "Accepted requests by their end; those without one are queued or running.",
            "end",
            JOB_ENDS,
        )
        self.accepted = Counter("bluelm_jobs_accepted_total", "Requests that got a place.")
        self.refused = Counter("bluelm_requests_refused_total", "Requests refused with 429 since there was no place.")
        self.prompt = Counter("bluelm_prompt_tokens_total", "Tokens of prompts, image tokens included.")
        self.image = Counter("bluelm_image_tokens_total", "Image tokens of prompts.")
        self.reused = Counter("bluelm_reused_tokens_total", "Tokens of prompts that were in the KV cache already.")
        self.completion = Counter("bluelm_completion_tokens_total", "Generated tokens.")
        self.pictures = Counter("bluelm_pictures_total", "Pictures by where their features came from.", "from", _FROM)
        self.first_token = Histogram(
            "bluelm_time_to_first_token_seconds", "From a request's arrival to its first token.", _SECONDS
        )
        self.decode_rate = Histogram(
            "bluelm_decode_tokens_per_second", "Tokens per second after the first, by answer.", _RATES
        )

    def answered(self, answer: Answer) -> None:
        """Counts an answer's tokens."""
        self.prompt.add(answer.prompt_tokens)
        self.image.add(answer.image_tokens)
        self.reused.add(answer.reused_tokens)
        self.completion.add(answer.generated_tokens)
        if answer.decode_tok_s is not None:
            self.decode_rate.observe(answer.decode_tok_s)

    def text(self, queued: int, running: bool) -> str:
        """Prometheus' text format."""
        counted = [value for value in vars(self).values() if isinstance(value, Counter | Histogram)]
        memory = psutil.Process().memory_info().rss
        return "\n".join(
            itertools.chain(
                *(metric.lines() for metric in counted),
                gauge("bluelm_queue_length", "Requests that wait.", queued),
                gauge("bluelm_requests_running", "Requests that the model is answering.", int(running)),
                gauge("process_resident_memory_bytes", "Resident memory.", memory),
                [""],
            )
        )


_FROM = ("encoder", "cache")
