"""The fixtures of the tests that write sources and prepare stores."""

from tests.dataset.corpora import source, stores

__all__ = ["source", "stores"]
