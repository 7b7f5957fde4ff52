"""What stands before every request: access, the token in the address, the size of a body, headers of safety."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response

from thalweg.report.web.access import Access, refusal, same_token
from thalweg.report.web.answers import error_answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = {
    # No inline scripts and none from elsewhere: what a run is named cannot run. Plotly sets styles inline.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self';"
        " img-src 'self' data: blob:; font-src 'self' data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFETY = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

# A redirect would count as the other site's, and the browser would keep the cookie back; a page's own refresh does not.
_ENTER = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Thalweg</title></html>'


def gated(app: App, access: Access) -> App:
    """An ASGI app that serves what access allows, and sets the headers of safety on every answer."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_SAFETY]
            await send(message)

        answer = _answer(access, scope)
        await (app if answer is None else answer)(scope, receive, guarded_send)

    return gate


def _answer(access: Access, scope: Scope) -> Response | None:
    """What is answered in the app's place."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    cookie = cookie_parser(headers.get("cookie", "")).get(access.cookie)
    method, path = scope["method"], scope["path"]
    entering = _entering(access, scope)
    if entering is not None and method == "GET" and not path.startswith("/api/"):
        # With the right token in the address all else is still checked.
        refused = refusal(access, method, path, {**headers, "x-thalweg-token": access.token}, None)
        return error_answer(*refused) if refused else _let_in(access, entering, headers.get("sec-fetch-site", "none"))
    refused = refusal(access, method, path, headers, cookie)
    return error_answer(*refused) if refused else None


def _entering(access: Access, scope: Scope) -> str | None:
    """Where a request with the token in its address goes on without it; None for any other request."""
    if b"token=" not in scope["query_string"]:
        return None
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if not any(name == "token" and same_token(value, access.token) for name, value in query):
        return None
    rest = urlencode([(name, value) for name, value in query if name != "token"])
    # A path that began with two slashes would lead to another host.
    path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/\\")
    return f"{path}?{rest}" if rest else path


def _let_in(access: Access, where: str, site: str) -> Response:
    from_elsewhere = site not in ("same-origin", "none")
    answer: Response
    if from_elsewhere:
        answer = HTMLResponse(_ENTER, headers={"refresh": f"0; url={where}", "cache-control": "no-store"})
    else:
        answer = RedirectResponse(where, 303, headers={"cache-control": "no-store"})
    answer.set_cookie(access.cookie, access.token, httponly=True, samesite="strict", path="/")
    return answer
