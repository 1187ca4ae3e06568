"""A producer that is told when: for each line `FIRST COUNT` it commits so many events at once.

python -m tests.bench.burst_producer DSN notify|publish CHANNEL PADDING
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import uvloop

# A part of each payload is new and a part is not, as in life: it deflates neither to nothing nor not at all.
PAYLOAD = """'{"seq":' || n || ',"pad":"' || md5(n::text) || substr($4, 33) || '"}'"""
STATEMENTS = {
    "notify": f"SELECT pg_notify($1, {PAYLOAD}) FROM generate_series($2::int, $3::int) AS n",
    "publish": f"INSERT INTO hub.events (channel, payload) "
    f"SELECT replace($1, '%', (n % 10000)::text), ({PAYLOAD})::jsonb FROM generate_series($2::int, $3::int) AS n",
}


async def main(dsn: str, how: str, channel: str, padding: str) -> None:
    connection = await asyncpg.connect(dsn)
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        first, count = map(int, line.split())
        await connection.execute(STATEMENTS[how], channel, first, first + count - 1, padding)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
