"""One call of an operation: from Connexion to the operation's function, and from its answer to Flask's response."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import flask
from connexion.resolver import Resolver
from werkzeug.datastructures import MIMEAccept

from handlers.contract.document import Contract
from handlers.errors import InvalidRequest
from handlers.representations import Address, Answer, to_json
from handlers.web.validation import unknown_in_query
from handlers.web.wsgi import client_has_closed
from jobs.errors import Unauthenticated
from jobs.model import Caller
from jobs.service import Service
from jobs.store.tokens import Tokens

OperationFunction = Callable[..., Answer]


class HandlerResolver(Resolver):  # type: ignore[misc]
    """Gives Connexion the function of an operation, wrapped so that it gets the arguments that its parameters name."""

    def __init__(self, contract: Contract, service: Service, functions: Mapping[str, OperationFunction]) -> None:
        super().__init__()
        self._contract = contract
        self._service = service
        self._functions = functions

    def resolve_function_from_operation_id(self, operation_id: str) -> Callable[..., flask.Response]:
        function = self._functions[operation_id]
        wanted = frozenset(inspect.signature(function).parameters)
        operation = self._contract.operations[operation_id]
        answers = self._contract.openapi["paths"][operation.path][operation.method]["responses"]
        offered = list(answers.get("200", {}).get("content", ()))
        header_arguments = [(name, name.lower().replace("-", "_")) for name in operation.header_parameters]

        def handle(**arguments: Any) -> flask.Response:
            if operation.scope is not None and not operation.takes_parameters and (violations := list(unknown_in_query(known=frozenset()))):
                # Connexion validates the parameters only of operations that have some. Pages and health checks accept any parameter.
                raise InvalidRequest("The parameters do not match the contract.", violations=violations)
            given = {name: value for name, value in arguments.items() if name in wanted}
            given |= {argument: value for name, argument in header_arguments if (value := flask.request.headers.get(name)) is not None}
            if "caller" in wanted:
                given["caller"] = arguments["token_info"]["caller"]
            if "accept" in wanted:
                given["accept"] = best_media_type(offered, flask.request.accept_mimetypes)
            if "contract" in wanted:
                given["contract"] = self._contract
            if "address" in wanted:
                given["address"] = Address(flask.request.host, flask.request.is_secure, flask.request.script_root)
            answer = function(self._service, **given)
            if isinstance(answer.body, Iterator):
                connection = flask.request.environ.get("gunicorn.socket")
                caller = arguments["token_info"]["caller"]
                answer = replace(answer, body=while_authorised(answer.body, self._service.tokens, caller, connection))
            return to_response(answer)

        return handle


def best_media_type(offered: Sequence[str], accepted: MIMEAccept) -> str | None:
    """Which of the media types the client prefers; None when it accepts none of them. Parameters of a type, such as `charset`, do not
    count, because each type is offered in one form only."""
    if not accepted:
        return offered[0]
    return MIMEAccept([(wanted.partition(";")[0].strip(), quality) for wanted, quality in accepted]).best_match(offered)


def while_authorised(parts: Iterator[bytes], tokens: Tokens, caller: Caller, connection: Any) -> Iterator[bytes]:
    """A stream that may last as long as a job. It ends when the caller's token is revoked or expires, or when the client has closed its
    connection.

    Empty parts are sent, too: gunicorn sends the head of the answer with the first part, and the job may print nothing for long.
    """
    for part in parts:
        if not part and client_has_closed(connection):
            return
        try:
            tokens.check(caller)
        except Unauthenticated as error:
            yield f"[runcast: {error}]\n".encode()
            return
        yield part


def to_response(answer: Answer) -> flask.Response:
    body = answer.body
    if answer.status in (204, 304):
        response = flask.Response(status=answer.status)
        response.headers.pop("Content-Type", None)
    elif isinstance(body, Iterator):
        response = flask.Response(body, answer.status, mimetype=answer.media_type, direct_passthrough=True)
    else:
        text = body if answer.media_type == "text/html" else to_json(body)
        response = flask.Response(text, answer.status, mimetype=answer.media_type)
    response.headers.update(answer.headers)
    return response
