"""What a model consists of: every operator, how often, and where it can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from .frontend.inputs import Binding
from .frontend.opsets import count_operators
from .frontend.refusals import merged
from .host.so_far import StagesSoFar
from .importer import AcceptedModel, accept, walked_on_host, with_rows, with_short_caches


@dataclass(frozen=True)
class Row:
    """One line of `waferc check`. status: "wafer", "host", "unbound" (by --value), "unsupported"."""

    op_type: str
    domain: str
    count: int
    status: str
    reason: str


def survey(
    model: str | Path | bytes | onnx.ModelProto | AcceptedModel,
    given: Binding | None = None,
    states: Sequence[tuple[str, str]] = (),
    capacity: int | None = None,
    weights: bool = True,
) -> list[Row]:
    """Every operator of the model, supported or not; states, capacity, weights: see `import_entries`.

    Raises only for what is no model at all, and for dimensions left open.
    """
    accepted = model if isinstance(model, AcceptedModel) else accept(model, weights)
    stages, bound = StagesSoFar(accepted.ready.proto), given or Binding()
    if capacity is not None:
        bound = with_short_caches(accepted.proto.graph, bound, states)
    taking_rows = with_rows(accepted, bound)
    walked = taking_rows[0] if taking_rows else walked_on_host(accepted, bound, stages)
    refusals, hosts = merged(walked.refusals), merged(stages.hosts)
    rows: list[Row] = []
    for (op_type, domain), count in count_operators(accepted.proto).items():
        of_kind = [
            (r, "unbound" if r.unbound else status)
            for listed, status in ((refusals, "unsupported"), (hosts, "host"))
            for r in listed
            if (r.op_type, r.domain) == (op_type, domain)
        ]
        bad = sum(r.count for r, _ in of_kind)
        rows += [Row(op_type, domain, r.count, status, r.reason) for r, status in of_kind]
        folded = min(walked.folded.get((op_type, domain), 0), count - bad)
        if folded:
            rows.append(Row(op_type, domain, folded, "wafer", "no work: a constant or a renaming"))
        if count > bad + folded:
            rows.append(Row(op_type, domain, count - bad - folded, "wafer", ""))
    return rows
