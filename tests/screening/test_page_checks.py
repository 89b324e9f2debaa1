"""Who may use the local page; the answers over the wire are tested in `test_page`."""

from email.message import Message

import pytest

from semforensics.screening.page_checks import check_host, check_submission
from semforensics.screening.upload import PageLimits, RefusedError

GOOD = {
    "Host": "localhost:8765",
    "Origin": "http://localhost:8765",
    "X-Semforensics-Token": "secret",
    "Content-Type": "application/octet-stream",
    "Content-Length": "12",
}


def headers(*more: tuple[str, str]) -> Message:
    """The headers of our own page, and more."""
    message = Message()
    for name, value in (*GOOD.items(), *more):
        message[name] = value
    return message


def test_our_own_page_may_submit() -> None:
    """A request of the page passes both checks, which return the length of its body."""
    check_host(headers(), 8765)

    assert check_submission(headers(), "secret", PageLimits()) == 12


def test_two_hosts_or_lengths_are_refused() -> None:
    """A header that is there twice, which two readers could read differently, is refused."""
    with pytest.raises(RefusedError, match="own address"):
        check_host(headers(("Host", "localhost:8765")), 8765)
    with pytest.raises(RefusedError, match="not a number"):
        check_submission(headers(("Content-Length", "12")), "secret", PageLimits())


def test_the_secret_is_that_of_this_page() -> None:
    """A secret of another run is refused as out of date."""
    with pytest.raises(RefusedError, match="load the page again") as refused:
        check_submission(headers(), "another", PageLimits())

    assert refused.value.status == 403
