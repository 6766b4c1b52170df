"""The dialog of the public models: licence before download, progress, cancel, and the choice that follows."""

from __future__ import annotations

import json
import sys
import time

import pytest
import slicer

from SegMateCore.bundled import bundled_checkpoints

WEIGHTS = bundled_checkpoints("torch")["demo"]
NAME = "totalsegmentator_6mm"


def child(program: str) -> list[str]:
    """A command that stands for the real one; say() writes a line of JSON."""
    head = "import json, shutil, sys, time\ndef say(**m): print(json.dumps(m), flush=True)\n"
    return [sys.executable, "-c", head + program]


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def arriving(models) -> str:
    path = models / f"{NAME}.safetensors"
    record = {"sources": [{"url": "https://x/a.zip", "sha256": "ab12", "verified": False}]}
    return (
        "say(stage='download 1 of 1', done=3, total=7); time.sleep(0.4)\n"
        f"shutil.copyfile({str(WEIGHTS)!r}, {str(path)!r})\n"
        f"say(name={NAME!r}, path={str(path)!r}, record=json.loads({json.dumps(json.dumps(record))}))\n"
    )


@pytest.fixture
def dialog(widget, models, monkeypatch):
    """open_(program) -> the panel's dialog on the 6 mm model, whose downloads run this program."""
    from SegMateSlicerLib.panel import download_dialog
    from SegMateSlicerLib.worker.model_download import ModelDownload

    section = widget.panel._checkpoint

    def open_it(program: str):
        started = []

        def start(name):
            started.append(name)
            return ModelDownload(name, child(program))

        shown = download_dialog.DownloadDialog(widget.ui.downloadModelButton, section._on_chosen, start)
        section._dialog = shown
        widget.ui.downloadModelButton.click()
        names = list(shown._entries)
        shown.models.setCurrentIndex(names.index(NAME))
        shown.started = started
        return shown

    yield open_it
    if section._dialog is not None:
        section._dialog.close()


def until(condition, timeout_s=20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        slicer.app.processEvents()
        time.sleep(0.005)


def idle(dialog) -> bool:
    return dialog._download is None


def test_public_models_are_greyed_in_the_list(widget):
    box = widget.ui.checkpointComboBox
    item = box.model().item(box.findData(NAME))
    assert not item.isEnabled() and "Download" in item.toolTip() and "to download" in item.text()
    assert box.model().item(box.findData("demo")).isEnabled()


def test_the_licence_comes_first(dialog):
    shown = dialog("")
    assert "Apache License" in shown.licence.plainText and "not for diagnosis" in shown.facts.text
    assert "6 mm" in shown.facts.text and "about 135 MB" in shown.facts.text and "doi:" in shown.facts.text
    assert not shown.button.enabled
    shown.button.click()
    assert shown.started == []
    shown.accept.checked = True
    assert shown.button.enabled
    shown.models.setCurrentIndex(0)
    assert not shown.accept.checked and not shown.button.enabled


def test_a_download_shows_its_progress_and_is_chosen(dialog, models, widget):
    shown = dialog(arriving(models))
    shown.accept.checked = True
    shown.button.click()
    assert shown.started == [NAME] and shown.button.text == "Cancel" and not shown.models.enabled
    until(lambda: "3 / 7 MB" in shown.status.text)
    assert (shown.bar.value, shown.bar.maximum) == (3, 7)
    until(lambda: idle(shown))
    assert "is here" in shown.status.text and "ab12" in shown.status.text
    assert widget._parameterNode.checkpoint == NAME
    box = widget.ui.checkpointComboBox
    assert box.currentText == NAME and box.model().item(box.findData(NAME)).isEnabled()
    assert shown.models.currentText.endswith("(installed)") and not shown.button.enabled


def test_an_error_is_said_and_the_next_try_is_possible(dialog, widget):
    shown = dialog("print('a notice\\nsegmate: no room is left; x', file=sys.stderr); sys.exit(2)")
    shown.accept.checked = True
    shown.button.click()
    until(lambda: idle(shown))
    assert "No room is left" in shown.status.text and shown.button.enabled
    assert widget._parameterNode.checkpoint == "demo"


def test_torch_is_asked_for_in_the_panels_words(host):
    from SegMateSlicerLib.panel.panel_words import in_panel

    text = "x needs PyTorch: pip install 'segmate-core[torch]', then the same command goes on from here"
    wanted = "x needs PyTorch: install PyTorch under Dependencies, then the download goes on from here"
    assert in_panel(text) == wanted


def test_a_process_that_dies_is_said(dialog):
    shown = dialog("import os; os.kill(os.getpid(), 9)")
    shown.accept.checked = True
    shown.button.click()
    until(lambda: idle(shown))
    assert "The download" in shown.status.text and shown.button.enabled


@pytest.mark.parametrize("how", ["button", "window", "panel"])
def test_cancelling(dialog, widget, how):
    shown = dialog("say(stage='download 1 of 1', done=1, total=7); time.sleep(60)")
    shown.accept.checked = True
    shown.button.click()
    until(lambda: "1 / 7" in shown.status.text)
    process = shown._download._process
    {"button": shown.button.click, "window": shown.dialog.reject, "panel": widget.panel.close}[how]()
    assert idle(shown) and not process.is_alive
    if how == "button":
        assert "kept" in shown.status.text and shown.button.enabled


def test_the_window_stays_alive_meanwhile(dialog):
    shown = dialog("say(stage='convert', done=0, total=1); time.sleep(60)")
    shown.accept.checked = True
    shown.button.click()
    until(lambda: "convert" in shown.status.text)
    longest, last = 0.0, time.monotonic()
    for _ in range(50):
        slicer.app.processEvents()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.01)
    assert longest < 1.0


def test_the_real_command(host, models, tmp_path):
    """The child that is really started: it finds SegMateCore, and says what it is told in one line."""
    from SegMateSlicerLib.worker.model_download import ModelDownload, download_command

    command = download_command("no_such_model")
    download = ModelDownload("no_such_model", command)
    download.start()
    end = time.monotonic() + 60
    while not download.is_done:
        download.listen()
        time.sleep(0.02)
        assert time.monotonic() < end
    assert "no public model no_such_model" in download.error and download.path == ""
