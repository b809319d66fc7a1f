"""What a training recipe says: the rows of Tables 7 and 8 (Sec. 4) as typed fields, one sentence each.

Nothing here imports torch: a recipe is read, checked and planned before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.spec import PAPER_ALPHA, CuttingRule, TilingSpec

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Trained(RecipeModel):
    """One line of the list of what is trained: the first line whose pattern matches a parameter's name decides."""

    parameters: str = Field(description="glob over parameter names, such as vision_tower.*", min_length=1)
    learning_rate: NotNegative | None = Field(
        default=None, description="peak learning rate of these parameters; 0 freezes them; absent: the recipe's"
    )
    layer_decay: Share = Field(
        default=1.0,
        description="each encoder layer learns this much more slowly than the one above; the last one at the peak",
    )


class Tiling(RecipeModel):
    """How pictures are tiled in training; the checkpoint keeps it, so that it answers the way it was trained."""

    rule: CuttingRule = Field(default="relaxed", description="the rule that chooses the grid")
    alpha: float = Field(default=PAPER_ALPHA, ge=0, lt=1, description="threshold of the relaxed rule")
    max_cols: int = Field(default=4, ge=1, le=64, description="most columns; 1 × 1 is no dynamic resolution")
    max_rows: int = Field(default=4, ge=1, le=64, description="most rows")
    max_tiles: int | None = Field(default=None, ge=1, le=4096, description="all grids of at most so many tiles instead")

    def spec(self, model: TilingSpec) -> TilingSpec:
        """This tiling in the tiles of a model: its tile size and tokens per tile stay."""
        return model.model_copy(update=self.model_dump())


class OptimizerRecipe(RecipeModel):
    """The optimizer. Norms and biases (all parameters of one dimension) are never decayed."""

    matrices: Literal["adamw", "muon"] = Field(
        default="adamw", description="method for hidden matrices; all other parameters have AdamW (muon is ours)"
    )
    momentum: Beta = Field(default=0.95, description="decay of Muon's average")

    beta1: Beta = Field(default=0.9, description="decay of the gradient's average")
    beta2: Beta = Field(default=0.98, description="decay of the squared gradient's average")
    epsilon: Positive = Field(default=1e-6, description="added to the root of the squared average")
    weight_decay: NotNegative = Field(default=0.05, description="decoupled weight decay, × learning rate a step")
    max_grad_norm: NotNegative = Field(
        default=1.0, description="longer gradients are cut to this norm; 0: never (the paper does not say; ours)"
    )


class LoraRecipe(RecipeModel):
    """LoRA: the language model learns through factors of low rank; its own weights are frozen (peft; ours)."""

    rank: int = Field(default=16, ge=1, le=1024, description="width of the factors")
    alpha: Positive = Field(default=32, description="the factors' product is scaled by alpha / rank")
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        default=0.0, description="share of the inputs that the factors do not see in training"
    )
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Linears of the decoder layers that get factors",
        min_length=1,
    )
    learning_rate: Positive | None = Field(
        default=None,
        description="peak learning rate of the factors; absent: that of the line in trained, or the recipe's",
    )
    merge: bool = Field(
        default=True, description="merge into the checkpoint at the end; false: keep apart, bluelm adopt merges later"
    )


class Execution(RecipeModel):
    """How the machine goes about it. None of this changes the result, so none of it is recorded as an input."""

    save_every: int | None = Field(default=500, ge=1, description="steps between the states that a resume starts from")
    keep_states: int = Field(default=2, ge=1, description="newest states kept; an older one goes when a newer is whole")
    evaluate_every: int | None = Field(
        default=500, ge=1, description="steps between evaluations of held-out data (--eval-data); absent: at the end"
    )
    spike_factor: float | None = Field(
        default=10.0,
        gt=1,
        allow_inf_nan=False,
        description="a loss so many times the median of the last 64 steps stops training; absent: it never does",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none", description="fsdp2: every process holds a share of weights, gradients and optimizer"
    )
    tensorboard: str | None = Field(default=None, min_length=1, description="folder for TensorBoard's files")
    loader_workers: int = Field(default=0, ge=0, description="processes that load pictures; 0: the training process")
    picture_memory_mb: int = Field(default=2048, ge=0, description="tiles kept in memory, so that they are cut once")
    activation_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, about a third more time"
    )


class LearningRecipe(RecipeModel):
    """How anything is trained: what learns, how fast, for how long."""

    trained: tuple[Trained, ...] = Field(description="what is trained; parameters in no line are frozen")
    learning_rate: Positive = Field(description="peak learning rate")
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        default="cosine", description="how the learning rate falls after the warm-up"
    )
    steps: int = Field(ge=1, description="optimizer steps")
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the learning rate rises from 0 to its peak")
    global_batch: int = Field(ge=1, description="samples per step: per device × accumulation × processes")
    accumulation: int = Field(default=1, ge=1, description="forward and backward passes per step")
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe, description="method and constants")
    lora: LoraRecipe | None = Field(default=None, description="the language model learns through LoRA factors only")
    dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="precision of the products; weights and optimizer stay float32"
    )
    log_every: int = Field(default=10, ge=1, description="steps per point of the loss curve")
    seed: int = Field(default=0, ge=0, description="seed of the fresh weights and of the data's order")
    execution: Execution = Field(default_factory=Execution, description="how the machine goes about it")

    @model_validator(mode="after")
    def _adds_up(self) -> LearningRecipe:
        problems: list[BluelmError] = []
        if not self.trained:
            problems.append(
                RecipeError("trained is an empty list.", "Nothing would learn.", "Name parameters, such as '*'.")
            )
        if self.warmup_steps >= self.steps:
            problems.append(
                RecipeError(
                    f"warmup_steps is {self.warmup_steps}, but there are only {self.steps} steps.",
                    "The learning rate would never reach its peak.",
                    "Lower warmup_steps or raise steps.",
                )
            )
        if self.global_batch % self.accumulation:
            problems.append(
                RecipeError(
                    f"global_batch {self.global_batch} is not a multiple of accumulation {self.accumulation}.",
                    "Every pass of a step has the same number of samples.",
                    f"Make global_batch a multiple of {self.accumulation}, or choose another accumulation.",
                )
            )
        raise_all(problems + list(self._other_problems()))
        return self

    def _other_problems(self) -> Iterator[BluelmError]:
        """What else speaks against a recipe of this kind; told together with the rest."""
        yield from ()


class TrainRecipe(LearningRecipe):
    """One of the paper's two training stages."""

    sequence_length: int = Field(default=4096, ge=2, description="most tokens of a sample, image tokens included")
    tiling: Tiling = Field(default_factory=Tiling, description="how pictures become tiles")
    too_long: Literal["cut_text", "shrink_tiling", "drop"] = Field(
        default="cut_text",
        description="what becomes of a longer sample: its last text is cut (never part of a picture), its pictures get "
        "fewer tiles, or it is left out; every case is named in data_report.jsonl",
    )
    packing: bool = Field(
        default=False,
        description="lay the samples of a pass end to end instead of padding them; each attends to itself alone, and "
        "global_batch stays samples per step",
    )
    streaming: bool = Field(default=False, description="read the data as training goes on, for sets larger than memory")
    shuffle_rows: int = Field(default=10_000, ge=1, description="streaming: rows that are shuffled together in memory")
    bad_rows: float = Field(
        default=0.01, ge=0, le=1, description="streaming: training stops when a larger share of the rows is unusable"
    )
    group_by_length: bool = Field(default=False, description="samples of similar length share a batch: less padding")

    def _other_problems(self) -> Iterator[BluelmError]:
        if self.group_by_length and (self.packing or self.streaming):
            other = "packing" if self.packing else "streaming"
            yield RecipeError(
                f"group_by_length and {other} are both on.",
                "Packed samples need no others of their length; a stream does not know the lengths of what comes.",
                f"Switch one of them off: --set group_by_length=false, or --set {other}=false.",
            )


class PretrainRecipe(TrainRecipe):
    """Stage 1 (Table 7): the connector learns between a frozen tower and a frozen language model."""

    preset: str | None = Field(default=None, description="shape of a fresh model; absent: weights are given")
    chat_template: Literal["chatml", "vicuna", "llama3"] | None = Field(
        default=None, description="how a question looks to a joined model (--llm); absent: as its tokenizer knows it"
    )


class FinetuneRecipe(TrainRecipe):
    """Stage 2 (Table 8): everything is trained."""
