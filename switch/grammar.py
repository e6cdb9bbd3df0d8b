"""The services of this switch and the grammar that follows from them."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from fengshou.codecs import MessageCodec
from fengshou.protocol.service import OptionError, Service
from fengshou.protocol.templates import Grammar, GrammarError, Template
from fengshou.switch.config import Config


class ServiceError(Exception):
    """A service cannot be loaded; the text says which and why."""


def load_service(module: str, options: Mapping[str, Any]) -> Service:
    """The ``service`` of a package, with its options taken. Raises ServiceError."""
    try:
        service = import_module(module).service
    except ImportError as error:
        raise ServiceError(f"service {module}: cannot be imported: {error}") from error
    except AttributeError:
        raise ServiceError(f"service {module}: the package has no attribute `service`") from None
    if not isinstance(service, Service):
        raise ServiceError(f"service {module}: `service` is not a fengshou.protocol.service.Service")
    try:
        service.configure(options)
    except OptionError as error:
        raise ServiceError(str(error)) from error
    return service


def services_of(config: Config) -> list[Service]:
    """The services that a configuration names, in its order. Raises ServiceError."""
    return [load_service(entry.module, entry.options) for entry in config.service]


class Catalogue:
    """All services by template, the grammar and its codec. Immutable after construction."""

    def __init__(self, services: Iterable[Service]) -> None:
        """Raises ServiceError when services contradict each other."""
        self.services = tuple(services)
        names = [service.name for service in self.services]
        for name in names:
            if names.count(name) > 1:
                raise ServiceError(f"service {name} is loaded twice")
        try:
            self.grammar = Grammar(
                (element for service in self.services for element in service.elements),
                (template for service in self.services for template in service.templates),
            )
        except GrammarError as error:
            raise ServiceError(str(error)) from error
        self.codec = MessageCodec(self.grammar)
        self._by_template = {template.id: service for service in self.services for template in service.templates}

    def service(self, template: int) -> Service | None:
        return self._by_template.get(template)

    def template(self, template: int) -> Template:
        return self.grammar.templates[template]

    def signed(self) -> dict[int, bool]:
        """Of each template id, whether its requests are signed."""
        return {template.id: template.signed for template in self.grammar.templates.values()}
