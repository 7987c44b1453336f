"""clearhead explore. Serve the explorer on this machine and open it in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from clearhead.cli.options import Pickle, SourceLanguage, TargetLanguage, languages


def explore(
    model: Annotated[str, typer.Option("--model", "-m", help="a folder, a hub id, or an embedded name")] = "minilm",
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="what the page opens with; else one that suits the model")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="the decoder's text, for encoder-decoders; else what the model itself writes")
    ] = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    host: Annotated[str, typer.Option(help="where to listen; the default is this machine alone")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one")] = 8000,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open the browser")] = True,
    pickle: Pickle = False,
) -> None:
    """Type a text in the browser and see what every attention head of MODEL reads in it. Ctrl-C ends it."""
    from clearhead.serve import serve

    serve(
        model,
        text=text,
        target=target,
        host=host,
        port=port,
        open_browser=browser,
        pickle=pickle,
        languages=languages(source_language, target_language),
    )
