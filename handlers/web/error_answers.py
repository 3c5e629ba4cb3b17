"""Errors as HTTP answers: whatever was raised becomes a problem."""

from __future__ import annotations

import flask
from connexion.exceptions import ProblemException
from werkzeug.exceptions import HTTPException

from handlers.access.auth import MISSING
from handlers.contract.document import Contract
from handlers.errors import AddressNotFound, InvalidRequest, MethodNotAllowed
from handlers.problems import headers, kind_of, problem
from handlers.representations import to_json
from handlers.web.request import operation_id
from handlers.web.validation import answer_violations, too_large
from jobs.errors import RuncastError, Unauthenticated


def answer_error(error: Exception) -> flask.Response:
    """The answer to a request that raised `error`."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 400:
        return error.get_response()  # type: ignore[return-value]
    own = to_own_error(error)
    response = flask.Response(to_json(problem(own)), kind_of(own).status, mimetype="application/problem+json")
    response.headers.update(headers(own))
    return response


def to_own_error(error: Exception) -> Exception:
    """The error of runcast that means the same as an error of Werkzeug or Connexion. Other errors stay as they are."""
    if isinstance(error, RuncastError):
        return error
    status = getattr(error, "code", None) or getattr(error, "status", None)
    if not isinstance(error, (HTTPException, ProblemException)) or not isinstance(status, int):
        return error
    if status == 404 and "job_id" not in (flask.request.view_args or ()):
        return AddressNotFound(f"There is nothing at {flask.request.path[:200]}.")
    if status == 405:
        return MethodNotAllowed(flask.request.method, sorted(getattr(error, "valid_methods", None) or ()))
    if status == 413:
        return too_large()
    if status == 401:
        return Unauthenticated(MISSING)
    detail = getattr(error, "description", None) or getattr(error, "detail", None) or str(error)
    return InvalidRequest(str(detail)) if status < 500 else error


def validated(contract: Contract, response: flask.Response) -> flask.Response:
    """The answer, or an error of the server if it breaks the contract."""
    if violations := answer_violations(contract, response):
        return answer_error(RuntimeError(f"The answer to {operation_id()} breaks the contract: {'; '.join(violations)}"))
    return response
