"""Composes the API process: Connexion routes HTTP by `openapi/jobs.yaml`, Flask-SocketIO carries events; both call plain functions."""

from __future__ import annotations

from handlers.access.audit import Audit
from handlers.access.auth import Authenticator, HostCheck
from handlers.access.rates import Rate
from handlers.contract.document import Contract
from handlers.events.caster import Caster
from handlers.events.packets import PostedPackets
from handlers.events.server import add_sockets, make_encode
from handlers.events.sockets import Sockets
from handlers.events.websocket_patches import SendAllLayer
from handlers.operations import functions_of
from handlers.server.agreement import check_agreement
from handlers.server.gevent_store import WRITE_TIMEOUT_SECONDS, GeventChanges, GeventDatabase
from handlers.web.application import add_audit, add_headers, add_metrics, make_web
from handlers.web.body_timeout import BODY_BYTES, TimedBodies
from handlers.web.gateway import HostCheckLayer, SecurityHeaders, refuse
from handlers.web.metrics import Metrics
from handlers.web.wsgi import Wsgi
from jobs.bootstrap import make_engine, make_service, open_database
from jobs.settings import Settings
from jobs.store.jobs import Store
from jobs.store.logs import Logs

EVENTS_PATH = "/socket.io"


def create_app(settings: Settings) -> Wsgi:
    """Everything that answers clients, from the inside out. Raises ContractError when contract and code differ."""
    contract = Contract.load()
    check_agreement(contract)
    reader = open_database(settings.url)
    feed = reader.feed()
    database = GeventDatabase(reader, open_database(settings.url, busy_seconds=WRITE_TIMEOUT_SECONDS), feed=feed)
    changes = GeventChanges(feed)
    store, logs = Store(database, make_engine(settings.url)), Logs(database)
    service = make_service(settings, store=store, logs=logs, changes=changes)
    caster = Caster(store, logs, changes, make_encode(contract if settings.validate_events else None))
    host_check = HostCheck.of(settings)
    authenticator = Authenticator(service.tokens, calls=Rate(settings.rate_limit), failures=Rate(settings.failure_limit))
    audit = Audit()
    functions = functions_of(contract.operations.values())
    web = make_web(contract, service, authenticator, functions=functions, validate_answers=settings.validate_answers)
    add_metrics(web, Metrics(service, clients=lambda: caster.client_count), authenticator)
    add_headers(web, host_check)
    add_audit(web, contract, audit)
    add_sockets(web, Sockets(contract, caster, authenticator), audit, silent_seconds=settings.silent_seconds)
    posted = PostedPackets(
        SendAllLayer(web.wsgi_app, silent_seconds=settings.silent_seconds), path=EVENTS_PATH, most=BODY_BYTES, refuse=refuse
    )
    bodies = TimedBodies(posted, seconds=settings.body_seconds, refuse=refuse)
    return SecurityHeaders(HostCheckLayer(bodies, host_check))
