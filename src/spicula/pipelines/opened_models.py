"""The models of a server, opened when they are first needed: a server that nobody asks anything stays small."""

from __future__ import annotations

import threading

from spicula.pipelines.models import SEARCH, Models, load_models


class OpenedModels:
    """Opens the bundles once, whoever asks first.

    Args:
        index: Folder or database of past cases; the shipped index of LIDC-IDRI if None.
        search: Bundle that makes vectors, by name or folder; the shipped one if None.
    """

    def __init__(self, *, index: str | None = None, search: str | None = None) -> None:
        self._index, self._search = index, search
        self._models: Models | None = None
        self._lock = threading.Lock()

    def get(self) -> Models:
        """The bundles in use.

        Raises:
            BundleError: One is missing or damaged.
        """
        with self._lock:
            if self._models is None:
                self._models = load_models(index=self._index, search=self._search or SEARCH)
            return self._models
