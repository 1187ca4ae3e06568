"""What the doctor finds out about places."""

from __future__ import annotations

from hub.postgres.connect import Target
from tests.postgres.conftest import opened
from tests.postgres.test_checks import findings


async def test_postgis_is_named_and_whether_hubs_know_of_it(database: str) -> None:
    found = (await findings(database))["places"]
    assert (found.level, found.text.split()[0], found.text.split()[-1]) == ("ok", "PostGIS", "gis")
    async with opened(Target(database)) as owner:
        await owner.execute("DROP EXTENSION postgis CASCADE; SELECT hub.enable_places(); CREATE EXTENSION postgis")
        found = (await findings(database))["places"]
        assert (found.level, "pghub[geo]" in found.text) == ("warn", True)
        await owner.execute("DROP EXTENSION postgis")
    assert "places" not in await findings(database)
