"""Who may ask the server for what.

On a loopback address anyone on this machine may read; writing takes the token, which the page gets from the server
itself and another site's page cannot. On any other address everything takes the token.

A page of another site can make a browser send requests here. It is kept out by the `Host` header (a name of its own
that it lets point to this machine), by `Sec-Fetch-Site` and `Origin` (requests across sites), and by the token in a
header of its own (which a browser sends to another site only if that site agrees, and this one never does).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""

TOKEN_HEADER = "x-thalweg-token"

_LOOPBACK_NAMES = ("localhost",)


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a server demands of those who ask."""

    host: str
    """The address or name that the server is bound to."""
    token: str
    guarded: bool
    """Reading takes the token too."""
    read_only: bool
    cookie: str = "thalweg"
    """The cookie that carries the token. Browsers share cookies between the ports of a host: one name per port."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.7", "a.example")]
    [True, True, True, False, False, False]
    """
    if host.lower() in _LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def same_token(given: str | None, token: str) -> bool:
    """Whether a token is the right one, in a time that does not tell how much of it is."""
    return given is not None and hmac.compare_digest(given.encode(), token.encode())


def host_name(header: str) -> str | None:
    """The name in a `Host` header, without its port; None where it is none.

    >>> [host_name(text) for text in ("localhost:8321", "[::1]:80", "a.example", "a b", "", "a:b@c")]
    ['localhost', '::1', 'a.example', None, None, None]
    """
    try:
        parts = urlsplit(f"//{header}")
        port_is_fine = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    plain = parts.netloc == header and parts.hostname and parts.username is None
    return parts.hostname if plain and port_is_fine and not any(c.isspace() for c in header) else None


def refusal(
    access: Access, method: str, path: str, headers: Mapping[str, str], cookie: str | None
) -> tuple[int, str] | None:
    """Why a request is not served, as (status, message); None where it is.

    Args:
        headers: with names in lower case.
        cookie: the value of the cookie `access.cookie`.
    """
    if not _host_is_ours(access, headers.get("host", "")):
        return 403, (
            f"this server answers to {access.host}, not to the host {headers.get('host', '')!r}:"
            " open the address that 'thalweg serve' printed"
        )
    site = headers.get("sec-fetch-site", "none")
    if path.startswith("/api/") and site not in ("same-origin", "none"):
        return 403, "a page of another site asked for this"
    given = headers.get(TOKEN_HEADER) or _bearer(headers.get("authorization", ""))
    if access.guarded and not (same_token(given, access.token) or same_token(cookie, access.token)):
        return 401, "this needs the token: open the address with ?token=... that 'thalweg serve' printed"
    return None if method in SAFE_METHODS else _write_refusal(access, headers, given)


def _write_refusal(access: Access, headers: Mapping[str, str], given: str | None) -> tuple[int, str] | None:
    if access.read_only:
        return 403, "this server is for reading only; start it without --read-only to change anything"
    origin = headers.get("origin")
    if origin is not None and urlsplit_netloc(origin) != headers.get("host", "").lower():
        return 403, f"a page of another site ({origin}) asked for this"
    if given is None:
        return 401, "this needs the token of GET /api/session, in the header X-Thalweg-Token"
    return None if same_token(given, access.token) else (401, "the token is not right; load the page again")


def urlsplit_netloc(origin: str) -> str | None:
    """Host and port of an origin; None where it has none.

    >>> urlsplit_netloc("http://Localhost:8321"), urlsplit_netloc("null"), urlsplit_netloc("http://[")
    ('localhost:8321', None, None)
    """
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _host_is_ours(access: Access, header: str) -> bool:
    name = host_name(header)
    if name is None:
        return False
    if is_loopback(access.host):
        # Not the port: a tunnel may end at another one.
        return is_loopback(name)
    bound = _address(access.host)
    # An address that stands for all of them has any name. A site that lets its own name point here does not have
    # the token, without which nothing is served.
    everywhere = bound is not None and bound.is_unspecified
    return everywhere or name == access.host.lower() or _address(name) is not None or is_loopback(name)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bearer(header: str) -> str | None:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None
