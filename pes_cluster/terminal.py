"""How commands print: a console, and numbers in tables."""

from typing import Any

from rich.console import Console


def console() -> Console:
    """A console as wide as its terminal, or wide enough where there is none."""
    made = Console()
    return made if made.is_terminal else Console(width=150)


def number(value: Any) -> str:
    """A value as it stands in a table: five digits of a float, "-" for what is not."""
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
