"""The networks: create_model builds one by name, list_models and model_entry read the table without torch."""

from __future__ import annotations

from .registry import Entry, create_model, list_models, list_volume_models, model_entry, model_options

__all__ = ["Entry", "create_model", "list_models", "list_volume_models", "model_entry", "model_options"]
