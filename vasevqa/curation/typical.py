"""Order photographs so that the first ones show a reviewer every kind of picture.

clip-filter groups the CLIP embeddings into clusters by k-means (Lloyd, 1982; scikit-learn's KMeans). The nearer a
photograph is to the centre of its cluster, the more typical it is. The most typical photographs of all clusters come
first. No labels are needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import files

if TYPE_CHECKING:
    import numpy as np

    from vasevqa.spec import Output

FILE = "typical.csv"
HEADER = ("name", "cluster", "rank")
MOST = 20  # clusters


def read(folder: Path) -> dict[str, tuple[int, int]]:
    """Return a mapping from each photograph's name to its cluster and its rank in the cluster.

    `folder` is clip-filter's output. Clusters and ranks are counted from 1. Cluster 1 is the largest cluster. The
    photograph with rank 1 is the most typical photograph of its cluster. Return {} if `folder` has no typical.csv.
    Damaged rows are skipped.
    """
    found = {}
    try:
        for row in files.read_table(folder / FILE):
            cluster, rank = row.get("cluster", ""), row.get("rank", "")
            if row.get("name") and cluster.isdecimal() and rank.isdecimal():
                found[row["name"]] = (int(cluster), int(rank))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def write(output: Output, names: Sequence[str], features: np.ndarray, seed: int) -> None:
    """Write the cluster and the rank of each photograph to typical.csv, sorted by rank and then by cluster.

    `features` holds the embeddings of the photographs (N, D).
    """
    places = order(features, min(MOST, _vases(names)), seed)
    rows = sorted((rank, cluster, name) for name, (cluster, rank) in zip(names, places, strict=True))
    with output.writing(FILE, "w") as stream:
        files.write_table(stream, HEADER, ((name, cluster, rank) for rank, cluster, name in rows))


def order(features: np.ndarray, clusters: int, seed: int) -> list[tuple[int, int]]:
    """Return the cluster and the rank of each embedding (N, D). Clusters and ranks are counted from 1.

    If there are fewer different embeddings than `clusters`, there are fewer clusters.
    """
    import numpy as np
    from sklearn.cluster import KMeans

    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    clusters = min(clusters, len({row.tobytes() for row in units}))
    fitted = KMeans(clusters, n_init=4, random_state=seed).fit(units)
    labels = fitted.labels_.tolist()
    distances = np.linalg.norm(units - fitted.cluster_centers_[fitted.labels_], axis=1).round(6)
    by_size = [label for label, _ in Counter(labels).most_common()]
    number = {label: place + 1 for place, label in enumerate(by_size)}
    found = [(0, 0)] * len(labels)
    taken: Counter[int] = Counter()
    for index in np.argsort(distances, kind="stable").tolist():
        taken[labels[index]] += 1
        found[index] = (number[labels[index]], taken[labels[index]])
    return found


def _vases(names: Sequence[str]) -> int:
    """Return the number of vases that the names mention. A name that matches no pattern counts as a separate vase."""
    from vasevqa.curation.file_names import parse_name
    from vasevqa.curation.naming import naming_of

    naming = naming_of(None, names)
    return len({found.vase if (found := parse_name(name, naming)) else name for name in names})
