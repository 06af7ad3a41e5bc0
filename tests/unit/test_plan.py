"""What a run would take: counted models, batches of stages, memory shared in three ways, what helps."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import FAMILIES, base_model, thinking

from coconut_lm import plan as room
from coconut_lm.adapters import add_lora
from coconut_lm.assembly import assemble
from coconut_lm.config import Config, load
from coconut_lm.costs import PRECISIONS, Load
from coconut_lm.data import prosqa
from coconut_lm.data.example import write_examples
from coconut_lm.errors import UserError
from coconut_lm.plan import GIB, memory, plan, remedies
from coconut_lm.sizing import Sizes, measure, on_meta
from coconut_lm.tokens import add_latent_tokens, encode, word_tokenizer
from coconut_lm.traffic import Network, traffic
from coconut_lm.workload import ASSUMED, stages, training_rows

PUBLISHED = {
    "openai-community/gpt2": 124_439_808,
    "EleutherAI/gpt-neo-1.3B": 1_315_575_808,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
}
LOAD = Load(8, 200, 100, 6, 800)


def config(**given: Any) -> Config:
    keys = {"method": "coconut", "c_thought": 2, "max_latent_stage": 3, "num_epochs": 5}
    return load(keys | {"model_id": "openai-community/gpt2"} | given, check_files=False)


@pytest.fixture(scope="module")
def eight() -> Sizes:
    return measure(on_meta(config(method="cot", model_id="meta-llama/Llama-3.1-8B")))


# -- models --


@pytest.mark.parametrize("name", PUBLISHED)
def test_well_known_models_have_their_parameters(name: str) -> None:
    assert measure(on_meta(config(method="cot", model_id=name))).parameters == PUBLISHED[name]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [None, {"r": 3, "target_modules": "all-linear"}])
def test_a_model_without_storage_counts_as_the_real_one(
    family: str, lora: dict[str, Any] | None, tmp_path: Path
) -> None:
    base = base_model(family)
    base.config.save_pretrained(tmp_path)
    base.resize_token_embeddings(70, mean_resizing=False)
    real: Any = thinking(base, {"kind": "learnable_weights"})
    real = add_lora(real, **lora) if lora else real
    given = config(model_id=str(tmp_path), lora=lora, latent_variant="learnable_weights")
    on_paper = on_meta(given)
    assert all(weight.is_meta for weight in on_paper.parameters())
    assert measure(on_paper) == measure(real)
    assert measure(real).trained == sum(w.numel() for w in real.parameters() if w.requires_grad)


def test_thinking_takes_rows_for_its_tokens() -> None:
    methods = {"cot": 0, "coconut": 3, "pause": 4}
    found = [
        measure(on_meta(config(method=each, pause_tokens=2 if each == "pause" else None))) for each in methods
    ]
    assert [each.shape.vocabulary - 50257 for each in found] == list(methods.values())


def test_a_shape_can_be_given(tmp_path: Path) -> None:
    shape = tmp_path / "config.json"
    shape.write_text(json.dumps({"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 8}))
    found = measure(on_meta(config(model_id="nobody/knows"), shape))
    assert (found.shape.layers, found.shape.width) == (1, 8)
    with pytest.raises(UserError, match="--model-config FILE"):
        on_meta(config(model_id="nobody/knows"))


# -- batches --


def test_without_data_rows_are_assumed() -> None:
    found = stages(config(after_last_stage="hold", batch_size_training=2))
    assert [(each.stage, each.epochs) for each in found] == [(0, 1), (1, 1), (2, 1), (3, 2)]
    assert [each.load.thoughts for each in found] == [0, 2, 4, 6]
    assert [each.load.columns - each.load.thoughts - 2 for each in found] == [ASSUMED] * 4
    assert found[3].load.supervised == 2 * ASSUMED // 2
    assert stages(config(max_seq_length=100))[0].load.columns == 102
    assert stages(config(max_seq_length=100), length=60)[0].load.columns == 62
    assert [each.load.thoughts for each in stages(config(method="pause"))] == [0]


def test_with_data_the_widest_batch_is_found(tmp_path: Path) -> None:
    examples = list(prosqa.make(30, seed=1, nodes=8, edges=6, hops=3, shape="sized"))
    write_examples(tmp_path / "train.json", examples)
    given = config(
        tokenizer="word", model_id="configs/models/tiny.json", train_path=str(tmp_path / "train.json")
    )
    rows, count, why = training_rows(given)
    assert rows is not None and (count, why) == (30, "")
    tokenizer = word_tokenizer(" ".join([e.question, *e.steps, e.answer]) for e in examples)
    add_latent_tokens(tokenizer)
    lengths = encode(examples, tokenizer).lengths()
    first, *_, last = stages(given, rows)
    assert first.tokens == pytest.approx(lengths.mean() + 2)
    assert lengths.max() + 2 <= first.load.columns <= lengths.max() + 20
    assert last.load.thoughts == 6 and last.load.supervised < first.load.supervised


def test_a_new_model_has_a_row_for_each_word(tmp_path: Path) -> None:
    examples = list(prosqa.make(30, seed=1, nodes=8, edges=6, hops=3, shape="sized"))
    write_examples(tmp_path / "train.json", examples)
    shape = Path(__file__).parents[2] / "configs" / "models" / "tiny.json"
    given = config(tokenizer="word", model_id=str(shape), train_path=str(tmp_path / "train.json"))
    run = assemble(given, lambda: (" ".join([e.question, *e.steps, e.answer]) for e in examples)).model
    found = plan(given)
    assert found.sizes.parameters == sum(weight.numel() for weight in run.parameters())
    adapted = next(each for each in remedies(found) if "lora.r=16" in each.keys)
    assert adapted.bytes < found.worst().total
    (remark,) = plan(config(tokenizer="word", model_id=str(shape))).remarks
    assert "a vocabulary of 50,260 are assumed" in remark


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    assert training_rows(config(train_samples=7)) == (None, 7, "no training data is here")
    write_examples(tmp_path / "a.json", list(prosqa.make(3, seed=1, nodes=8, edges=6, hops=3, shape="sized")))
    there = config(train_path=str(tmp_path / "a.json"), tokenizer="nobody/knows")
    assert training_rows(there) == (None, 3, "the tokenizer is not here")


# -- memory --


def test_states_take_sixteen_bytes_or_eight_and_are_shared(eight: Sizes) -> None:
    def states(sharing: Any, devices: int, **given: Any) -> float:
        found = memory(config(**given), eight, LOAD, sharing, devices)
        return (found.weights + found.gradients + found.optimizer) / eight.parameters

    assert states("one", 1) == states("one", 1, bf16=True) == 16
    assert states("one", 1, bf16="pure") == states("copies", 8, bf16="pure") == 8
    assert states("shards", 8, bf16=True) == pytest.approx(2)


def test_adapters_are_float32_over_frozen_weights() -> None:
    given = config(model_id="meta-llama/Llama-3.1-8B", lora={"r": 16}, bf16="pure")
    sizes = measure(on_meta(given))
    found = memory(given, sizes, LOAD)
    assert found.gradients == 4 * sizes.trained and found.optimizer == 8 * sizes.trained
    assert found.weights == 2 * (sizes.parameters - sizes.trained) + 4 * sizes.trained
    quantised = given.model_copy(update={"lora": given.lora.model_copy(update={"quantize": "4bit"})})  # type: ignore
    assert 0.4 < memory(quantised, sizes, LOAD).weights / found.weights < 0.55


def test_frozen_float32_weights_are_copied_in_every_pass() -> None:
    given = config(model_id="meta-llama/Llama-3.1-8B", lora={"r": 16}, bf16=True)
    sizes = measure(on_meta(given))
    one, seven = (memory(given, sizes, Load(8, 200, 100, n, 800)).activations for n in (0, 6))
    assert seven - one > 6 * 2 * 0.95 * (sizes.parameters - sizes.shape.table)


def test_micro_batches_cost_shards_nothing_to_hold(eight: Sizes) -> None:
    one, four = (
        memory(config(bf16=True, gradient_accumulation_steps=n), eight, LOAD, "shards", 8) for n in (1, 4)
    )
    assert one == four


def test_what_is_put_together_once_a_step_is_whole(eight: Sizes) -> None:
    step, shards = (memory(config(bf16=True), eight, LOAD, kind, 8) for kind in ("step", "shards"))
    assert step.gathered == 4 * eight.parameters + 4 * eight.block
    assert step.weights == shards.weights and 5 * shards.gathered < step.gathered


def test_what_is_sent(eight: Sizes) -> None:
    blocks, root = eight.parameters - eight.root, eight.root

    def sent(kind: Any, passes: int = 1, micro: int = 1, devices: int = 2) -> int:
        return 2 * traffic(eight, PRECISIONS["autocast"], kind, passes, micro).sent(devices)

    assert sent("one") == 0
    assert sent("copies", 7, 4) == 8 * eight.parameters
    assert sent("shards") == 8 * blocks + 6 * root and sent("step", 7) == 6 * (blocks + root)
    assert sent("shards", 7) == 7 * 8 * blocks + 6 * root
    assert sent("step", 7, 4) == (2 + 4 * 4) * blocks + (2 + 4 * 4) * root
    frozen = measure(on_meta(config(model_id="meta-llama/Llama-3.1-8B", lora={"r": 16}, bf16="pure")))
    found = traffic(frozen, PRECISIONS["pure"], "shards", 7)
    assert found.summed == 4 * frozen.trained and found.root_summed == 0


def test_rings_take_hops_and_bytes() -> None:
    network = Network(8, inside=100.0, outside=10.0, hop_inside=1.0, hop_outside=3.0, start=0.5)
    assert network.ring(1000, 1) == network.across(1000, 1) == 0
    assert network.ring(1000, 8) == 0.5 + 7 + 1000 * 7 / 8 / 100
    assert network.ring(1600, 16) == 0.5 + 14 + 3 + 1600 * 15 / 16 / 80
    assert network.across(100, 2) == 0.5 + 2 * (100 / 2 / 10 + 3)


def test_everything_that_should_help_helps(eight: Sizes) -> None:
    def total(load: Load = LOAD, sharing: Any = "one", **given: Any) -> int:
        return memory(config(**given), eight, load, sharing, 8).total

    assert total(gradient_checkpointing=True) < total()
    assert total(LOAD.with_rows(4)) < total()
    assert total(bf16="pure") < 0.6 * total()
    assert total(sharing="shards") < total() / 2.5 < total() < total(sharing="copies")
    # Autocast's copies of the weights are worth it where rows are many.
    assert total(bf16=True) > total() and total(LOAD.with_rows(64), bf16=True) < total(LOAD.with_rows(64))


def test_the_first_way_that_fits_is_taken(eight: Sizes) -> None:
    given = config(bf16=True, fsdp="auto")

    def first(gib: float) -> str:
        return room.sharing_that_fits(given, eight, [LOAD.with_rows(1), LOAD], 8, gib * GIB)

    assert [first(gib) for gib in (200, 80, 40, 1)] == ["copies", "step", "shards", "shards"]
    assert room.sharing_said(given, 1) == "one" and room.sharing_said(given, 8) is None


# -- plans --


def test_a_plan_says_steps_passes_and_time() -> None:
    given = config(train_samples=1000, batch_size_training=4, gradient_accumulation_steps=2, bf16=True)
    found = plan(given, devices=4, device=room.device_named("A100-80"), memory_bytes=80 * GIB)
    assert [each.passes for each in found.costs] == [1, 3, 5, 7, 7]
    assert {each.steps for each in found.costs} == {32}
    assert found.sharing == "copies" and found.fits(80 * GIB) and not found.fits(1)
    assert all(each.seconds and each.seconds > 0 for each in found.costs)
    assert found.remarks == (f"no training data is here: rows of {ASSUMED} tokens are assumed",)
    assert plan(config()).costs[0].steps is plan(config()).costs[0].seconds is None


def test_auto_shards_where_it_must() -> None:
    def sharing(devices: int, memory: float | None, fsdp: str) -> str:
        given = config(model_id="meta-llama/Llama-3.1-8B", fsdp=fsdp)
        return plan(given, devices=devices, memory_bytes=memory).sharing

    assert sharing(8, 80 * GIB, "auto") == sharing(8, None, "full") == "shards"
    assert sharing(8, 240 * GIB, "auto") == sharing(8, None, "step") == "step"
    assert sharing(8, 500 * GIB, "auto") == sharing(8, None, "auto") == sharing(8, 1, "off") == "copies"
    assert sharing(1, 1, "full") == "one"


def test_remedies_are_other_configurations_that_take_less() -> None:
    found = plan(config(model_id="meta-llama/Llama-3.2-1B", batch_size_training=8), devices=4)
    told = remedies(found)
    assert {"gradient_checkpointing=true", "bf16=true", "fsdp=full"} <= {each.keys[0] for each in told}
    assert all(each.bytes < found.worst().total for each in told)
    for each in told:
        changed = load(found.config.model_dump(), each.keys, check_files=False)
        assert plan(changed, devices=4).worst().total == each.bytes
        assert changed.batch_size_training * changed.gradient_accumulation_steps == 8
    assert not any("fsdp" in key for each in remedies(plan(config())) for key in each.keys)
