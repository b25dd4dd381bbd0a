"""Print the oldest supported version of each dependency, as pins for pip.

The floors are those of pyproject.toml: the dependencies, and the extras that the tests need.

    python .ci/oldest.py > oldest.txt && pip install -r oldest.txt
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("test", "plot", "photos", "faiss", "rar", "heif", "hf", "opencv")
# Not ours: later ones deprecate what our oldest versions call, and our tests make errors of warnings.
NEEDED = ["pyparsing<3.3"]  # matplotlib 3.9
FLOOR = re.compile(r"([A-Za-z0-9_.-]+(?:\[[a-z,]+\])?)\s*>=\s*([0-9][0-9a-z.]*)")


def pins(project: dict) -> list[str]:
    """List ``name==floor`` of each requirement; one without a floor is an error."""
    requirements = [*project["dependencies"]]
    for extra in EXTRAS:
        requirements += project["optional-dependencies"][extra]
    own = project["name"] + "["
    found = []
    for requirement in requirements:
        if requirement.startswith(own):
            continue  # the package's own extras, which EXTRAS lists
        match = FLOOR.fullmatch(requirement.split(";")[0].strip())
        if match is None:
            raise ValueError(
                f"The requirement {requirement!r} of pyproject.toml has no floor (name>=version)."
            )
        found.append("==".join(match.groups()))
    return sorted({*found, *NEEDED})


if __name__ == "__main__":
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(pins(tomllib.loads(text)["project"])))
