"""Every method has a card, every card is complete, and what it says of the code is true."""

import inspect
import re
from pathlib import Path

import pytest
from PIL import Image

from skretrieval import pooling, postprocessing, recipes, retrieval

DOCS = Path(__file__).parents[2] / "docs"
FIELDS = ["Formula", "Parameters", "Source", "Left open, and chosen", "Cost", "In code"]
CARDS = {
    name: text
    for page in sorted((DOCS / "methods").glob("*.md"))
    for name, text in re.findall(
        r"^## (\w+)\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
}
ESTIMATORS = {
    name: thing
    for package in (pooling, postprocessing)
    for name in package.__all__
    if inspect.isclass(thing := getattr(package, name)) and name != "BasePooler"
} | {name: getattr(retrieval, name) for name in retrieval.__all__ if name != "NearestNeighborsRetriever"}
CODEBOOKS = ["BoWPooler", "VLADPooler", "FisherVectorPooler", "TEmbeddingPooler", "NetVLADPooler"]
RECIPES = {name: getattr(recipes, name) for name in recipes.__all__}


def signature(name, thing):
    """What a card prints: names and defaults, no annotations."""
    found = inspect.signature(thing)
    plain = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
    return plainly(f"{name}{found.replace(parameters=plain, return_annotation=found.empty)}")


def plainly(text):
    return re.sub(r"\s+", "", text).replace('"', "'")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_poolers_and_postprocessors_have_cards_with_signatures(name):
    first = re.match(r"\s*```python\n(.*?)```", CARDS[name], re.DOTALL)
    assert first, f"the card of {name} begins with no signature"
    assert plainly(first[1]) == signature(name, ESTIMATORS[name])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_parameter_is_explained(name):
    described = CARDS[name].partition("**Parameters.**")[2].partition("**Source.**")[0]
    shared = {"rectify", "random_state"}
    if name in CODEBOOKS:
        shared |= {"n_local", "points", "n_points", "sample_size"}  # explained at the head of their page
    for parameter in set(inspect.signature(ESTIMATORS[name]).parameters) - shared:
        assert f"`{parameter}" in described, f"{name}: {parameter}"


def test_what_codebooks_share_is_explained_at_the_pages_head():
    head = (DOCS / "methods" / "codebooks.md").read_text("utf-8").partition("\n## ")[0]
    for parameter in ("n_local", "points", "n_points", "sample_size", "random_state"):
        assert f"`{parameter}`" in head


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_run_in_a_card(name):
    call = re.compile(rf"^>>> .*\brecipes\.{name}\(", re.MULTILINE)
    called = [card for card, text in CARDS.items() if call.search(text)]
    assert called, f"no card runs recipes.{name}"


@pytest.mark.parametrize("name", sorted(set(RECIPES) & set(CARDS)))
def test_cards_of_recipes_print_their_signature(name):
    assert signature(name, RECIPES[name]) in plainly(CARDS[name])


@pytest.mark.parametrize("name", CARDS)
def test_cards_are_complete(name):
    text = CARDS[name]
    assert re.findall(r"^\*\*([^*]+)\.\*\*", text, re.MULTILINE) == FIELDS
    for field in FIELDS[:-1]:
        said = text.partition(f"**{field}.**")[2].partition("\n**")[0]
        assert len(said.strip(" .\n")) >= 10 or field == "Parameters", f"{name}: {field} says nothing"
    if name != "GSW":
        assert ">>> " in text.partition("**In code.**")[2], f"{name}: no code"


@pytest.mark.parametrize(
    "term", [*pooling.spatial.SPATIAL, *pooling.channel.CHANNEL, *pooling.regions.REGIONS]
)
def test_every_term_is_listed(term):
    assert f'"{term}"' in CARDS["WeightedPooler"]


@pytest.mark.parametrize("term", pooling.reductions.REDUCTIONS)
def test_every_reduction_is_listed(term):
    assert f'"{term}"' in CARDS["WeightedPooler"]


def test_the_overview_leads_to_every_card():
    overview = (DOCS / "methods.md").read_text("utf-8")
    linked = set(re.findall(r"\(methods/\w+\.md#(\w+)\)", overview))
    assert linked == {name.lower() for name in CARDS}
    for name in RECIPES:
        assert f"`{name}`" in overview, name


def pages():
    return [DOCS / "methods.md", *sorted((DOCS / "methods").glob("*.md"))]


def test_pictures_and_pages_belong_together():
    """Every picture exists, is used, and every use has a description and a caption or a card around it."""
    used = []
    for page in pages():
        for description, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text("utf-8")):
            assert len(description) > 10, f"{page.name}: {target} has no description"
            assert (page.parent / target).is_file(), f"{page.name}: {target} is missing"
            used.append((page.parent / target).resolve())
    assert set(used) == {path.resolve() for path in (DOCS / "images").iterdir()}
    assert len(used) == len(set(used))


def test_links_between_cards_lead_somewhere():
    anchors = {
        page.name: {
            heading.lower() for heading in re.findall(r"^## (\w+)$", page.read_text("utf-8"), re.MULTILINE)
        }
        for page in pages()
    }
    for page in pages():
        for target, anchor in re.findall(r"\]\((?:methods/)?(\w+\.md)#(\w+)\)", page.read_text("utf-8")):
            assert anchor in anchors[target], f"{page.name}: {target}#{anchor}"


def test_pictures_are_small():
    sizes = [path.stat().st_size for path in (DOCS / "images").iterdir()]
    assert max(sizes) < 60 * 1024
    assert sum(sizes) < 1.5 * 1024**2


@pytest.mark.parametrize("path", sorted((DOCS / "images").iterdir()), ids=lambda path: path.stem)
def test_pictures_open_and_show_something(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 400 <= picture.width <= 900
        grey = picture.convert("L")
        low, high = grey.getextrema()
    assert high - low > 100
