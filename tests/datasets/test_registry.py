"""What is known of the published data sets, and the options of the functions that fetch them."""

import pytest
from fixtures.published import FETCHERS

import skretrieval.datasets as datasets
from skretrieval.datasets import _registry as registry
from skretrieval.datasets import (
    fetch_holidays,
    fetch_oxford5k,
    fetch_roxford5k,
    fetch_ukbench,
    get_data_home,
)
from skretrieval.datasets._download import Transfer
from skretrieval.extraction import ConvKernelExtractor


def test_what_comes_can_be_described(oxford, options):
    data = fetch_roxford5k(**options)
    extractor = ConvKernelExtractor(image_size=32, random_state=0)
    maps = extractor.fit(data.images).transform(data.queries)
    assert len(list(maps)) == 2


def test_the_data_home(monkeypatch, tmp_path, oxford, options):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    assert get_data_home() == tmp_path / "me" / "skretrieval_data"
    assert get_data_home("~/photographs") == tmp_path / "me" / "photographs"
    monkeypatch.setenv("SKRETRIEVAL_DATA", str(tmp_path / "elsewhere"))
    assert get_data_home() == tmp_path / "elsewhere"
    del options["data_home"]
    assert fetch_oxford5k(**options).images[0].startswith(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("fetch", "change", "why"),
    [
        (fetch_oxford5k, {"mirrors": "file:///data"}, "A mirror must be an http"),
        (fetch_oxford5k, {"n_retries": -1}, "n_retries must be 0 or more, got -1"),
        (fetch_oxford5k, {"delay": -0.5}, r"delay must be 0 or more seconds, got -0\.5"),
        (fetch_holidays, {"database": "none"}, "database must be 'all' or 'non_queries', got 'none'"),
        (fetch_ukbench, {"queries": "last"}, "queries must be 'all' or 'first', got 'last'"),
    ],
)
def test_options_are_checked(options, fetch, change, why):
    with pytest.raises(ValueError, match=why):
        fetch(**{**options, **change})
    assert not options["data_home"].exists()


@pytest.mark.parametrize("name", FETCHERS)
def test_every_option_is_documented(name):
    fetch = getattr(datasets, name)
    section = fetch.__doc__.partition("Parameters\n")[2].partition("Returns\n")[0]
    for option in fetch.__kwdefaults__:
        assert f"\n    {option} : " in section


@pytest.mark.parametrize(
    "dataset",
    [value for value in vars(registry).values() if isinstance(value, registry.DataSet)],
    ids=lambda d: d.name,
)
def test_the_registry_is_consistent(dataset):
    files = list(dataset.files())
    assert len({file.name for file in files}) == len(files)
    for file in files:
        assert file.urls
        assert all(url.rpartition("/")[2] == file.name for url in file.urls)
        assert all(url.startswith(("http://", "https://", "ftp://")) for url in file.urls)
        assert file.sha256 is None or len(file.sha256) == 64
        assert Transfer(mirrors=("https://mirror/x/",)).urls(file)[0] == f"https://mirror/x/{file.name}"
    assert "SHA-256" in dataset.descr
    assert "Licence" in dataset.descr
