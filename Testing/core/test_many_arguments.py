"""The command line of many CTs: what stands behind --ray is an address, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from SegMateCore.cli import build_parser, main


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "[::1]:6379", "ray://head:10001"])
def test_addresses(address):
    for words in (["--ray", address, "cts"], ["cts", f"--ray={address}"]):
        arguments = build_parser("predict").parse_args(["predict", "-o", "out", *words])
        assert (arguments.ray, str(arguments.input)) == (address, "cts")


def test_ray_without_an_address():
    assert build_parser("predict").parse_args(["predict", "cts", "--ray", "-o", "out"]).ray == ""


@pytest.mark.parametrize("given", ["cts", "list.csv", "/data/cts", "C:\\cts", "./head:6379"])
def test_the_input_is_not_taken_for_an_address(given, capsys):
    assert main(["predict", "--ray", given, "-o", "out"]) == 2
    assert "put it before --ray" in capsys.readouterr().err
