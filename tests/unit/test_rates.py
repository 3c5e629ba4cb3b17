"""Rate limits: what is counted for which key, and which wrong tokens count."""

from __future__ import annotations

import pytest

from handlers.access.auth import Authenticator
from handlers.access.rates import Rate, network_of
from handlers.errors import RateLimited
from jobs.errors import TokenExpired, Unauthenticated
from jobs.model import Caller, Scope
from jobs.store.tokens import Tokens

CI = Caller("ci", frozenset({Scope.READ}), "id-of-ci")


def test_each_key_has_a_rate_of_its_own() -> None:
    rate = Rate("3/hour")
    assert [rate.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert (rate.spent("a"), rate.spent("b"), rate.take("b")) == (True, False, True)


def test_a_check_does_not_count_as_a_call() -> None:
    rate = Rate("1/hour")
    assert not any(rate.spent("a") for _ in range(5))
    assert rate.take("a")


def test_off_means_no_limit() -> None:
    rate = Rate("off")
    assert all(rate.take("a") for _ in range(1000))
    assert not rate.spent("a")


@pytest.mark.parametrize(("text", "most"), [("1/second", 1), ("5/minute", 60), ("5/hour", 3600)])
def test_a_refusal_says_when_to_retry(text: str, most: int) -> None:
    rate = Rate(text)
    while rate.take("a"):
        pass
    assert 1 <= rate.refusal("a", "Too much.").retry_after <= most


def test_addresses_of_one_ipv6_network_share_a_limit() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("unknown") == "unknown"


class Known(Tokens):
    """Knows one token, and one that has expired."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seen: set[str] = set()

    def authenticate(self, token: str) -> Caller:
        self.asked.append(token)
        if token == "old":
            raise TokenExpired("It has expired.")
        if token != "right":
            raise Unauthenticated("It is not known.")
        self.seen.add(token)
        return CI

    def was_good(self, token: str) -> bool:
        return token in self.seen


def authenticate(authenticator: Authenticator, token: str | None, address: str = "192.0.2.1") -> str:
    try:
        return authenticator.authenticate(token, address=address).name
    except (Unauthenticated, RateLimited) as error:
        return type(error).__name__


def test_addresses_that_guess_tokens_are_refused_without_lookup() -> None:
    tokens = Known()
    authenticator = Authenticator(tokens, calls=Rate("off"), failures=Rate("3/hour"))
    assert [authenticate(authenticator, f"guess {number}") for number in range(5)] == ["Unauthenticated"] * 3 + ["RateLimited"] * 2
    assert len(tokens.asked) == 3
    assert authenticate(authenticator, "right") == "RateLimited"
    assert authenticate(authenticator, "right", "192.0.2.2") == "ci"
    assert authenticate(authenticator, "right") == "ci"  # it was valid shortly before


def test_missing_and_expired_tokens_do_not_count_as_guesses() -> None:
    authenticator = Authenticator(Known(), calls=Rate("off"), failures=Rate("1/hour"))
    assert {authenticate(authenticator, token) for token in (None, "", None, "old", "old")} == {"Unauthenticated", "TokenExpired"}
    assert authenticate(authenticator, "right") == "ci"
