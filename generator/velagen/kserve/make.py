"""Writes what is made of KServe's CustomResourceDefinition: ``python -m velagen.kserve.make``."""

from __future__ import annotations

from velagen.kserve.cut import pod_schema, printed
from velagen.kserve.fields import fields, page
from velagen.project import Project


def main() -> None:
    """Write the files of the project around the current folder."""
    project = Project.find()
    (project.schemas / "pod.json").write_text(printed(pod_schema()), encoding="utf-8")
    (project.root / "docs" / "kserve-fields.md").write_text(page(fields()), encoding="utf-8")


if __name__ == "__main__":
    main()
