"""What a client is told that asks for what cannot be: OpenAI's shape of errors, and their HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import shown

LONGEST = 500  # characters of a message

# What `type` is for a status.
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Refused(Exception):
    """A request that is not carried out.

    status: of HTTP. param: the field at fault, as a path from the body; None for none. code: the word by
    which programs tell reasons apart. headers: of the response.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        status: int = 400,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = shown(message, LONGEST), param, status, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        # A path holds names that a client chose.
        param = None if self.param is None else shown(self.param, 100)
        return {"error": {"message": self.message, "type": kind, "param": param, "code": self.code}}
