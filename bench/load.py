"""``python -m bench.load PLAN.json``: a fleet of simulated terminals that all buy the purchase of this bench.

Progress and at the end the result go to standard output, a line of JSON each.
"""

import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import purchase
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.terminals.fleet import FleetPlan, FleetProgress, run_fleet
from fengshou.terminals.home import Home
from fengshou.terminals.trades import Trade

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def purchases() -> Iterator[Trade]:
    """Without end; the farmers of the examples take turns."""
    with (EXAMPLES / "accounts.csv").open(encoding="utf-8") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        farmers = [row["number"] for row in rows if row["kind"] == "farmer"]
    # The terminal's own clock and number stand in a request, not the example's.
    goods = {key: value for key, value in purchase.VALUES.items() if key not in (de.STAN, de.LOCAL_TIME, de.LOCAL_DATE)}
    for farmer in itertools.cycle(farmers):
        yield Trade(FARM_PURCHASE.name, {**goods, de.TO_ACCOUNT: farmer}, expect=APPROVED)


def main(file: Path) -> None:
    plan = msgspec.json.decode(file.read_bytes(), type=FleetPlan)
    services = Home(Path(plan.homes[0])).configuration.services
    catalogue = Catalogue(load_service(module, {}) for module in services)

    def progress(so_far: FleetProgress) -> None:
        print(msgspec.json.encode(so_far).decode(), flush=True)

    result = run_fleet(plan, catalogue.grammar, purchases(), progress)
    print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
