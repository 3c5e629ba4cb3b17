"""A client of the HTTP contract: one method per call, plain JSON in and out.

It knows `openapi/jobs.yaml` and nothing of the server behind it; it must never touch the store. Live events are in `follow.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from jobs.errors import OperatorError, RuncastError
from jobs.model import HEADER_WORD, Json
from jobs.settings import is_loopback

ANSWER_TIMEOUT_SECONDS = 30.0
"""No call of the contract takes longer, except following a log."""
CONNECT_TIMEOUT_SECONDS = 5.0
LOG_PAGE = 10_000
JOB_PAGE = 200
SEARCHED_JOBS = 1000
"""A part of an id is searched among this many of the newest jobs."""

JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PART_OF_ID = re.compile(r"[0-9a-f-]{4,36}", re.IGNORECASE)


class Unreachable(OperatorError):
    """No server answers at the URL, or one that is not runcast."""


class JobNotIdentified(OperatorError):
    """The user's name for a job matches no job, or several."""


class Refused(RuncastError):
    """The server refused the call; `problem` is its answer (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Json]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or "The server refused the call."))
        self.problem = problem

    @property
    def status(self) -> int:
        return int(self.problem.get("status", 0))


@dataclass(frozen=True)
class Token:
    """A token, and where it was found, in words. Raises OperatorError for a token that no request can carry."""

    value: str
    source: str

    def __post_init__(self) -> None:
        # Otherwise a library would fail later, and its message might show the token.
        if not HEADER_WORD.fullmatch(self.value):
            raise OperatorError(f"The token from {self.source} cannot be sent: it must be printable ASCII without spaces.")


def read_token(path: Path) -> Token | None:
    """The token in a file; None when there is no such file."""
    try:
        value = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"The token file {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}.") from error
    return Token(value, source=str(path)) if value else None


class _Bearer(requests.auth.AuthBase):
    """An `auth` object, because an entry of the user's `.netrc` would override a plain header."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Client:
    """The server at one URL, called with one token."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = _base_url(url)
        self.token = token
        self._session = self.new_session()
        if token:
            self._session.auth = _Bearer(token)

    def new_session(self) -> requests.Session:
        """A session without the token. Calls to loopback ignore proxies that the environment names."""
        session = requests.Session()
        session.trust_env = not is_loopback(urlsplit(self.url).hostname or "")
        return session

    def close(self) -> None:
        self._session.close()

    def submit(self, submission: Mapping[str, Json], *, idempotency_key: str | None = None) -> Json:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._json("POST", "/jobs/submit", json=submission, headers=headers)

    def job(self, job_id: str, *, wait: int = 0) -> Json:
        return self._json("GET", f"/jobs/{job_id}", params={"wait": wait} if wait else {})

    def jobs(self, *, limit: int, filters: Mapping[str, Json] | None = None) -> list[Json]:
        """The newest jobs that match the filters, from as many pages as needed."""
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < limit:
            params = {**(filters or {}), "limit": min(JOB_PAGE, limit - len(found)), "cursor": cursor}
            page = self._json("GET", "/jobs", params=params)
            found += page["jobs"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    def find_job(self, name: str) -> str:
        """The id of the job that the user named by its id, by the beginning or end of one, or by `last`."""
        if JOB_ID.fullmatch(name):
            return name.lower()
        if name == "last":
            return self._last_job()
        if not PART_OF_ID.fullmatch(name):
            raise JobNotIdentified(f"{name!r} is not a job id: give an id, at least 4 characters of its beginning or end, or 'last'.")
        part = name.lower()
        ids = [str(job["id"]) for job in self.jobs(limit=SEARCHED_JOBS)]
        matching = [job_id for job_id in ids if job_id.startswith(part) or job_id.endswith(part)]
        if not matching:
            raise JobNotIdentified(f"None of the {SEARCHED_JOBS} newest jobs has an id that begins or ends with {name!r}.")
        if len(matching) > 1:
            raise JobNotIdentified(f"{name!r} matches {len(matching)} jobs, such as {matching[0]} and {matching[1]}.")
        return matching[0]

    def _last_job(self) -> str:
        newest = self.jobs(limit=1)
        if not newest:
            raise JobNotIdentified("There is no last job: the server has no jobs.")
        return str(newest[0]["id"])

    def history(self, job_id: str) -> list[Json]:
        return list(self._json("GET", f"/jobs/{job_id}/events")["events"])

    def log_page(self, job_id: str, *, after_seq: int = 0, tail: int | None = None, stream: str | None = None) -> Json:
        params = {"after_seq": after_seq, "limit": LOG_PAGE, "tail": tail, "stream": stream}
        return self._json("GET", f"/jobs/{job_id}/log", params=params)

    def log_lines(self, job_id: str, *, tail: int | None = None, stream: str | None = None) -> Iterator[Json]:
        """The lines stored so far."""
        page = self.log_page(job_id, tail=tail, stream=stream)
        yield from page["lines"]
        while tail is None and not page["complete"]:
            seen = page["next_seq"]
            page = self.log_page(job_id, after_seq=max(0, seen - 1), stream=stream)
            yield from page["lines"]
            if page["next_seq"] == seen:
                return

    def raw_log(self, job_id: str, *, follow: bool = False, tail: int | None = None, stream: str | None = None) -> Iterator[bytes]:
        """The log byte for byte, in pieces as they arrive."""
        params = {"follow": "true" if follow else None, "tail": tail, "stream": stream}
        headers = {"Accept": "text/plain, application/problem+json"}
        answer = self._call("GET", f"/jobs/{job_id}/log", params=params, headers=headers, stream=True, without_timeout=follow)
        with answer:
            try:
                yield from answer.iter_content(1 << 16)
            except requests.RequestException as error:
                raise Unreachable(f"The connection to {self.url} was lost while the log was read.") from error

    def cancel(self, job_id: str, *, force: bool = False) -> Json:
        return self._json("POST", f"/jobs/{job_id}/cancel", json={"force": True} if force else {})

    def retry(self, job_id: str) -> Json:
        return self._json("POST", f"/jobs/{job_id}/retry")

    def delete(self, job_id: str) -> None:
        self._call("DELETE", f"/jobs/{job_id}").close()

    def job_types(self) -> list[Json]:
        return list(self._json("GET", "/job-types")["job_types"])

    def templates(self) -> list[Json]:
        return list(self._json("GET", "/templates")["templates"])

    def create_token(self, request: Mapping[str, Json]) -> Json:
        return self._json("POST", "/tokens", json=request)

    def tokens(self) -> list[Json]:
        return list(self._json("GET", "/tokens")["tokens"])

    def revoke_token(self, token_id: str) -> None:
        self._call("DELETE", f"/tokens/{token_id}").close()

    def whoami(self) -> Json:
        return self._json("GET", "/whoami")

    def _json(self, method: str, path: str, **request: Any) -> Json:
        with self._call(method, path, **request) as answer:
            try:
                return answer.json()
            except requests.JSONDecodeError as error:
                raise self._not_runcast(answer) from error

    def _call(self, method: str, path: str, *, without_timeout: bool = False, **request: Any) -> requests.Response:
        timeout = (CONNECT_TIMEOUT_SECONDS, None if without_timeout else ANSWER_TIMEOUT_SECONDS)
        try:
            answer = self._session.request(method, f"{self.url}/api{path}", timeout=timeout, allow_redirects=False, **request)
        except requests.exceptions.SSLError as error:
            raise Unreachable(f"No secure connection to {self.url}: its certificate is not trusted.") from error
        except requests.Timeout as error:
            raise Unreachable(f"{self.url} did not answer in time.") from error
        except requests.ConnectionError as error:
            raise Unreachable(f"No server answers at {self.url}. Is `runcast serve` running?") from error
        except (requests.RequestException, ValueError) as error:  # ValueError: from a lower library, for example for a malformed proxy name
            raise Unreachable(f"{self.url} cannot be called: {error}") from error
        if not answer.ok or answer.is_redirect:
            with answer:
                raise self._refusal(answer)
        return answer

    def _refusal(self, answer: requests.Response) -> RuncastError:
        try:
            problem = answer.json()
        except requests.JSONDecodeError:
            return self._not_runcast(answer)
        if isinstance(problem, dict) and "title" in problem:
            return Refused(problem)
        return self._not_runcast(answer)

    def _not_runcast(self, answer: requests.Response) -> Unreachable:
        return Unreachable(f"The server at {self.url} is not runcast (it answered {answer.status_code} {answer.reason}).")


def _base_url(url: str) -> str:
    """The server's URL without the `/api` that users copy along with it."""
    if not _is_server_url(url):
        raise OperatorError(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8000.")
    return url.rstrip("/").removesuffix("/api")


def _is_server_url(url: str) -> bool:
    """Checks each part here, because requests reports a bad part late and with errors of other libraries."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host)
