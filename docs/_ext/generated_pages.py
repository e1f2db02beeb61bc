"""Pages written from the package itself: the table of flows and the list of public names."""

from __future__ import annotations

import importlib
import inspect
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
        kind, options = "autoclass", "\n:members:\n:show-inheritance:"
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


def api_page() -> str:
    """Every public name of ``nfvi``, under the title of the module that it comes from."""
    sections: dict[str, list[str]] = {}
    for name in nfvi.__all__:
        value = getattr(nfvi, name)
        if not name.startswith("__"):
            sections.setdefault(getattr(value, "__module__", "nfvi"), []).append(name)
    text = ""
    for module, members in sections.items():
        title = (inspect.getdoc(importlib.import_module(module)) or module).splitlines()[0]
        text += f"## {title.rstrip('.')}\n\n"
        text += "\n".join(_directive(name, getattr(nfvi, name)) for name in members) + "\n"
    return text + plots_section()


def plots_section() -> str:
    """The pictures, which are not imported by ``import nfvi``."""
    text = "## Pictures: `nfvi.plots`\n\n" + "```{eval-rst}\n.. automodule:: nfvi.plots\n```\n\n"
    return text + "\n".join(
        _directive(f"plots.{name}", getattr(plots, name)) for name in plots.__all__
    )


def write(app: Sphinx) -> None:
    """Write both pages under docs/_generated, unless they are there with the same text."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for file, text in {"flows.md": flows_table(), "api.md": api_page()}.items():
        path = folder / file
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Have Sphinx write the pages before it reads any."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
