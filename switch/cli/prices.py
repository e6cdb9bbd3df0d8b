"""``fengshou prices``: the market board."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import trio

from fengshou.routing.connect import LINK_ERRORS
from fengshou.routing.events import EventStoreClient, StoreRefused
from fengshou.routing.json_connection import ExchangeFault
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table, yuan
from fengshou.switch.config import JsonPeer, Loaded, load
from fengshou.switch.custodies import custody_of
from fengshou.switch.links import json_connect, json_envelope

GROUPS = ("product", "variety", "grade", "day", "town")


@click.command(epilog="Examples: fengshou prices --product blueberry --by grade; fengshou prices --since 20260601")
@home_option
@click.option("--by", multiple=True, type=click.Choice(GROUPS), help="Group by; may be given several times.")
@click.option("--product", default=None, help="Only this product, by number or name.")
@click.option("--town", type=int, default=None, help="Only this town, by number.")
@click.option("--since", type=int, default=None, help="From this day on, YYYYMMDD.")
@click.option("--until", type=int, default=None, help="Up to and with this day, YYYYMMDD.")
@json_option
@explained
def prices(
    home: Path,
    by: tuple[str, ...],
    product: str | None,
    town: int | None,
    since: int | None,
    until: int | None,
    as_json: bool,
) -> None:
    """Show what goods were sold for: by product, grade and day unless --by says otherwise.

    The analytics store answers. Prices are yuan a kg; the average is weighted by volume.
    """
    loaded = load(home / "switch.toml")
    if loaded.config.analytics is None:
        raise click.ClickException("switch.toml has no [analytics]")
    # A name is known to the store only, so it is asked for all products and the rows of one are kept.
    grouped = tuple(dict.fromkeys((*(by or ("product", "grade", "day")), *(("product",) if product else ()))))
    wanted = {"by": grouped, "town": town, "since": since, "until": until}
    if product and product.isdecimal():
        wanted["product"] = int(product)
    arguments = {name: value for name, value in wanted.items() if value is not None}
    rows = _ask(loaded, loaded.config.analytics, arguments)
    if product and not product.isdecimal():
        rows = [row for row in rows if product in (row.get("product_name"), row.get("product_zh"))]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("no trades")
    else:
        figures = ("trades", "weight kg", "yuan", "average", "lowest", "highest")
        print_table("prices", (*grouped, *figures), [_cells(row, grouped) for row in rows])


def _ask(loaded: Loaded, peer: JsonPeer, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    custody = custody_of(loaded)

    async def ask() -> list[dict[str, Any]]:
        connect, envelope = json_connect(peer, loaded, custody), json_envelope(peer, loaded, custody)
        async with EventStoreClient.connected(connect, peer.address, envelope) as store:
            return await store.query("prices", arguments)

    try:
        return trio.run(ask)
    except (StoreRefused, ExchangeFault) as error:
        raise click.ClickException(f"the analytics store refused: {error}") from None
    except LINK_ERRORS as error:
        raise click.ClickException(
            f"the analytics store at {peer.address} cannot be reached: {error}; "
            f"start it with: fengshou host analytics --home {loaded.folder}"
        ) from None


def _cells(row: Mapping[str, Any], grouped: tuple[str, ...]) -> list[object]:
    names = [f"{row[f'{name}_zh']} {row[f'{name}_name']}" if f"{name}_name" in row else row[name] for name in grouped]
    weight = row["weight_centikg"]
    return [
        *names,
        row["trades"],
        f"{weight // 100:,}.{weight % 100:02d}",
        yuan(row["amount_fen"]),
        *(yuan(row[f"{which}_price_fen"]) for which in ("average", "lowest", "highest")),
    ]
