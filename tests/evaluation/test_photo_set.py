"""Tables of photographs, with queries and boxes, and what cannot be evaluated."""

import warnings

import pytest

from skretrieval import recipes
from skretrieval.evaluation import evaluate


def test_what_cannot_be_evaluated(folder, tmp_path, extractor, make_folder):
    pipeline = recipes.mac(extractor=extractor, whitening=None)
    with pytest.raises(TypeError, match="retriever"):
        evaluate(pipeline[:-1], folder)
    with pytest.raises(ValueError, match="neither a folder nor one of"):
        evaluate(pipeline, "oxford6k")
    with pytest.raises(ValueError, match="no sibling of 'things'"):
        evaluate(pipeline, folder, whitening_set="sibling")
    with pytest.raises(ValueError, match="options"):
        evaluate(pipeline, folder, options={"upright": True})
    with pytest.raises(OSError, match="oxbuild_images"):
        evaluate(pipeline, "oxford5k", data_home=tmp_path)
    with pytest.raises(OSError, match="paris"):
        evaluate(pipeline, folder, whitening_set="paris6k", data_home=tmp_path)
    loose = make_folder("loose", n=3)
    (loose / "a" / "00.png").rename(tmp_path / "one.png")
    (tmp_path / "alone").mkdir()
    (tmp_path / "one.png").rename(tmp_path / "alone" / "one.png")
    with pytest.raises(ValueError, match="neither queries nor labels"):
        evaluate(pipeline, tmp_path / "alone")


def test_a_table_gives_queries_and_boxes(folder, extractor):
    table = folder.parent / "roles.csv"
    lines = ["path,label,role,box", "things/a/00.png,a,query,4 4 50 50"]
    lines += [f"things/{'abc'[i % 3]}/{i:02d}.png,{'abc'[i % 3]},gallery," for i in range(1, 12)]
    table.write_text("\n".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate(recipes.mac(extractor=extractor, whitening=None), f"folder:{table}")
    assert evaluation.record["dataset"]["n_queries"] == 1
    assert evaluation.record["dataset"]["n_images"] == 11
    assert evaluation.record["dataset"]["source"] == {"folder": str(table)}
