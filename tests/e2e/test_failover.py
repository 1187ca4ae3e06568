"""Clusters that crash, fail over, are restored and upgraded: clients miss nothing, and are told what may come again."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from hub.postgres import binaries, postmaster, retention
from tests.clusters import Cluster
from tests.conftest import renamed, running, temporary_folder
from tests.e2e.test_durable import Follower

Make = Callable[..., Awaitable[Cluster]]


@pytest.fixture
async def cluster() -> AsyncIterator[Make]:
    """Makes clusters, started, or standbys of others; all are stopped at the end."""
    with temporary_folder() as folder:
        made: list[Cluster] = []

        async def make(*, of: Cluster | None = None, **options: Any) -> Cluster:
            place = folder / f"{len(made)}"
            made.append(of.copy(place) if of else Cluster(place, **options))
            return await made[-1].start()

        yield make
        for each in reversed(made):
            await each.stop()


async def publish(dsn: str, *payloads: object, wait: bool = True) -> list[tuple[int, int]]:
    """Publish each in a transaction of its own; their xids and ids. Without `wait` the disk may not have them yet."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"SET synchronous_commit = {'on' if wait else 'off'}")
    ids = [
        await connection.fetchval("SELECT hub.publish('orders', $1::jsonb)", orjson.dumps(each).decode())
        for each in payloads
    ]
    rows = await connection.fetch("SELECT xid::text::bigint AS xid, id FROM hub.events WHERE id = ANY($1)", ids)
    await connection.close()
    return [(row["xid"], row["id"]) for row in rows]


def durable(follower: Follower) -> list[str]:
    """The reasons of its gaps that concern durable events."""
    return [gap["reason"] for gap in follower.gaps if gap["reason"] not in ("listener", "overflow")]


def both(one: Cluster, two: Cluster) -> str:
    """A URL that finds whichever of them is the primary."""
    hosts = [each.dsn.partition("host=")[2].partition("&")[0] for each in (one, two)]
    return f"postgresql://postgres@/postgres?host={','.join(hosts)}&port=5432&target_session_attrs=read-write"


async def test_a_planned_switch_to_a_standby_and_back_is_nothing_special(cluster: Make) -> None:
    one = await cluster()
    async with running(one.dsn):
        pass  # the migrations
    two = await cluster(of=one)
    async with running(both(one, two)) as hub:
        follower = await Follower(["orders"]).connect(hub)
        away = await Follower(["orders"]).connect(hub)
        await publish(one.dsn, 1)
        await follower.until(1)
        await away.until(1)
        await away.socket.close()
        await one.stop()
        await two.promote()
        await publish(two.dsn, 2)
        await follower.until(2)
        one.follow(two)
        await one.start()
        await two.in_step(one)
        await two.stop()
        await one.promote()
        await publish(one.dsn, 3)
        assert await follower.until(3) == [1, 2, 3]
        await away.connect(hub)
        assert away.payloads == [1, 2, 3]
        assert (durable(follower), durable(away)) == ([], [])
        assert away.subscribed["recovered"]


async def test_where_a_promotion_loses_commits_everything_from_the_floor_comes_again(cluster: Make) -> None:
    one = await cluster()
    async with running(one.dsn):
        await publish(one.dsn, *range(10))
    two = await cluster(of=one)
    async with running(both(one, two)) as hub:
        follower = await Follower(["orders"]).connect(hub, last=1)
        away = await Follower(["orders"]).connect(hub, last=1)
        await publish(one.dsn, "kept")
        await one.in_step(two)
        await two.cut_off()
        lost = await publish(one.dsn, *(f"lost {number}" for number in range(10)))
        await follower.until("lost 9")
        await away.until("lost 9")
        await away.socket.close()
        await one.crash()
        await two.promote()
        reused = await publish(two.dsn, "new 1", "new 2", "new 3")
        assert {xid for xid, _ in lost} & {xid for xid, _ in reused}, "their xids were given out again"
        await follower.until("new 3")
        await away.connect(hub)
        await publish(two.dsn, "last")
        for each in (follower, away):
            since = (await each.until("last"))[each.payloads.index("lost 9") + 1 :]
            assert [payload for payload in since if payload != "kept"] == ["new 1", "new 2", "new 3", "last"]
            assert durable(each) == ["failover"]
            assert each.gaps[-1]["channels"] == ["orders"]


async def test_after_a_crash_that_takes_back_commits_ids_given_out_again_are_no_others_events(cluster: Make) -> None:
    """The hub dies with Postgres, as in a power cut: nobody remembers what was shown but its clients."""
    one = await cluster()
    async with running(one.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        await publish(one.dsn, "kept")
        await follower.until("kept")
        await one.hold_back_the_disk()
        lost = await publish(one.dsn, *(f"lost {number}" for number in range(40)), wait=False)
        await follower.until("lost 39")
        await one.crash()
    await one.start()
    async with running(one.dsn) as hub:
        new = await publish(one.dsn, *(f"new {number}" for number in range(40)))
        for number in (0, 1):
            assert {pair[number] for pair in lost} & {pair[number] for pair in new}, "xids and ids are given out again"
        await follower.connect(hub)
        await publish(one.dsn, "last")
        since = (await follower.until("last"))[41:]
        assert [payload for payload in since if payload != "kept"] == [*(f"new {n}" for n in range(40)), "last"]
        assert durable(follower) == ["failover"]
        assert not follower.subscribed["recovered"]


async def test_a_hub_that_lives_through_such_a_crash_tells_those_who_are_connected(cluster: Make) -> None:
    one = await cluster()
    async with running(one.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        quiet = await Follower(["other"]).connect(hub)
        await publish(one.dsn, "kept")
        await follower.until("kept")
        await one.hold_back_the_disk()
        await publish(one.dsn, "lost", wait=False)
        await follower.until("lost")
        await one.crash()
        await one.start()
        await publish(one.dsn, "new")
        assert [payload for payload in await follower.until("new") if payload != "kept"] == ["lost", "new"]
        await publish(one.dsn, "newer")
        assert (await follower.until("newer"))[-2:] == ["new", "newer"]
        assert durable(follower) == ["failover"]
        while not durable(quiet):
            await quiet.take()
        assert durable(quiet) == ["failover"]


async def test_the_newest_id_may_survive_where_the_greatest_xid_is_lost(cluster: Make) -> None:
    one = await cluster()
    async with running(one.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        low, high = await asyncpg.connect(one.dsn), await asyncpg.connect(one.dsn)
        await low.execute("BEGIN; SELECT pg_current_xact_id()")
        await high.execute("SET synchronous_commit = off; BEGIN")
        await high.execute("SELECT hub.publish('orders', '\"lost\"')")
        await low.execute("SELECT hub.publish('orders', '\"kept\"'); COMMIT")
        await one.hold_back_the_disk()
        await high.execute("COMMIT")
        await follower.until("lost")
        await one.crash()
    await one.start()
    async with running(one.dsn) as hub:
        await follower.connect(hub)
        await publish(one.dsn, "new")
        await follower.until("new")
        assert durable(follower) == ["failover"]
        connection = await asyncpg.connect(one.dsn)
        assert await connection.fetch("SELECT payload FROM hub.events") == [('"kept"',), ('"new"',)]
        await connection.close()


async def test_what_retention_takes_while_a_hub_is_away_is_told(cluster: Make) -> None:
    """Another hub's retention does not wait for one that cannot reach Postgres."""
    one = await cluster()
    async with running(one.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        await publish(one.dsn, "first")
        await follower.until("first")
        admin, gate = await asyncpg.connect(one.dsn), await asyncpg.connect(renamed(one.dsn, "template1"))
        await gate.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        await admin.execute(f"{others} AND datname = 'postgres' AND pid <> pg_backend_pid()")
        for number in range(20):
            await admin.execute("SELECT hub.publish('orders', $1::text::jsonb)", str(number))
        assert [gone async for gone in retention.apply(admin, retention.Keep(count=5))] == [16]  # type: ignore[arg-type]
        await gate.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
        assert (await follower.until(19)) == ["first", *range(15, 20)]
        assert durable(follower) == ["expired"]
        await admin.close()
        await gate.close()


async def test_a_crash_that_loses_nothing_is_nothing_special(cluster: Make) -> None:
    one = await cluster()
    async with running(one.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        away = await Follower(["orders"]).connect(hub)
        await publish(one.dsn, 1)
        await follower.until(1)
        await away.until(1)
        await away.socket.close()
        await one.crash()
        await one.start()
        await publish(one.dsn, 2)
        await away.connect(hub)
        assert [await each.until(2) for each in (follower, away)] == [[1, 2], [1, 2]]
        assert (durable(follower), durable(away)) == ([], [])


@pytest.mark.parametrize("busier", [False, True], ids=["emptier", "busier"])
async def test_a_log_restored_into_another_cluster_begins_anew(cluster: Make, busier: bool, tmp_path: Path) -> None:
    one, two = await cluster(), await cluster()
    if not busier:  # transactions without events, so that the log's xids lie in the other cluster's future
        await one.execute(*["SELECT pg_current_xact_id()"] * 300)
    async with running(one.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        await publish(one.dsn, 1, 2, 3)
        await follower.until(3)
    if busier:
        await two.execute(*["SELECT pg_current_xact_id()"] * 300)
    one.run("pg_dump", "-Fc", "-f", tmp_path / "dump", one.dsn)
    two.run("createdb", "-h", two.host, "-U", "postgres", "shop")
    shop = renamed(two.dsn, "shop")
    two.run("pg_restore", "-d", shop, tmp_path / "dump")
    async with running(shop) as hub:
        await publish(shop, 4)
        await follower.connect(hub)
        assert await follower.until(4) == [1, 2, 3, 1, 2, 3, 4]
        assert durable(follower) == ["reset"]
        follower.gaps.clear()
        await publish(shop, 5)
        await follower.until(5)
        await follower.socket.close()
        await publish(shop, 6)
    async with running(shop) as hub:  # and is then a log like any other
        await follower.connect(hub)
        assert (await follower.until(6))[-2:] == [5, 6]
        assert durable(follower) == []


async def test_data_restored_into_a_live_log_is_refused_and_harms_nobody(cluster: Make, tmp_path: Path) -> None:
    one, two = await cluster(), await cluster()
    async with running(one.dsn):
        await publish(one.dsn, "foreign")
    one.run("pg_dump", "-Fc", "--data-only", "-t", "hub.events", "-f", tmp_path / "dump", one.dsn)
    async with running(two.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        await publish(two.dsn, 1)
        with pytest.raises(AssertionError, match="own_xid"):
            two.run("pg_restore", "--data-only", "-d", two.dsn, tmp_path / "dump")
        await publish(two.dsn, 2)
        assert await follower.until(2) == [1, 2]
        assert durable(follower) == []


async def test_rows_replicated_into_a_log_are_refused_and_harm_nobody(cluster: Make) -> None:
    one, two = await cluster(options={"wal_level": "logical"}), await cluster()
    async with running(one.dsn):
        await one.execute("CREATE PUBLICATION log FOR TABLE hub.events", *["SELECT pg_current_xact_id()"] * 100)
    async with running(two.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        connection = await asyncpg.connect(two.dsn)
        await connection.execute(
            f"CREATE SUBSCRIPTION log CONNECTION 'host={one.host} user=postgres dbname=postgres' PUBLICATION log "
            "WITH (copy_data = false)"
        )
        await publish(one.dsn, "foreign")
        async with asyncio.timeout(20):
            while not await connection.fetchval("SELECT sum(apply_error_count) FROM pg_stat_subscription_stats"):
                await asyncio.sleep(0.05)
        await publish(two.dsn, 1)
        assert await follower.until(1) == [1]
        await connection.execute("ALTER SUBSCRIPTION log DISABLE")
        await connection.execute("ALTER SUBSCRIPTION log SET (slot_name = NONE)")
        await connection.execute("DROP SUBSCRIPTION log")
        await connection.close()


async def test_after_pg_upgrade_all_goes_on(cluster: Make) -> None:
    majors = [each.major for each in binaries.installed()]
    assert len(majors) > 1, "pg_upgrade takes two versions of Postgres; the embedded wheel has them"
    old, new = await cluster(major=majors[1]), await cluster(major=majors[0])
    async with running(old.dsn) as hub:
        follower = await Follower(["orders"]).connect(hub)
        await publish(old.dsn, 1, 2)
        await follower.until(2)
        await follower.socket.close()
        await publish(old.dsn, 3)
    await old.stop()
    await new.stop()
    upgrade(old, new)
    await new.start()
    async with running(new.dsn) as hub:
        await follower.connect(hub)
        await publish(new.dsn, 4)
        assert await follower.until(4) == [1, 2, 3, 4]
        assert durable(follower) == []


def upgrade(old: Cluster, new: Cluster) -> None:
    """Run pg_upgrade, which like Postgres refuses root."""
    user = postmaster.account(new.folder / "postgres")
    work = new.folder / "upgrade"
    work.mkdir()
    os.chown(work, user.pw_uid, user.pw_gid)
    places = ["-b", old.reachable, "-B", new.reachable, "-d", old.folder / "postgres", "-D", new.folder / "postgres"]
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [new.reachable / "pg_upgrade", *places, "-U", "postgres", "-s", work],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        **identity,
    )
    assert done.returncode == 0, done.stdout + done.stderr
