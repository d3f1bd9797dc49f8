# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles, from the templates in images/. A name that a template uses and nobody gives is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from builder.recipes import Recipe
from runtime.errors import KmeshError


@dataclass(frozen=True)
class BaseView:
    """A base as templates see it.

    Attributes:
        reference: what FROM names.
        installer: "apt-get", "dnf", or "" where all packages are there.
        packages: what is to be installed.
        stage: what the stages stand on that finish the image's parts, "" for the base itself.
    """

    reference: str
    installer: str
    packages: Sequence[str]
    stage: str = ""


@dataclass(frozen=True)
class ArchiveView:
    """A part of an image: the stage that finishes it, the archive in the context that it comes from."""

    stage: str
    file: str


def render(
    directory: Path,
    image: Recipe,
    *,
    base: BaseView,
    archives: Sequence[ArchiveView],
    labels: Mapping[str, str],
    environment: Mapping[str, str],
) -> str:
    """The Dockerfile of an image.

    Args:
        directory: where the templates are.
        image: the recipe.
        base: what it stands on.
        archives: its parts, in the order of its layers.
        labels: its labels.
        environment: variables that are set in its containers.

    Raises:
        KmeshError: the template is missing or wrong; with its file and line.
    """
    engine = jinja2.Environment(  # noqa: S701 - a Dockerfile, not a web page
        loader=jinja2.FileSystemLoader(directory),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    name = f"{image.name}.Dockerfile.j2"
    try:
        return engine.get_template(name).render(
            image=image,
            base=base,
            archives=archives,
            labels=dict(labels),
            environment=dict(environment),
        )
    except jinja2.TemplateSyntaxError as error:
        raise KmeshError(f"{directory}/{error.filename or name}:{error.lineno}: {error}") from error
    except jinja2.TemplateError as error:
        raise KmeshError(f"{directory}/{name}: {error}") from error
