"""Parts of pages that are written from the package itself: the table of flows and the API."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from pathlib import Path

from sphinx.application import Sphinx

import nfvi
from nfvi import plots
from nfvi.flows import FlowSpec, lookup, names

FAST = {
    "both": "both",
    "sampling": "sampling (z → x)",
    "density": "density (x → z)",
}

TOPICS = {
    "fitting": ("inference", "auto", "fit", "search"),
    "targets": ("targets",),
    "guides": ("formula", "guides", "flows"),
    "data": ("density", "sklearn"),
    "checks": ("mcmc", "assess"),
    "callbacks": ("training",),
    "errors": ("errors", "utils"),
}
"""The pages of docs/api/, and the folders of the package whose public names they hold."""


def _row(spec: FlowSpec) -> str:
    options = ", ".join(f"`{option}`" for option in spec.options.values())
    names = ", ".join(f"`{name}`" for name in (spec.name, *spec.aliases))
    context = "yes" if spec.cls.takes_context else "no"
    cells = [names, spec.help, options or "none", FAST[spec.cls.fast], context]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def flows_table() -> str:
    """The registered flows as a Markdown table."""
    specs = {name: lookup(name) for name in names() if lookup(name).name == name}
    head = "| name | map | options, with defaults | direction in closed form | takes a context |"
    return "\n".join([head, "|---|---|---|---|---|", *map(_row, specs.values())]) + "\n"


def _directive(name: str, value: object) -> str:
    options = ""
    if inspect.isclass(value):
        kind, options = "autoclass", "\n:members:"
        if value.__base__ is not object:
            options += "\n:show-inheritance:"
        origins = {base.__module__.partition(".")[0] for base in value.__mro__[1:-1]}
        if origins <= {"nfvi", "abc"}:
            options += "\n:inherited-members:"
        if "sklearn" in origins:  # a method that scikit-learn adds, with links into its own pages
            options += "\n:exclude-members: set_fit_request"
    elif inspect.ismodule(value):
        kind, options = "automodule", "\n:members:"
    else:
        kind = "autofunction" if callable(value) else "autodata"
    return f"```{{eval-rst}}\n.. {kind}:: nfvi.{name}{options}\n```\n".replace("\n:", "\n   :")


def topics() -> dict[str, list[str]]:
    """The public names of each topic, in the order of ``nfvi.__all__``; pictures stand last.

    Raises:
        KeyError: a name comes from a folder that no topic has; add it to ``TOPICS``.
    """
    of = {room: topic for topic, rooms in TOPICS.items() for room in rooms}
    found: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for name in nfvi.__all__:
        room = getattr(nfvi, name).__module__.split(".")[1]
        found[of[room]].append(name)
    return {**found, "pictures": [f"plots.{name}" for name in plots.__all__]}


def table(names: Sequence[str]) -> str:
    """Names with the first sentence of each, linked to their entries."""
    lines = [".. autosummary::", "   :nosignatures:", "", *(f"   nfvi.{name}" for name in names)]
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def topic_page(names: Sequence[str]) -> str:
    """A table of names, and below it the entry of each."""
    entries = [f"## {_title(name)}\n\n{_directive(name, _value(name))}" for name in names]
    return "\n".join([table(names), *entries])


def _title(name: str) -> str:
    return name.rpartition(".")[2]


def _value(name: str) -> object:
    return operator.attrgetter(name)(nfvi)


def parts() -> dict[str, str]:
    """The text of each file that a page includes."""
    found = {"flows.md": flows_table()}
    for topic, members in topics().items():
        found[f"api-{topic}.md"] = topic_page(members)
        found[f"table-{topic}.md"] = table(members)
    return found


def write(app: Sphinx) -> None:
    """Write the parts under docs/_generated, unless they are there with the same text."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for file, text in parts().items():
        path = folder / file
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Have Sphinx write the pages before it reads any."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
