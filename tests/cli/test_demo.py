"""`skretrieval demo`."""

import re

import pytest

from skretrieval.datasets import load_sample_photographs


def figures(output):
    return {name: float(value) for name, value in re.findall(r"(mAP|P@1) ([\d.]+)", output)}


def test_demo_finds_the_photographs_offline(tmp_path, run):
    pytest.importorskip("skimage", reason="the sample photographs need the extra photos")
    page = tmp_path / "page.html"
    output = run("demo", "--views", 1, "--html", page)
    assert "15 photographs of 14 subjects, 15 queries" in output
    assert "timm:tf_efficientnet_lite0 + grmac" in output
    assert f"Page: {page}" in output
    # Chance is 0.2; the two photographs of the motorcycle must both be found.
    assert figures(output)["mAP"] > 0.9
    assert figures(output)["P@1"] > 0.9
    html = page.read_text(encoding="utf-8")
    assert html.count('<section class="search">') == 15
    assert html.count('class="hit right"') >= 15
    assert "View of Chelsea the cat" in html
    for value in figures(output).values():
        assert f"<dd>{value:.4f}</dd>" in html
    assert 'class="hit wrong"' not in html, "what a photograph shows besides is not known"


def test_demo_ends_with_baselines_and_what_to_do_next(tmp_path, shared_photographs, run, network_options):
    output = run("demo", shared_photographs, "--views", 1, "--html", tmp_path / "page.html", *network_options)
    baselines = re.search(r"colour histograms (0\.\d{4}), 8 x 8 thumbnails (0\.\d{4})", output)
    assert baselines, output
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    for value in baselines.groups():
        assert f"<dd>{value}</dd>" in html
    assert output.strip().splitlines()[-1].endswith("skretrieval index ~/Pictures --out pictures.index")


def test_demo_of_own_photographs(tmp_path, shared_photographs, run, network_options):
    page = tmp_path / "page.html"
    options = ["--views", 3, "--strength", 0.2, "--limit", 7, "--recipe", "mac", "--html", page]
    output = run("demo", shared_photographs, *options, *network_options)
    assert "7 photographs of 3 subjects, 21 queries" in output
    assert "squeezenet1_1 + mac" in output
    html = page.read_text(encoding="utf-8")
    assert html.count('<section class="search">') == 21
    assert html.count('class="thumb ') == 21 * 7


def test_demo_without_labels_takes_each_photograph_as_a_subject(
    tmp_path, run, draw_photograph, network_options
):
    for number in range(4):
        draw_photograph(tmp_path / "flat" / f"{number}.png", number)
    page = tmp_path / "page.html"
    output = run("demo", tmp_path / "flat", "--strength", 0, "--views", 16, "--html", page, *network_options)
    assert "4 photographs of 4 subjects, 64 queries" in output
    assert figures(output) == {"mAP": 1.0, "P@1": 1.0}, "unchanged but for the JPEG compression"
    assert "64 (60 shown)" in page.read_text(encoding="utf-8")


def test_demo_without_scikit_image_names_the_extra(monkeypatch, tmp_path, run):
    from skretrieval.datasets import _samples

    monkeypatch.setattr(_samples, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="photos"):
        load_sample_photographs()
    output = run("demo", "--html", tmp_path / "page.html", fails=True)
    assert 'pip install "scikit-retrieval[photos]"' in output


def test_demo_of_an_empty_folder(tmp_path, run):
    assert "No images in" in run("demo", tmp_path, fails=True)
