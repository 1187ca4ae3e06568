"""What a request asks for: in which form it wants its answer."""

from __future__ import annotations

from aiohttp import HttpVersion11, hdrs, web

from hub.errors import Code
from hub.web.refusal import RequestError


def bare(request: web.Request) -> None:
    """Refuse a request that has parameters, where there are none."""
    for name in request.query:
        raise RequestError(400, Code.BAD_REQUEST, f"There is no parameter {name!r} here.", name)


def chunkable(request: web.Request) -> None:
    """Refuse a request whose answer could have no chunks, where there would be no telling a whole one."""
    if request.version < HttpVersion11:
        message = "HTTP/1.0 has no chunks, by which a broken stream can be told."
        raise RequestError(505, Code.UNSUPPORTED, message)


def agree(request: web.Request, *kinds: str) -> str:
    """Which of `kinds` the request wants, the first if it does not care. Raises RequestError where there is none."""
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT, ())) or "*/*"
    best = max(kinds, key=lambda kind: _preference(accepted, kind))
    if not _preference(accepted, best)[0]:
        raise RequestError(406, Code.NOT_ACCEPTABLE, f"This comes as {' or '.join(kinds)}.", hdrs.ACCEPT)
    return best


def _preference(accepted: str, kind: str) -> tuple[float, int]:
    """How much an Accept header wants `kind`: by the most exact of what it says that matches (RFC 9110, 12.5.1)."""
    ranges = ["*/*", kind.partition("/")[0] + "/*", kind]
    found = [(-1, 0.0)]
    for part in accepted.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        weights = [each[2:] for each in parameters if each.startswith("q=")]
        if name in ranges:
            found.append((ranges.index(name), _number(weights[0]) if weights else 1.0))
    exactness, weight = max(found)
    return weight, exactness


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
