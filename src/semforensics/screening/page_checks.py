"""Who may use the local page: checks of a request's headers, before anything of its body is read.

A page from elsewhere that the same browser has open must not use the local one. So every request
has to name this host (against DNS rebinding), and a submission also this origin and a secret that
only our own page knows.
"""

import base64
import hashlib
import secrets
from email.message import Message
from http import HTTPStatus

from semforensics.screening.upload import PageLimits, RefusedError
from semforensics.screening.write.rendering import REPORT_CSS

HOST = "127.0.0.1"
_STYLE_HASH = base64.b64encode(hashlib.sha256(REPORT_CSS.encode()).digest()).decode()
SECURITY_HEADERS = {
    # Our own script and style, the style of a report, and pictures inside of it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self';"
    f" img-src data:; style-src 'self' 'sha256-{_STYLE_HASH}'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""


def check_host(headers: Message, port: int) -> None:
    """Refuse a request that does not name this computer and port.

    Raises:
        RefusedError: 403.
    """
    hosts = headers.get_all("Host", [])
    if len(hosts) != 1 or hosts[0] not in (f"{HOST}:{port}", f"localhost:{port}"):
        raise RefusedError(HTTPStatus.FORBIDDEN, "this page answers to its own address alone")


def check_submission(headers: Message, token: str, limits: PageLimits) -> int:
    """Refuse a submission that does not come from our own page, or of no length or a wrong one.

    Args:
        headers: Of a request whose host is checked already.
        token: The secret of our own page.
        limits: On the length of the body.

    Returns:
        The length of the body, in bytes.

    Raises:
        RefusedError: 403, 415, 411, 400 or 413.
    """
    if headers.get("Origin") != f"http://{headers['Host']}":
        raise RefusedError(HTTPStatus.FORBIDDEN, "sent from another page")
    sent = headers.get("X-Semforensics-Token", "")
    if not secrets.compare_digest(sent.encode(), token.encode()):
        raise RefusedError(HTTPStatus.FORBIDDEN, "out of date: load the page again")
    if headers.get_content_type() != "application/octet-stream":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not sent by this page's script")
    lengths = headers.get_all("Content-Length", [])
    if "Transfer-Encoding" in headers or not lengths:
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "its length has to be given")
    if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "its length is not a number")
    if len(lengths[0]) > 15 or int(lengths[0]) > limits.max_body_bytes:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"too much at once; at most {limits.max_total_mb} MB are taken",
        )
    return int(lengths[0])
