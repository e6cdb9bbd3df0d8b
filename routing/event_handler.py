"""Serves an event store as signed JSON: ``GET /cursor``, ``POST /events``, ``POST /reports/<name>``."""

from typing import Any

from fengshou.protocol.backend import EventStore, NotServed
from fengshou.routing.json_server import Body, Refusal

_REPORTS = "/reports/"


class EventHandler:
    """An ``EventStore`` behind HTTPS; a ``Handler`` of ``json_server``."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.close = store.close

    def answer(self, method: str, path: str, body: Body) -> Body:
        match method, path:
            case "GET", "/cursor":
                return {"cursor": self._store.cursor()}
            case "POST", "/events":
                return {"cursor": self._append(body.get("first"), body.get("events"))}
            case "POST", _ if path.startswith(_REPORTS):
                return {"rows": self._report(path.removeprefix(_REPORTS), body.get("arguments", {}))}
            case _, "/cursor":
                raise Refusal(405, "40", "only GET is served", {"allow": "GET"})
            case _, _ if path == "/events" or path.startswith(_REPORTS):
                raise Refusal(405, "40", "only POST is served", {"allow": "POST"})
        raise Refusal(404, "40", "nothing is at this path")

    def _append(self, first: Any, events: Any) -> int:
        if type(first) is not int or first < 1:
            raise Refusal(400, "30", "first is not a number of an event")
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            raise Refusal(400, "30", "events is not a list of objects")
        try:
            return self._store.store(first, events)
        except ValueError as error:
            raise Refusal(409, "25", str(error)) from error

    def _report(self, name: str, arguments: Any) -> list[Body]:
        if not isinstance(arguments, dict):
            raise Refusal(400, "30", "arguments is not an object")
        try:
            return list(self._store.query(name, arguments))
        except NotServed as error:
            raise Refusal(404, "40", "no such report") from error
        except ValueError as error:
            raise Refusal(400, "30", str(error)) from error
