"""An incremental load: each run copies the orders that changed since the last successful one, from one database to another.

Two SQLite files stand for the two databases, so that it runs anywhere; on PostgreSQL the statements are the same. The Airflow
connections `shop` and `warehouse` hold the files' paths as their host. Both have a table orders(id, amount, updated_at); in the
warehouse, `id` is its primary key.

    AIRFLOW_CONN_SHOP='{"conn_type": "sqlite", "host": "/data/shop.db"}'
    AIRFLOW_CONN_WAREHOUSE='{"conn_type": "sqlite", "host": "/data/warehouse.db"}'
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, Asset, BaseHook, task

from resumable import Watermark

ORDERS = Asset("orders")
LAG = timedelta(seconds=float(os.environ.get("ORDERS_LAG_SECONDS", "300")))  # no transaction of the shop takes longer


def database(name: str) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(BaseHook.get_connection(name).host, timeout=30))


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")  # as the shop writes it: sorts as text


with DAG(
    "incremental_load",
    schedule=timedelta(minutes=10),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,  # two runs at once would copy the same orders
) as dag:

    @task(inlets=[ORDERS], outlets=[ORDERS], retries=3, retry_delay=timedelta(seconds=5))
    def load() -> int:
        start = datetime(2026, 1, 1, tzinfo=timezone.utc)
        with Watermark("orders", asset=ORDERS, start=start, lag=LAG) as mark:
            with database("shop") as shop:
                orders = shop.execute(
                    "SELECT id, amount, updated_at FROM orders WHERE updated_at > ? AND updated_at <= ?",
                    (text(mark.since), text(mark.until)),
                ).fetchall()
            with database("warehouse") as warehouse, warehouse:  # one transaction
                warehouse.executemany(  # an upsert: a retry loads the same orders again
                    "INSERT INTO orders VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                    "amount = excluded.amount, updated_at = excluded.updated_at",
                    orders,
                )
            mark.advance()
        return len(orders)

    load()
