"""``guardkit plugins``: what is installed."""

from __future__ import annotations

import typer

plugins_app = typer.Typer(help="Show what is installed.", invoke_without_command=True)


@plugins_app.callback(epilog="Example: guardkit plugins")
def plugins(context: typer.Context) -> None:
    """Show the installed plugins, what they register and what is wrong with them."""
    if context.invoked_subcommand is None:
        plugins_list()


@plugins_app.command("list", epilog="Example: guardkit plugins list")
def plugins_list() -> None:
    """Show the installed plugins, what they register and what is wrong with them."""
    from guardkit.cli import output
    from guardkit.plugins import installed_plugins

    output.show_plugins(installed_plugins())
