"""`python -m SegMateCore` is the command `segmate`."""

from __future__ import annotations

from SegMateCore.cli import main

raise SystemExit(main())
