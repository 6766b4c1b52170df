"""Which checkpoints are offered, what the panel says about them, and what it remembers."""

from __future__ import annotations

import os
import sys

import pytest

from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.errors import SegMateError

DEMO = bundled_checkpoints()["demo"]


@pytest.fixture
def choices(host):
    from SegMateSlicerLib.panel import checkpoint_choices

    return checkpoint_choices


class Store(dict):
    """As much of a QSettings as Settings uses."""

    def value(self, key):
        return self.get(key)

    def setValue(self, key, value):
        self[key] = value

    def fileName(self):
        return os.path.join("home", "Slicer.ini")


def test_bundled_first_then_installed_then_recent(choices, tmp_path):
    for name in ("b.safetensors", "a.onnx", "notes.txt", "c.pth"):
        (tmp_path / name).write_bytes(b"")
    recent = tmp_path / "elsewhere" / "recent.onnx"
    recent.parent.mkdir()
    recent.write_bytes(b"")
    gone = str(tmp_path / "gone.onnx")
    found = choices.checkpoint_choices(tmp_path, [str(recent), gone, str(tmp_path / "a.onnx")], "demo")
    assert [(choice.title, choice.group) for choice in found if choice.group != "available"] == [
        ("demo", "bundled"),
        ("a.onnx", "installed"),
        ("b.safetensors", "installed"),
        ("recent.onnx", "recent"),
    ]
    assert found[0].word == "demo" and found[1].word == str(tmp_path / "a.onnx")


def test_a_chosen_checkpoint_that_is_gone_stays_in_the_list(choices, tmp_path):
    gone = str(tmp_path / "gone.onnx")
    found = choices.checkpoint_choices(tmp_path / "no folder", [], gone)
    assert [choice.word for choice in found if choice.group == "recent"] == [gone]
    with pytest.raises(SegMateError, match="gone.onnx"):
        choices.read_facts(gone)


def test_downloaded_models_are_listed_by_name_and_public_ones_last(choices, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path))
    weights = DEMO.with_suffix(".safetensors").read_bytes()
    for name in ("totalsegmentator_3mm", "mine", "demo"):
        (tmp_path / f"{name}.safetensors").write_bytes(weights)
    found = choices.checkpoint_choices(tmp_path / "no folder", [], "totalsegmentator_6mm")
    groups = {choice.word: choice.group for choice in found}
    assert groups["mine"] == groups["totalsegmentator_3mm"] == "installed" and groups["demo"] == "bundled"
    assert groups["totalsegmentator_6mm"] == groups["monai_wholebody_3mm"] == "available"
    assert [choice.group for choice in found] == sorted(
        (choice.group for choice in found), key=["bundled", "installed", "recent", "available"].index
    )
    assert len(groups) == len(found)
    for choice in found:
        assert bool(choice.reason) == (choice.group == "available")
    facts = choices.read_facts("totalsegmentator_3mm")
    assert facts.engines == ("torch",) and facts.name == "demo"
    with pytest.raises(SegMateError, match="about 135 MB.*Download"):
        choices.read_facts("totalsegmentator_6mm")


def test_facts_of_the_demonstration_checkpoint(choices):
    facts = choices.read_facts("demo")
    assert facts.demonstration and facts.cleans_up
    assert facts.networks == ("unet_resnet10t",)
    assert [row["name"] for row in facts.organs][:3] == ["left lung", "right lung", "spinal cord"]
    assert len(facts.organs) == 9
    assert facts.spacing_mm == (3, 3, 3)
    assert facts.engines == ("onnxruntime", "torch")
    assert facts.licences[0] == ("these weights", "Apache-2.0")
    assert facts.cases > 0 and facts.phantoms > 0
    text = choices.facts_html(facts)
    assert "3 × 3 × 3 mm" in text and "unet_resnet10t" in text and "Apache-2.0" in text
    assert choices.licences_text(facts).count("\n") == len(facts.licences) - 1


def test_a_file_runs_on_the_engine_of_its_format(choices):
    assert choices.read_facts(str(DEMO)).engines == ("onnxruntime",)
    assert choices.read_facts(str(DEMO.with_suffix(".safetensors"))).engines == ("torch",)


def test_texts_of_a_file_are_no_markup(choices):
    from dataclasses import replace

    facts = replace(choices.read_facts("demo"), description="<img src=x>", networks=("a<b", "a<b"))
    text = choices.facts_html(facts)
    assert "<img" not in text and "&lt;img" in text
    assert "2 networks: a&lt;b" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.onnx", b"no protobuf"),
        ("broken.safetensors", b"\x10\0\0\0\0\0\0\0{]"),
        ("other.bin", b""),
        ("original.pth", b"PK"),
    ],
)
def test_an_unreadable_file_is_one_line_with_its_name(choices, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SegMateError) as caught:
        choices.read_facts(str(tmp_path / name))
    message = str(caught.value)
    assert name in message and "\n" not in message


def test_a_replaced_file_is_read_again(choices, tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"nothing yet")
    with pytest.raises(SegMateError):
        choices.read_facts(str(path))
    path.write_bytes(DEMO.read_bytes())
    assert choices.read_facts(str(path)).name == "demo"


def test_facts_need_no_engine(choices):
    """In Slicer's process neither torch nor ONNX Runtime may be loaded for a description."""
    import subprocess

    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import host; host.start()\n"
        "from SegMateSlicerLib.panel.checkpoint_choices import read_facts\n"
        "read_facts('demo'); read_facts(sys.argv[4])\n"
        "loaded = {'torch', 'onnxruntime', 'safetensors', 'nibabel', 'nrrd', 'timm'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folders = [os.path.join(root, "Testing", "slicer"), os.path.join(root, "SegMateSlicer"), root]
    weights = str(DEMO.with_suffix(".safetensors"))
    ended = subprocess.run([sys.executable, "-c", code, *folders, weights], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_settings_come_back_as_they_were_set(host):
    from SegMateSlicerLib.panel.settings import Settings

    store = Store()
    settings = Settings(store)
    assert settings.remembered() == {} and settings.recent == []
    assert settings.checkpoint_folder.parts[-3:] == ("home", "SegMate", "checkpoints")
    settings.remember("engine", "torch")
    settings.remember("show3d", False)
    assert Settings(store).remembered() == {"engine": "torch", "show3d": False}
    assert all(key.startswith("SegMate/") for key in store)


def test_the_newest_five_recent_checkpoints_are_kept_without_doubles(host):
    from SegMateSlicerLib.panel.settings import Settings

    settings = Settings(Store())
    for name in ("a", "b", "c", "d", "b", "e", "f"):
        settings.add_recent(name)
    assert settings.recent == ["f", "e", "b", "d", "c"]


def test_settings_edited_by_hand_are_ignored_where_they_make_no_sense(host):
    from SegMateSlicerLib.panel.settings import Settings

    assert Settings(Store({"SegMate/RecentCheckpoints": "[1, "})).recent == []
    assert Settings(Store({"SegMate/RecentCheckpoints": '["a", 7]'})).recent == ["a"]
