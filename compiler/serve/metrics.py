"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .embeddings import ServedEncoder
from .growing import Finished
from .served import Served

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Of one server, whatever else the process counts."""

    def __init__(self, models: Iterable[Served | ServedEncoder]) -> None:
        self._all = registry = CollectorRegistry()
        of = ["model"]
        self._requests = Counter(
            "waferc_requests", "Requests answered.", ["endpoint", "status"], registry=registry
        )
        self._gone = Counter(
            "waferc_requests_abandoned", "Requests whose client went away.", registry=registry
        )
        self._prompt = Counter("waferc_prompt_tokens", "Tokens of prompts taken.", of, registry=registry)
        self._made = Counter("waferc_generated_tokens", "Tokens made.", of, registry=registry)
        self._cycles = Counter("waferc_wafer_cycles", "Predicted cycles of calls.", of, registry=registry)
        self._waited = self._seconds("waferc_wait_seconds", "From a request to its slot.", registry)
        self._first = self._seconds("waferc_first_token_seconds", "From a slot to the first token.", registry)
        self._token = self._seconds("waferc_token_seconds", "Of each token after the first.", registry)
        slots = Gauge("waferc_slots", "Texts that there is room for.", of, registry=registry)
        busy = Gauge("waferc_slots_busy", "Texts under way.", of, registry=registry)
        waiting = Gauge("waferc_texts_waiting", "Texts that wait for a slot.", of, registry=registry)
        for served in models:
            if isinstance(served, Served):
                scheduler, name = served.scheduler, served.name
                slots.labels(name).set(scheduler.slots)
                busy.labels(name).set_function(lambda s=scheduler: s.busy)
                waiting.labels(name).set_function(lambda s=scheduler: s.waiting)

    @staticmethod
    def _seconds(name: str, what: str, registry: CollectorRegistry) -> Histogram:
        return Histogram(name, what, ["model"], buckets=SECONDS, registry=registry)

    def answered(self, endpoint: str, status: int) -> None:
        self._requests.labels(endpoint, status).inc()

    def abandoned(self) -> None:
        self._gone.inc()

    def made(self, served: Served, ends: Iterable[Finished]) -> None:
        """Texts that are finished."""
        name = served.name
        for end in ends:
            self._prompt.labels(name).inc(end.prompt)
            self._made.labels(name).inc(end.made)
            self._cycles.labels(name).inc(served.cycles(end.calls))
            self._waited.labels(name).observe(end.waited)
            self._first.labels(name).observe(end.prompt_seconds)
            if (rate := end.tokens_per_second) is not None:
                self._token.labels(name).observe(1 / rate)

    def text(self) -> bytes:
        """In Prometheus' form."""
        return generate_latest(self._all)
