"""Refusals as ``application/problem+json`` (RFC 9457): a status and a sentence, nothing leaked."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
#: Faults of one request that are told, and characters of a key that it brought along.
_FAULTS, _KEY_CHARACTERS = 20, 64


class Problem(Exception):
    """Answer a request with a refusal.

    Args:
        status: HTTP status.
        kind: identifier of what is wrong; ends the ``type`` URN.
        detail: a sentence for the person in front of the screen.
        headers: further response headers.
        members: further members of the body, ids only.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.members = members

    def response(self) -> JSONResponse:
        body = {
            "type": f"urn:callshield:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


def _invalid(error: RequestValidationError) -> Problem:
    if any(item["type"] == "json_invalid" for item in error.errors()):
        return Problem(400, "malformed_json", "The body is not valid JSON.")
    # Where and what was expected; never the value that was sent, and never more than was sent.
    faults = [
        {
            "at": ".".join(str(part)[:_KEY_CHARACTERS] for part in item["loc"]),
            "expected": item["msg"],
        }
        for item in error.errors()[:_FAULTS]
    ]
    return Problem(422, "invalid", "The request does not fit /openapi.json.", errors=faults)


def install(app: FastAPI) -> None:
    """Let every error of ``app`` answer as a problem."""

    @app.exception_handler(Problem)
    async def on_problem(_request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error).response()

    @app.exception_handler(HTTPException)
    async def on_http(_request: Request, error: HTTPException) -> JSONResponse:
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        headers = dict(error.headers) if error.headers else None
        return Problem(error.status_code, kind, f"{error.detail}.", headers).response()

    @app.exception_handler(SQLAlchemyError)
    async def on_store(_request: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("store_unreadable", error=type(error).__name__)
        return Problem(
            503, "store_failing", "The database does not answer: try again.", {"Retry-After": "2"}
        ).response()

    @app.exception_handler(Exception)
    async def on_fault(_request: Request, error: Exception) -> JSONResponse:
        log.error("request_failed", error=type(error).__name__)
        return Problem(500, "fault", "Callshield failed at this request.").response()
