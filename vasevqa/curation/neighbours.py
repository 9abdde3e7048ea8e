"""Find the most similar photographs by the CLIP embeddings that clip-filter stored.

numpy and safetensors are imported only when embeddings are read, because a machine with only the launcher has neither
of these packages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa.storage import refuse_failed

if TYPE_CHECKING:
    import numpy as np

FILE = "embeddings.safetensors"  # in the output of clip-filter


def stored_features(path: Path) -> tuple[list[str], np.ndarray] | None:
    """Return the names and CLIP's features (N, D) float32 from the file that clip-filter wrote.

    Return None if the file is missing or damaged. Raise ModuleNotFoundError if numpy or safetensors is not installed.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), "np") as stored:
            names: list[str] = json.loads((stored.metadata() or {})["names"])
            features = np.asarray(stored.get_tensor("features"), dtype=np.float32)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        refuse_failed(error, path)
        return None
    return (names, features) if features.ndim == 2 and len(names) == len(features) else None


@dataclass(frozen=True)
class Neighbour:
    """A photograph, and the cosine similarity of its embedding to that of a given photograph."""

    name: str
    similarity: float


class Neighbourhood:
    """The embeddings (N, D) of photographs that clip-filter accepted or rejected."""

    def __init__(self, names: list[str], features: np.ndarray, accepted: Mapping[str, bool]) -> None:
        import numpy as np

        known = [row for row, name in enumerate(names) if name in accepted]
        self._names = [names[row] for row in known]
        chosen = features[known]
        self._unit = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-6)
        self._rows = {name: row for row, name in enumerate(self._names)}
        self._accepted = np.array([accepted[name] for name in self._names], dtype=bool)

    @classmethod
    def read(cls, folder: Path, accepted: Mapping[str, bool]) -> Neighbourhood | None:
        """Return the photographs with embeddings in `folder`, or None if there are no embeddings.

        `folder` is the output of clip-filter. `accepted` says for each photograph whether it was accepted. Raise
        ModuleNotFoundError if numpy or safetensors is not installed.
        """
        stored = stored_features(folder / FILE)
        return None if stored is None else cls(*stored, accepted)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def nearest(self, name: str, accepted: bool, most: int) -> list[Neighbour]:
        """Return the photographs that are most similar to the photograph `name`, the most similar one first.

        At most `most` photographs are returned. They are chosen from the accepted photographs if `accepted` is True,
        and otherwise from the rejected ones.
        """
        import numpy as np

        row = self._rows[name]
        others = np.flatnonzero(self._accepted == accepted)
        others = others[others != row]
        similar = self._unit[others] @ self._unit[row]
        order = np.argsort(-similar, kind="stable")[:most]
        return [Neighbour(self._names[others[at]], float(similar[at])) for at in order]
