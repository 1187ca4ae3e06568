"""The contract and the routes."""

from __future__ import annotations

from typing import Any

NOT_HTTP = {"/ws"}
PAGES = {"/", "/index.html", "/client.js"}


async def test_the_contract_has_every_route_and_no_other(site: Any) -> None:
    async with site.http.get(site.url + "/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        contract = await response.json()
    described = {(path, method.upper()) for path, item in contract["paths"].items() for method in item}
    routes = {(route.resource.canonical, route.method) for route in site.web.app.router.routes()}
    served = {(path, method) for path, method in routes if method != "HEAD" and path not in NOT_HTTP | PAGES}
    assert described == served


async def test_all_that_the_contract_refers_to_is_in_it(site: Any) -> None:
    async with site.http.get(site.url + "/openapi.json") as response:
        contract = await response.json()
    names = set(references(contract))
    assert names == {f"#/components/schemas/{name}" for name in contract["components"]["schemas"]}


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [part["$ref"]] if "$ref" in part else [name for value in part.values() for name in references(value)]
    return [name for value in part for name in references(value)] if isinstance(part, list) else []
