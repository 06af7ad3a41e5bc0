"""What a run would take, before it is started: memory on each device, passes, operations, time."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from coconut_lm import costs
from coconut_lm.config import Config, load
from coconut_lm.costs import Load, Precision
from coconut_lm.errors import UserError
from coconut_lm.sizing import Sizes, measure, on_meta
from coconut_lm.traffic import Sharing, traffic
from coconut_lm.workload import ASSUMED, Stage, stages, training_rows

GIB = 2**30
BITS = {"4bit": 0.55}  # bytes of a quantised weight with its scales
BUSY = 0.4  # of a device's peak, which training reaches
LADDER: tuple[Sharing, ...] = ("copies", "step", "shards")  # what is sent grows, what is held shrinks
NAMED: dict[str, Sharing] = {"off": "copies", "step": "step", "full": "shards"}


# -- memory --


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    gathered: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it together."""
        return sum(asdict(self).values())


def precision_of(config: Config) -> Precision:
    """What is beside quantised weights is made float32 for training."""
    if _quantised(config):
        return costs.PRECISIONS["autocast" if config.bf16 is True else "float32"]
    if config.dtype in ("bfloat16", "float16") or config.bf16 == "pure":
        return costs.PRECISIONS["pure"]
    return costs.PRECISIONS["autocast" if config.bf16 else "float32"]


def _quantised(config: Config) -> bool:
    return config.lora is not None and config.lora.quantize != "none"


def memory(config: Config, sizes: Sizes, load: Load, sharing: Sharing = "one", devices: int = 1) -> Memory:
    """The most that one device holds at a time."""
    sharded = sharing in ("step", "shards")
    precision, parts = precision_of(config), devices if sharded else 1
    found = costs.activations(
        sizes.shape, load, precision, recompute=config.gradient_checkpointing, adapters=sizes.adapters
    )
    trained = 4 if sizes.adapters else precision.weights  # adapters are float32 whatever is beneath them
    uncast = sharded or config.gradient_checkpointing or _quantised(config)
    casts = 0 if uncast else found.casts
    held = found.layers + found.around + casts + max(0, found.recomputed - found.logits)
    gathered = _gathered(config, sizes, precision, sharing)
    gradients = sizes.trained * trained // parts
    # What passes contribute is added up beside what earlier micro-batches have left.
    beside = 0 if sharded or load.thoughts == 0 or config.gradient_accumulation_steps == 1 else gradients
    return Memory(
        weights=_weights(config, sizes, precision) // parts,
        gradients=gradients + beside,
        optimizer=costs.ADAM * gradients,
        activations=held,
        logits=found.logits,
        gathered=gathered,
        overhead=costs.ASIDE + (held + found.logits + gathered) // 20,
    )


def _weights(config: Config, sizes: Sizes, precision: Precision) -> int:
    frozen = sizes.parameters - sizes.trained if sizes.adapters else sizes.parameters
    adapters = 4 * sizes.trained if sizes.adapters else 0
    if config.lora is None or config.lora.quantize == "none":
        return frozen * precision.weights + adapters
    quantised = sizes.shape.layers * sizes.shape.block()
    return int(quantised * BITS[config.lora.quantize] + (frozen - quantised) * precision.weights) + adapters


def _gathered(config: Config, sizes: Sizes, precision: Precision, sharing: Sharing) -> int:
    """Copies beside the weights: what ranks send each other, and tables with adapted rows."""
    table = sizes.shape.table * precision.weights if sizes.adapters else 0
    trained = 4 if sizes.adapters else precision.weights
    if sharing == "one":
        return table
    if sharing == "copies":
        return table + sizes.trained * trained
    wide = 4 if precision.cast else trained  # gradients leave in float32 where weights are cast
    if sharing == "step":  # everything is whole: weights, and gradients until the first pass has its own
        unsent = min(sizes.trained, sizes.block) * wide
        return table + (sizes.parameters + sizes.trained) * precision.compute + unsent
    # The root stays whole; of the blocks, one computes and one is on its way, and one's gradients leave.
    whole = (sizes.root + 2 * sizes.block) * precision.compute
    learned = min(sizes.trained, sizes.root + sizes.block) * precision.compute
    return table + whole + learned + min(sizes.trained, sizes.block) * wide


def sharing_said(config: Config, devices: int) -> Sharing | None:
    """How devices share a run, where that does not depend on what fits."""
    return "one" if devices == 1 else NAMED.get(config.fsdp)


def sharing_that_fits(
    config: Config, sizes: Sizes, loads: Sequence[Load], devices: int, memory_bytes: float
) -> Sharing:
    """The first way that fits into devices of so much memory; of them all, the last holds least."""
    for kind in LADDER:
        if max(memory(config, sizes, load, kind, devices).total for load in loads) <= memory_bytes:
            return kind
    return LADDER[-1]


# -- the plan --


@dataclass(frozen=True)
class Device:
    """What its data sheet says: GiB of memory, dense TFLOPS in bfloat16 and float32, TB/s."""

    memory: float
    bf16: float
    float32: float
    bandwidth: float

    def rate(self, config: Config) -> float:
        """Operations a second that training reaches."""
        return BUSY * 1e12 * (self.float32 if precision_of(config).compute == 4 else self.bf16)


DEVICES = {
    "t4": Device(16, 65, 8.1, 0.32),
    "rtx4090": Device(24, 165, 82.6, 1.01),
    "l40s": Device(48, 362, 91.6, 0.86),
    "a100-40": Device(40, 312, 19.5, 1.56),
    "a100-80": Device(80, 312, 19.5, 2.04),
    "h100": Device(80, 989, 67, 3.35),
    "h200": Device(141, 989, 67, 4.8),
    "b200": Device(180, 2250, 80, 8.0),
}


def device_named(name: str) -> Device:
    """The data sheet of a device of DEVICES."""
    if name.lower() not in DEVICES:
        raise UserError(
            "unknown device", given=name, expected=", ".join(DEVICES), do="or give --memory alone"
        )
    return DEVICES[name.lower()]


@dataclass(frozen=True)
class Cost:
    """What the epochs of a stage take; steps and seconds where they can be known."""

    stage: Stage
    passes: int
    memory: dict[Sharing, Memory]
    flops: float
    """Of one example, forward and backward."""
    sent: dict[Sharing, int]
    """Bytes that a device sends in an optimizer step."""
    steps: int | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What a run takes on so many devices, stage by stage, and what had to be assumed to say so."""

    config: Config
    sizes: Sizes
    devices: int
    sharing: Sharing
    costs: tuple[Cost, ...]
    examples: int | None
    words: int | None
    """Tokens of the tokenizer, where it is known."""
    remarks: tuple[str, ...]

    def worst(self, sharing: Sharing | None = None) -> Memory:
        """Of all stages, the one that holds most."""
        return max((each.memory[sharing or self.sharing] for each in self.costs), key=lambda each: each.total)

    def fits(self, memory_bytes: float) -> bool:
        """Whether every stage does, on devices of so much memory."""
        return self.worst().total <= memory_bytes


def plan(
    config: Config,
    *,
    devices: int = 1,
    memory_bytes: float | None = None,
    length: int | None = None,
    device: Device | None = None,
    model_config: str | os.PathLike[str] | None = None,
) -> Plan:
    """Everything about a run that its configuration says; the remarks tell what had to be assumed."""
    rows, examples, why = training_rows(config)
    words = rows.tokens.before if rows else None
    sizes = measure(on_meta(config, model_config, words))
    found = stages(config, rows, length)
    costed = tuple(_cost(config, sizes, each, devices, examples, device) for each in found)
    loads, limit = [each.load for each in found], memory_bytes or math.inf
    sharing = sharing_said(config, devices) or sharing_that_fits(config, sizes, loads, devices, limit)
    remarks = (
        [] if rows and length is None else [f"rows of {length or config.max_seq_length or ASSUMED} tokens"]
    )
    if config.tokenizer == "word" and words is None:
        remarks.append(f"a vocabulary of {sizes.shape.vocabulary:,}")
    if why:
        remarks = [f"{why}: {', '.join(remarks) or 'rows as given'} are assumed"]
    return Plan(config, sizes, devices, sharing, costed, examples, words, tuple(remarks))


def _cost(
    config: Config, sizes: Sizes, stage: Stage, devices: int, examples: int | None, device: Device | None
) -> Cost:
    kinds: list[Sharing] = ["one", *LADDER]
    precision, passes = precision_of(config), len(stage.load.passes)
    micro = config.gradient_accumulation_steps
    flops = costs.flops_of_training(
        sizes.shape,
        stage.tokens,
        stage.supervised,
        recompute=config.gradient_checkpointing,
        adapters=sizes.adapters is not None,
    )
    rows = config.batch_size_training * micro * devices
    steps = math.ceil(examples / rows) if examples else None
    seconds = None
    if device and examples and steps:
        # A pass of one column computes little and still reads all weights, three times with its gradients.
        reading = 3 * sizes.parameters * precision.compute / (device.bandwidth * 1e12)
        slow = steps * micro * passes * reading
        seconds = max(examples * flops / (device.rate(config) * devices), slow)
    return Cost(
        stage,
        passes,
        {kind: memory(config, sizes, stage.load, kind, devices) for kind in kinds},
        flops,
        {kind: traffic(sizes, precision, kind, passes, micro).sent(devices) for kind in kinds},
        steps,
        seconds,
    )


# -- what helps --

SMALL = ("bf16=pure", "dtype=bfloat16")
REMEDIES: tuple[tuple[str, ...], ...] = (
    ("gradient_checkpointing=true",),
    ("bf16=true",),
    SMALL,
    ("lora.r=16", *SMALL),
    ("lora.r=16", *SMALL, "gradient_checkpointing=true"),
    ("lora.r=16", "lora.quantize=4bit", "bf16=true", "gradient_checkpointing=true"),
)
SHARDED: tuple[tuple[str, ...], ...] = (
    ("fsdp=step",),
    ("fsdp=full",),
    ("fsdp=full", "gradient_checkpointing=true"),
    ("fsdp=full", "bf16=true", "gradient_checkpointing=true"),
    ("fsdp=full", *SMALL, "gradient_checkpointing=true"),
)


@dataclass(frozen=True)
class Remedy:
    """Keys that take less memory, and the bytes that a device holds with them."""

    keys: tuple[str, ...]
    bytes: int


def remedies(found: Plan, model_config: str | os.PathLike[str] | None = None) -> list[Remedy]:
    """Those that help, the fewest changes first."""
    tried: dict[Config, Remedy] = {}
    for keys in _sets(found):
        try:
            changed = load(found.config.model_dump(), keys, check_files=False)
        except UserError:
            continue  # keys that contradict the configuration's own
        sizes = found.sizes
        if changed.lora != found.config.lora:
            sizes = measure(on_meta(changed, model_config, found.words))
        sharing = sharing_said(changed, found.devices) or found.sharing
        loads = (each.stage.load.with_rows(changed.batch_size_training) for each in found.costs)
        most = max(memory(changed, sizes, each, sharing, found.devices).total for each in loads)
        if most < found.worst().total:
            tried.setdefault(changed, Remedy(tuple(keys), most))
    return list(tried.values())


def _sets(found: Plan) -> Iterator[Sequence[str]]:
    rows, given = found.config.batch_size_training, found.config.gradient_accumulation_steps
    for size in {rows // 2, 1} - {0, rows}:  # as many rows a step as before
        yield f"batch_size_training={size}", f"gradient_accumulation_steps={given * rows // size}"
    yield from REMEDIES
    yield from SHARDED if found.devices > 1 else ()
