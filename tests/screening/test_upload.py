"""Who may send files to the local page; the answers over the wire are tested in `test_page`."""

import pytest
from starlette.datastructures import Headers

from semforensics.screening.upload import PageLimits, RefusedError, check_submission

GOOD = {
    "Host": "localhost:8765",
    "Origin": "http://localhost:8765",
    "X-Semforensics-Token": "secret",
    "Content-Type": "application/octet-stream",
    "Content-Length": "12",
}


def test_our_own_page_may_submit() -> None:
    """A request of the page passes the check, which returns the length of its body."""
    assert check_submission(Headers(GOOD), "secret", PageLimits()) == 12


def test_the_secret_is_that_of_this_page() -> None:
    """A secret of another run is refused as out of date."""
    with pytest.raises(RefusedError, match="load the page again") as refused:
        check_submission(Headers(GOOD), "another", PageLimits())

    assert refused.value.status == 403
