"""`README.md` of a run's output: the dataset card by which Hugging Face `datasets` finds the masks among the files."""

from segment.output.ledger import Ledger

_CARD = b"""---
configs:
- config_name: masks
  default: true
  data_files: masks/*/*.parquet
- config_name: stats
  data_files: stats/*.parquet
---

# A run of segment

Class-index masks and pixel counts of images, a row each, in `masks/`; their sums by shard and class in `stats/`.
Names and colours of the classes are in `run.json`, figures in `report/`.

```python
from datasets import load_dataset

rows = load_dataset("OUTPUT", split="train")  # this folder, or its name on the Hub
stats = load_dataset("OUTPUT", "stats", split="train")
```

In Spark: `spark.read.option("recursiveFileLookup", "true").parquet("OUTPUT/masks")`.
"""


def write_dataset_card(ledger: Ledger) -> None:
    """Write `README.md` unless there is one, which the user may have written. Its bytes are the same for every run."""
    ledger.store.write_if_absent(ledger.url("README.md"), _CARD)
