"""What every display and every result must say about use on patients. The one home of these sentences."""

from __future__ import annotations

RESEARCH_ONLY = "research use only, not for diagnosis"
DEMONSTRATION = "DEMONSTRATION checkpoint: shows that the software works, not for patients"
