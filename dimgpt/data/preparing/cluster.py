"""Shares on many machines, through the executors of `datatrove`: local, Slurm, Ray.

The only file that imports `datatrove`. Each task writes the share of its rank, as
`python -m dimgpt prepare --shard` does, which needs no executor; `preparation.merge` joins them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig
from dimgpt.data.preparing.blocks import BLOCK_BYTES
from dimgpt.data.preparing.plan import PART_BLOCKS
from dimgpt.data.preparing.preparation import plan_preparation, run_share
from dimgpt.data.preparing.shares import Share
from dimgpt.settings import override
from dimgpt.text.tokenizer import Tokenizer

Executor = Literal["local", "slurm", "ray"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareStep:
    """A step of a pipeline of `datatrove`: task `rank` of `world_size` writes its share."""

    data: DataConfig
    """What to prepare; `num_workers` is 1 unless a task has several cores."""
    vocabulary_path: Path
    """An existing vocabulary, seen from the machine of the task."""
    pretraining_dir: Path
    """Gets the documents; the same folder for all tasks, as on a shared disk."""
    finetuning_dir: Path
    """Gets the conversations."""
    block_bytes: int = BLOCK_BYTES
    """Text that a worker gets at a time, about; the same where shares are merged."""
    part_blocks: int = PART_BLOCKS
    """Blocks of a part; the same where shares are merged."""

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Write one share; no documents pass from step to step."""
        share = Share(index=rank + 1, count=world_size)
        tokenizer = Tokenizer.load(self.vocabulary_path)
        config = override(self.data, num_workers=self.data.num_workers or 1)
        sources: list[SourceConfig | ConversationSourceConfig]
        sources = [*config.sources, *config.conversations]
        for source in sources:
            is_documents = isinstance(source, SourceConfig)
            folder = self.pretraining_dir if is_documents else self.finetuning_dir
            plan = plan_preparation(
                source,
                tokenizer,
                folder,
                config=config,
                block_bytes=self.block_bytes,
                part_blocks=self.part_blocks,
            )
            if plan is not None:
                run_share(plan, share)
        return ()


def make_executor(
    kind: Executor, step: ShareStep, *, num_shares: int, logging_dir: Path, **options: Any
) -> Any:
    """Return an executor whose `run()` writes all shares.

    Args:
        kind: This machine, a Slurm cluster (one job array), or a Ray cluster.
        step: What each task does.
        num_shares: Tasks.
        logging_dir: Gets their logs and what is completed; a second run does the rest.
        options: More of the executor's own, such as `workers`, `time`, `partition`.

    Raises:
        ImportError: `datatrove` is not installed.
    """
    try:
        from datatrove.executor import (
            LocalPipelineExecutor,
            RayPipelineExecutor,
            SlurmPipelineExecutor,
        )
    except ImportError as error:
        raise ImportError(
            "shares on an executor need datatrove: pip install 'datatrove[ray]'; "
            "`python -m dimgpt prepare --shard I/N` works without"
        ) from error
    executors = {
        "local": LocalPipelineExecutor,
        "slurm": SlurmPipelineExecutor,
        "ray": RayPipelineExecutor,
    }
    return executors[kind](
        pipeline=[step], tasks=num_shares, logging_dir=str(logging_dir), **options
    )
