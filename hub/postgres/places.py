"""Places of events: whether this database has them, and how they are read.

They need PostGIS there and shapely here. Where one of these is missing nothing is done, and all is read as ever.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import asyncpg
import structlog

from hub import event, fence
from hub.event import Event
from hub.fence import Place
from hub.postgres import unseen
from hub.postgres.connect import Connection, Pool
from hub.postgres.source import PLAIN, Source, placed

log = structlog.get_logger()


class Geometry(Protocol):
    """What can be read of a geometry; hub/geo does."""

    async def set_codec(self, connection: Any, home: str) -> None:
        """Have geometry read and written; `home` is the schema of PostGIS. Raises ValueError where it is not there."""

    def decode(self, place: Any) -> Any:
        """A geometry, also where a connection without the codec has brought it as text."""

    def geojson(self, place: Any) -> bytes: ...
    def place(self, given: Any) -> Place:
        """The place that is `given` as GeoJSON. Raises CommandError."""

    def text(self, place: Any) -> bytes:
        """As PostGIS reads it, whatever it is: EWKB in hexadecimal."""


class Places:
    """`home` is the schema of PostGIS, as a statement has it, while there are places; else None.

    The tail follows it from read to read: a hub is to know of places before the first event that has one. `load` gets
    who reads them, when there are places; None stands for nobody.
    """

    def __init__(self, load: Callable[[], Geometry] | None = None) -> None:
        self._load = load
        self._geometry: Geometry | None = None  # there while `home` is
        self._pools: list[Pool] = []
        self._refused: str | None = None  # a home that cannot be used, whatever the reason
        self._trouble = ""  # the last that was warned of
        self.home: str | None = None

    def __repr__(self) -> str:
        return f"<Places {self.home or 'none'}>"

    @property
    def source(self) -> Source:
        return PLAIN if self.home is None else placed(self.home)

    def choose(self, plain: str, placed: str) -> str:
        """The statement of these that reads from `source`."""
        return plain if self.home is None else placed

    def read(self, row: Any) -> Event:
        """The event of a row of `source`."""
        found = unseen.read(row)
        if self._geometry is None or (place := row.get("place")) is None:
            return found
        place = self._geometry.decode(place)
        return event.placed(found, place, self._geometry.geojson(place))

    def needed(self) -> str:
        """`home`. Raises CommandError (`unsupported`) where there are no places."""
        if self.home is None:
            raise fence.unsupported("place")
        return self.home

    def spot(self, given: Any) -> bytes:
        """The place that is `given` as GeoJSON, as text for COPY. Raises CommandError."""
        self.needed()
        assert self._geometry is not None
        return self._geometry.text(self._geometry.place(given))

    # Finding them

    async def look(self, connection: Connection) -> str | None:
        """Have Postgres make what places need, if PostGIS is there and nobody has done it; returns its schema."""
        if self._load is None:
            return None
        try:
            home: str | None = await connection.fetchval("SELECT hub.enable_places()")
        except asyncpg.PostgresError as error:
            self._warn(str(error))
            return None
        return home

    def are_news(self, home: str | None) -> bool:
        """Whether `home`, from the log, is another one than was followed."""
        return self._load is not None and home != self.home and (home is None or home != self._refused)

    async def follow(self, connection: Connection, home: str | None) -> None:
        """Read as it is there. Connections of pools are made anew before they are used again, to learn the codec."""
        before = self.home
        self.home, self._refused = home, None
        self._geometry = self._load() if self._load is not None and home is not None else None
        if home is not None and not await self.set_codec(connection):
            self.home, self._geometry, self._refused = None, None, home
        if self.home != before:
            log.info("places", postgis=self.home)
            for pool in self._pools:
                await pool.expire_connections()

    async def set_codec(self, connection: Any) -> bool:
        """Have geometry of `connection` read; whether that can be done."""
        if self.home is None or self._geometry is None:
            return False
        try:
            await self._geometry.set_codec(connection, self.home.strip('"'))  # an extension's schema has none inside
        except (ValueError, asyncpg.PostgresError) as error:
            self._warn(str(error))
            return False
        return True

    def _warn(self, reason: str) -> None:
        """Once, for this is tried each minute."""
        if reason != self._trouble:
            self._trouble = reason
            log.warning("places_off", reason=reason)

    def codecs(self, others: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """`others` and the one for geometry, for a pool that is to be given to `keep`."""

        async def set_all(connection: Any) -> None:
            await others(connection)
            await self.set_codec(connection)

        return set_all

    @classmethod
    async def known(cls, connection: Connection, load: Callable[[], Geometry] | None) -> Places:
        """Those that hubs have found in this database, for who changes nothing."""
        try:
            home = await connection.fetchval("SELECT places FROM hub.log")
        except asyncpg.PostgresError:  # what is wrong is told by who reads the log
            home = None
        places = cls(load)
        await places.follow(connection, home)
        return places

    def keep(self, pool: Pool) -> Pool:
        """Have connections of `pool` made anew where places come or go."""
        self._pools.append(pool)
        return pool
