"""`schema`: what may stand in each file, for editors, validators and people."""

from __future__ import annotations

import click

from endpoint.cli.common import Settings, common_options, echo_json, json_option, pass_settings, table
from endpoint.errors import UsageError


@click.command("schema")
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print the reference page instead, in Markdown.")
@click.option("--path", is_flag=True, help="Print where the schema lies instead, for an editor's settings.")
@json_option
@common_options
@pass_settings
def schema(settings: Settings, /, name: str | None, markdown: bool, path: bool) -> None:
    """Print the JSON Schema of a file that administrators write; without NAME, list what there is.

    The schema is one document, which any editor or validator of JSON Schema (2020-12) can use.
    """
    from endpoint.config.bundle import bundled, editor_file, for_editors, json_text, names

    if markdown and path:
        raise UsageError("--markdown and --path ask for different things", hint="Leave one of them out")
    if name is None:
        if markdown or path:
            raise UsageError("No schema is named", hint=f"Add one of: {', '.join(names())}")
        _list(settings)
        return
    if name not in names():
        raise UsageError(f"There is no schema {name!r}", hint=_nearest(name, names()), code="NO_SUCH_SCHEMA")
    if path:
        where = str(editor_file(name))
        echo_json({"name": name, "path": where}) if settings.json else click.echo(where)
    elif markdown:
        from endpoint.config.reference import reference

        page = reference(name)
        echo_json({"name": name, "markdown": page}) if settings.json else click.echo(page, nl=False)
    else:
        click.echo(json_text(for_editors(bundled(name))), nl=False)


def _list(settings: Settings) -> None:
    from endpoint.config.bundle import FILES, editor_file, names
    from endpoint.config.schemas import load_schema

    found = [
        {"name": name, "title": load_schema(name)["title"], "file": FILES.get(name, ""), "path": str(editor_file(name))}
        for name in names()
    ]
    if settings.json:
        echo_json(found)
    else:
        click.echo(table(["Name", "Title", "File"], [[one["name"], one["title"], one["file"]] for one in found]))


def _nearest(word: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Name one of: {', '.join(known)}"
