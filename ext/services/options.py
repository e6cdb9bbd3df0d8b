"""Options of services, declared as msgspec structs and checked once at start."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from fengshou.protocol.service import OptionError

Form = TypeVar("Form", bound=msgspec.Struct)


def options_as(form: type[Form], options: Mapping[str, Any], service: str) -> Form:
    """The options in their declared form. Raises OptionError for one that is unknown, mistyped or out of bounds."""
    try:
        return msgspec.convert(options, form)
    except msgspec.ValidationError as error:
        raise OptionError(f"service {service}: {error}") from None
