"""The list of public models: what is in it, and that a broken one is refused with the entry's name."""

from __future__ import annotations

import copy
import json
from urllib.parse import urlsplit

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.model_manifest import RESOURCES, checked_model_name, read_manifest
from SegMateCore.organs import NINE

DOCUMENT = json.loads((RESOURCES / "manifest.json").read_text(encoding="utf-8"))
NAMES = [row["name"] for row in DOCUMENT["models"]]


class TestOurs:
    def test_the_models(self):
        assert list(read_manifest()) == NAMES
        assert {"totalsegmentator_3mm", "totalsegmentator_1.5mm", "monai_wholebody_3mm"} <= set(NAMES)

    @pytest.mark.parametrize("name", NAMES)
    def test_each_is_whole(self, name):
        entry = read_manifest()[name]
        assert set(entry.organs) <= {organ.name for organ in NINE}
        assert ("spinal cord" in entry.organs) == (entry.kind == "nnunet")
        assert entry.licence.identifier == "Apache-2.0"
        assert "Apache License" in entry.licence.text.read_text(encoding="utf-8")
        assert f"{entry.spacing_mm:g}mm" in name
        assert all("doi:" in line or "arXiv:" in line for line in entry.citations)
        for source in entry.sources:
            assert urlsplit(source.url).scheme == "https"
            assert urlsplit(source.url).hostname in (
                "github.com", "raw.githubusercontent.com", "developer.download.nvidia.com",
            )
            assert source.unpack == source.file_name.endswith(".zip")
        if entry.kind == "nnunet":
            assert len(entry.folders) == len(entry.sources)
            for folder, source in zip(entry.folders, entry.sources):
                assert folder.startswith(source.file_name.removesuffix(".zip") + "/")
            assert entry.options["orientation"] == "RAS"

    def test_sizes(self):
        entries = read_manifest()
        assert entries["totalsegmentator_3mm"].size_text == "about 135 MB"
        assert entries["totalsegmentator_1.5mm"].size_text == "about 702 MB"
        assert entries["monai_wholebody_3mm"].size_text == "size unknown"

    def test_the_licences_text_is_the_projects_own(self):
        licence = RESOURCES.parents[1] / "LICENSE.txt"
        if not licence.is_file():
            pytest.skip("not run from the repository")
        assert (RESOURCES / "licences" / "Apache-2.0.txt").read_bytes() == licence.read_bytes()


def write(folder, document) -> str:
    (folder / "licences").mkdir(exist_ok=True)
    (folder / "licences" / "Apache-2.0.txt").write_text("Apache License")
    path = folder / "manifest.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def refusal(path) -> str:
    with pytest.raises(SegMateError) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


class TestRefused:
    @pytest.mark.parametrize(
        ("document", "word"),
        [
            ("{", "JSON"),
            ("[]", "no list of models"),
            ({"format": "other"}, "no list of models"),
            ({**DOCUMENT, "version": 2}, "update SegMate"),
            ({**DOCUMENT, "models": {}}, "to be a list"),
            ({**DOCUMENT, "models": [7]}, "model 1"),
            ({**DOCUMENT, "models": [DOCUMENT["models"][0]] * 2}, "twice"),
        ],
    )
    def test_the_whole(self, tmp_path, document, word):
        assert word in refusal(write(tmp_path, document))

    @pytest.mark.parametrize(
        ("keys", "value", "word"),
        [
            (("title",), None, "title"),
            (("name",), "../evil", "cannot be the name"),
            (("classes",), 0, "classes"),
            (("spacing_mm",), "wide", "wide"),
            (("sources",), [], "sources"),
            (("sources", 0, "url"), "http://example.org/a.zip", "https"),
            (("sources", 0, "bytes"), "many", "bytes"),
            (("sources", 0, "place"), "../up", "leaves its folder"),
            (("sources", 0, "hash"), {"md5": "0"}, "hash"),
            (("sources", 0, "hash"), {"crc32": "0" * 8}, "hash"),
            (("sources", 0, "unpack"), 1, "unpack"),
            (("licence", "text"), "licences/none.txt", "missing"),
            (("licence", "text"), "/etc/passwd", "leaves its folder"),
            (("convert", "kind"), "pickle", "pickle"),
            (("convert", "folders"), ["/etc"], "leaves its folder"),
            (("convert", "options"), {"a": 1}, "options"),
        ],
    )
    def test_one_entry(self, tmp_path, keys, value, word):
        document = copy.deepcopy(DOCUMENT)
        place = document["models"][1]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        text = refusal(write(tmp_path, document))
        assert word in text and ("totalsegmentator_6mm" in text or keys == ("name",))

    @pytest.mark.parametrize("key", ["title", "licence", "sources", "convert"])
    def test_something_is_missing(self, tmp_path, key):
        document = copy.deepcopy(DOCUMENT)
        del document["models"][0][key]
        text = refusal(write(tmp_path, document))
        assert f"{key} is missing" in text and "totalsegmentator_3mm" in text

    def test_no_file(self, tmp_path):
        assert "No such file" in refusal(tmp_path / "manifest.json")

    @pytest.mark.parametrize("name", ["", "a/b", "a\\b", ".hidden", "a b", "a.", "x" * 101, "ä"])
    def test_names(self, name):
        with pytest.raises(SegMateError, match="cannot be the name"):
            checked_model_name(name)
