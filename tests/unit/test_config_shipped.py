"""Every YAML that ships loads as it stands, and says what its system says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from coconut_lm.config import load
from coconut_lm.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))

CURRICULUM = (
    "method",
    "c_thought",
    "epochs_per_stage",
    "max_latent_stage",
    "resume",
    "num_epochs",
    "only_eval",
)
OPTIMISER = ("batch_size_training", "gradient_accumulation_steps", "lr", "reset_optimizer", "load_model_path")
TO_FILL = "YOUR_PATH_TO_COT_CHECKPOINT"

EXPECTED: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "official/gsm_cot": (("cot", 0, 1, 0, 0, 25, False), (32, 1, 1e-4, "never", None)),
    "official/gsm_coconut": (("coconut", 2, 3, 3, 3, 25, False), (32, 1, 1e-4, "epoch", TO_FILL)),
    "official/prosqa_coconut": (("coconut", 1, 5, 6, 0, 50, False), (32, 1, 1e-4, "epoch", None)),
    "official/prontoqa_coconut_eval": (
        ("coconut", 1, 5, 6, 40, 50, True),
        (32, 1, 1e-4, "epoch", "YOUR_PATH_TO_COCONUT_CHECKPOINT"),
    ),
    "000/gsm_cot": (("cot", 0, 1, 0, 0, 25, False), (4, 32, 1e-4, "never", "PATH_TO_BASE_WEIGHTS")),
    "000/gsm_coconut": (
        ("coconut", 2, 5, 3, 0, 25, False),
        (32, 1, 1e-4, "epoch", "PATH_TO_COT_CHECKPOINT"),
    ),
    "001/basic/gsm_cot": (("cot", 0, 1, 0, 0, 25, False), (4, 4, 1e-5, "never", None)),
    "001/learnable_full/math_coconut": (("coconut", 2, 3, 3, 0, 50, False), (2, 4, 1e-4, "epoch", None)),
    "001/lora/prosqa_coconut": (("coconut", 1, 5, 6, 0, 50, False), (1, 6, 1e-5, "epoch", None)),
    "002/stage0": (("cot", 0, 1, 0, 0, 3, False), (8, 1, 1e-4, "stage", None)),
    "002/stage1": (
        ("coconut", 1, 3, 1, 3, 6, False),
        (8, 1, 1e-4, "stage", "runs/stage0/checkpoints/checkpoint_3"),
    ),
    "003/gsm8k_coconut_qwen3_a100_fresh_start": (
        ("coconut", 2, 2, 3, 0, 20, False),
        (16, 6, 1e-5, "epoch", None),
    ),
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_it_loads_as_it_stands(path: Path) -> None:
    config = load(path, check_files=False)
    if path.is_relative_to(CONFIGS / "seeds"):
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
        same = ("name", "seed", "c_thought", "num_epochs", "lr", "train_path", "val_path", "weight_decay")
        assert [getattr(config, key) for key in same] == [stated[key] for key in same]
        assert stated[config.method] is True


def test_nothing_is_missing() -> None:
    folders = {
        path.parent.relative_to(CONFIGS / "seeds").as_posix() for path in SHIPPED if "seeds" in path.parts
    }
    variants = {f"001/{part}" for part in ("basic", "contextual", "learnable_full", "lora")}
    assert folders == {"official", "000", "002", "003"} | variants


@pytest.mark.parametrize("name", EXPECTED)
def test_it_means_what_its_system_means(name: str) -> None:
    config = load(CONFIGS / "seeds" / f"{name}.yaml", check_files=False)
    curriculum, optimiser = EXPECTED[name]
    assert tuple(getattr(config, key) for key in CURRICULUM) == curriculum
    assert tuple(getattr(config, key) for key in OPTIMISER) == optimiser
    assert (config.pad_latent_to_max, config.uniform_prob, config.weight_decay) == (True, 0.0, 0.01)


def test_the_variants_of_thoughts_and_of_stages() -> None:
    def seed(name: str) -> Any:
        return load(CONFIGS / "seeds" / f"{name}.yaml", check_files=False)

    fixed, lora = seed("001/contextual/prosqa_coconut"), seed("001/lora/gsm_coconut")
    assert (fixed.latent_variant, fixed.latent_window_weights) == ("fixed_window", (0.1, 0.3, 0.6))
    assert (lora.latent_variant, lora.lora.r, lora.lora.target_modules) == (
        "learnable_weights",
        8,
        ("c_attn", "c_proj"),
    )
    assert seed("001/basic/gsm_coconut_eval").latent_variant == "coconut"
    start, documented = (
        seed(f"003/gsm8k_coconut_qwen3_a100_fresh_start{end}") for end in ("", "_as_documented")
    )
    assert (start.first_epoch, start.after_last_stage, start.max_seq_length) == (0, "remove_all", 512)
    assert (documented.first_epoch, documented.after_last_stage) == (1, "hold")


def test_a_place_that_is_to_be_filled_in_is_told() -> None:
    with pytest.raises(UserError, match="load_model_path: given '.*'; is not filled in"):
        load(CONFIGS / "seeds" / "official" / "gsm_coconut.yaml")
