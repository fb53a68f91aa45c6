"""`segment models`."""

from typing import Annotated

import typer

from segment.cli.app import App, StorageOptions, app, open_store

models_app = App("List the built-in model cards, show one, or draft one for your model.", invoke_without_command=True)
app.add_typer(models_app, name="models")


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the built-in model cards; `segment models show NAME` prints one."""
    if context.invoked_subcommand is None:
        from segment.report.cards import print_cards

        print_cards()


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a built-in card, or path or URL of a card.")],
    storage_option: StorageOptions = None,
) -> None:
    """Print a model card."""
    from segment.models.card import load_card
    from segment.report.cards import print_card

    print_card(load_card(name, open_store(storage_option)))
