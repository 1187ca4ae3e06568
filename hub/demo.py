"""The demo shop: a producer that knows nothing of the hub, only of its table, which is watched."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

if TYPE_CHECKING:
    from hub.postgres.connect import Connection

START: Final = (("channel", "orders"), ("table", "demo.orders"))
"""What the dashboard shows at first: the shop's events, and its table."""
_CUSTOMERS: Final = ("Ada", "Ben", "Chloé", "Dmitri", "Emeka", "Fatima", "Grete", "Hiro")
_ITEMS: Final = ("espresso", "flat white", "filter coffee", "cold brew", "croissant", "cinnamon bun")
_BUSY: Final = 12  # open orders at which nobody may order any more
_NEXT: Final = {"new": ("paid", "paid", "paid", "cancelled"), "paid": ("shipped",)}

log = structlog.get_logger()


async def run(connect: Callable[[], Awaitable[Connection]], folder: Path) -> NoReturn:
    """Make the shop's table and trade in it, a few orders a second, until cancelled.

    A lost connection is made again; a demo that stopped would look like a hub that did.
    """
    schema = (folder / "demo.sql").read_text()
    while True:
        try:
            connection = await connect()
            try:
                await connection.execute(schema)
                while True:
                    await _trade(connection)
                    await asyncio.sleep(random.uniform(0.2, 0.8))
            finally:
                connection.terminate()
        except Exception as error:
            log.warning("demo_shop_interrupted", error=str(error))
            await asyncio.sleep(1)


async def _trade(connection: Connection) -> None:
    """A customer orders, or an order moves on: one transaction, now and then rolled back."""
    open_orders = await connection.fetch(
        "SELECT id, status FROM demo.orders WHERE status IN ('new', 'paid') ORDER BY id LIMIT 20"
    )
    transaction = connection.transaction()
    await transaction.start()
    if random.random() * _BUSY < len(open_orders):
        await _advance(connection, *random.choice(open_orders))
    else:
        await _order(connection)
    if random.random() < 0.05:
        await transaction.rollback()  # changed their mind: nobody hears of it
    else:
        await transaction.commit()


async def _order(connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO demo.orders (customer, item, total) VALUES ($1, $2, $3::float8::numeric(10,2))",
        random.choice(_CUSTOMERS),
        random.choice(_ITEMS),
        random.uniform(2, 30),
    )
    await connection.execute("DELETE FROM demo.orders WHERE id <= (SELECT max(id) - 500 FROM demo.orders)")


async def _advance(connection: Connection, order: int, status: str) -> None:
    await connection.execute(
        "UPDATE demo.orders SET status = $2, updated_at = clock_timestamp() WHERE id = $1",
        order,
        random.choice(_NEXT[status]),
    )
