"""What every file says of its making, read by the libraries of its format and hashed by hashlib."""

from __future__ import annotations

import csv
import hashlib
import json

import nibabel
import numpy as np
from PIL import Image


class TestProvenance:
    def test_every_file_has_every_fact(self, made, bands_onnx):
        """Read by the libraries of each format, hashed by hashlib."""
        ct = nibabel.as_closest_canonical(nibabel.load(made / "ct.nii.gz"))
        voxels = np.asanyarray(ct.dataobj).astype("<i2").transpose(2, 1, 0)
        with Image.open(made / "out/organs.png") as picture:
            documents = [json.loads(picture.text["segmate"])["provenance"]]
        with open(made / "out/organs.csv", newline="") as stream:
            documents.append(json.loads(next(csv.DictReader(stream))["provenance"]))
        documents.append(json.loads((made / "out/organs.json").read_text())["provenance"])
        for name in ("organs.nii.gz", "masks/liver.nii.gz", "shares/liver.nii.gz"):
            (extension,) = nibabel.load(made / "out" / name).header.extensions
            documents.append(json.loads(extension.get_content())["provenance"])
        for facts in documents:
            assert facts["input"]["sha256"] == hashlib.sha256(b"6 36 20\n" + voxels.tobytes()).hexdigest()
            file_hash = hashlib.sha256((made / "ct.nii.gz").read_bytes()).hexdigest()
            assert facts["input"]["file_sha256"] == file_hash
            assert facts["input"]["kind"] == "NIfTI" and facts["input"]["shape"] == [6, 36, 20]
            np.testing.assert_array_equal(facts["input"]["affine"], nibabel.load(made / "ct.nii.gz").affine)
            assert set(facts["versions"]) == {"segmate", "engine", "numpy", "python"}
            assert len(facts["weights_sha256"]) == 64 and isinstance(facts["warnings"], list)
            assert facts["command"].startswith("segmate predict INPUT.nii.gz -o OUTPUT")
            assert str(made) not in json.dumps(facts) and "ct.nii" not in json.dumps(facts)

    def test_labels_hash_is_that_of_the_labels(self, made):
        image = nibabel.as_closest_canonical(nibabel.load(made / "out/organs.nii.gz"))
        labels = np.asanyarray(image.dataobj).astype("<i2").transpose(2, 1, 0)
        document = json.loads(image.header.extensions[0].get_content())
        expected = hashlib.sha256(b"%d %d %d\n" % labels.shape + labels.tobytes()).hexdigest()
        assert document["provenance"]["labels_sha256"] == expected
