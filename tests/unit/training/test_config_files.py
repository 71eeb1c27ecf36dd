"""Recipes as files: complete, strict, and clear about what is wrong."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine.codec.networks import EncoderConfig, PainterConfig
from visavis.training.config_files import (
    CONFIGS,
    ConfigFileError,
    load_recipe,
    missing_fields,
    shipped_configs,
)
from visavis.training.energy import EnergyWeights
from visavis.training.recipes import MODELS, StudentRecipe, TeacherRecipe
from visavis.training.sharding import ShardingPlan
from visavis.training.train_codec import CodecRecipe
from visavis.training.train_speech_encoder import SpeechEncoderRecipe
from visavis.training.train_student import EnergyRecipe

SHIPPED: dict[str, type[Any]] = {
    "teacher-embedded": TeacherRecipe,
    "student-embedded": EnergyRecipe,
    "distill-embedded": StudentRecipe,
    "speech-encoder": SpeechEncoderRecipe,
    "codec": CodecRecipe,
    "teacher-14b": TeacherRecipe,
    "student-14b": StudentRecipe,
}
TABLES: dict[str, dict[str, type[Any]]] = {
    "codec": {"painter": PainterConfig, "encoder": EncoderConfig},
    "student-embedded": {"weights": EnergyWeights},
    "teacher-14b": {"sharding": ShardingPlan},
    "student-14b": {"sharding": ShardingPlan},
}


def test_every_shipped_file_is_known() -> None:
    assert shipped_configs() == sorted(SHIPPED)


@pytest.mark.parametrize(("name", "kind"), SHIPPED.items())
def test_shipped_files_state_every_number(name: str, kind: type[Any]) -> None:
    tables = TABLES.get(name, {})
    assert missing_fields(kind, CONFIGS / f"{name}.toml") == []
    assert isinstance(load_recipe(kind, name, tables=list(tables)), kind)
    for table, inner in tables.items():
        assert missing_fields(inner, CONFIGS / f"{name}.toml", table=table) == []
        assert isinstance(load_recipe(inner, name, table=table), inner)


def test_a_file_says_what_the_code_would_do_without_it() -> None:
    for name in set(SHIPPED) - {"teacher-14b", "student-14b"}:
        kind, tables = SHIPPED[name], TABLES.get(name, {})
        assert load_recipe(kind, name, tables=list(tables)) == kind()
        for table, inner in tables.items():
            assert load_recipe(inner, name, table=table) == inner()


@pytest.mark.parametrize("name", ["teacher-14b", "student-14b"])
def test_large_recipes_say_how_models_lie_in_pieces(name: str) -> None:
    assert load_recipe(ShardingPlan, name, table="sharding") == ShardingPlan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rte = 1e-4", "has no field 'rte'; did you mean rate?"),
        ("zzz = 1", "there are batch, betas"),
        ('batch = "16"', "batch='16' must be a whole number"),
        ("batch = true", "batch=True must be a whole number"),
        ("rate = false", "rate=False must be a number"),
        ("bf16 = 1", "bf16=1 must be true or false"),
        ("betas = [0.9]", r"betas=\[0.9\] must be an array of 2 numbers"),
        ("betas = 0.9", "betas=0.9 must be an array"),
        ('frame_counts = [33, "9"]', "frame_counts"),
        ("frame_counts = [33, 9]", "must have equal length"),
        ("frame_counts = [33, 17, 8]", "must all be 4 n [+] 1"),
        ("frame_shares = [0.5, 0.2, 0.1]", "must be shares that add up to 1"),
        ("steps = 0", "steps=0: a run has at least one step"),
        ("minutes = 0", "minutes=0.0 must be more than 0; inf"),
        ('model = "huge"', "model='huge' must be one of embedded, flashtalk-14b, small, smoke"),
        ("minutes = nan", "minutes=nan must be more than 0"),
        ("[weights]\nlips = 1", r"TeacherRecipe has no table \[weights\]; there is none"),
        ("rate = ", "not TOML"),
    ],
)
def test_errors_name_the_file_the_field_and_the_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigFileError, match=message) as error:
        load_recipe(TeacherRecipe, str(path))
    assert "mine.toml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit_shares = [0.5, 0.5]", "one share for each of num_steps=4"),
        ("exit_shares = [0.5, 0.5, 0.5, 0.5]", "exit_shares=.* must be shares that add up to 1"),
        ("frame_shares = [1.0]", "must have equal length"),
        ("frame_counts = [33, 17, 13, 5]", "at least 9"),
        ("max_chunks = 1", "own history takes two chunks; for none set own_history_share=0"),
        ("steps = -1", "steps=-1"),
        ("[wieghts]\nlids = 1", r"EnergyRecipe has no table \[wieghts\]; there is \[weights\]"),
    ],
)
def test_what_the_student_cannot_be_trained_with_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigFileError, match=message):
        load_recipe(EnergyRecipe, str(path), tables=["weights"])


def test_the_first_of_several_unknown_tables_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[zoo]\nx = 1\n[ape]\nx = 1\n")
    with pytest.raises(ConfigFileError, match=r"no table \[ape\]; there is \[a\], \[b\]"):
        load_recipe(TeacherRecipe, str(path), tables=["b", "a"])


def test_overrides_reach_into_tables_and_stay_there() -> None:
    overrides = ["weights.lids=9", "rate=1e-5", "weights.lips=[1, 1, 1, 1, 1, 1]"]
    recipe = load_recipe(EnergyRecipe, "student-embedded", overrides, tables=["weights"])
    weights = load_recipe(EnergyWeights, "student-embedded", overrides, table="weights")
    assert recipe == replace(EnergyRecipe(), rate=1e-5)
    assert weights == replace(EnergyWeights(), lids=9.0, lips=(1.0,) * 6)
    with pytest.raises(ConfigFileError, match="--set: EnergyWeights has no field 'lid'"):
        load_recipe(EnergyWeights, "student-embedded", ["weights.lid=1"], table="weights")
    with pytest.raises(ConfigFileError, match=r"--set: EnergyRecipe has no table \[weight\]"):
        load_recipe(EnergyRecipe, "student-embedded", ["weight.lids=1"], tables=["weights"])


def test_choices_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="'renoise' or 'euler'"):
        load_recipe(StudentRecipe, "distill-embedded", ["sampler=heun"])


def test_a_missing_file_lists_what_there_is() -> None:
    with pytest.raises(ConfigFileError, match="teacher-14b, teacher-embedded"):
        load_recipe(TeacherRecipe, "nowhere.toml")


def test_what_a_file_leaves_out_is_the_dataclass_default(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text("batch = 3\nrate = 1\n[other]\nx = 1\n")
    assert load_recipe(TeacherRecipe, str(path), tables=["other"]) == TeacherRecipe(
        batch=3, rate=1.0
    )


def test_overrides_win_and_words_need_no_quotes() -> None:
    recipe = load_recipe(
        StudentRecipe,
        "distill-embedded",
        ["rate = 1e-6", "sampler=euler", "betas=[0.5, 0.9]", "bf16=false", "model=smoke"],
    )
    assert (recipe.rate, recipe.sampler, recipe.betas) == (1e-6, "euler", (0.5, 0.9))
    assert (recipe.bf16, recipe.model) == (False, "smoke")
    for wrong in ("rate", "=3"):
        with pytest.raises(ConfigFileError, match="write field=value"):
            load_recipe(StudentRecipe, "distill-embedded", [wrong])
    with pytest.raises(ConfigFileError, match="--set: StudentRecipe has no field 'rat'"):
        load_recipe(StudentRecipe, "distill-embedded", ["rat=1"])


@given(
    rate=st.floats(allow_nan=False),
    steps=st.integers(1, 2**40),
    word=st.sampled_from(sorted(MODELS)),
)
def test_values_survive_the_way_through_an_override(rate: float, steps: int, word: str) -> None:
    recipe = load_recipe(
        TeacherRecipe,
        "teacher-embedded",
        [f"rate={float(rate)!r}", f"steps={steps}", f'model="{word}"'],
    )
    assert (recipe.rate, recipe.steps, recipe.model) == (rate, steps, word)


def test_every_type_of_field_can_be_described() -> None:
    for kind in {*SHIPPED.values(), EnergyWeights, ShardingPlan}:
        for field in fields(kind):
            wrong = [f"none.{field.name}=1979-05-27"]
            with pytest.raises(ConfigFileError, match=f"{field.name}="):
                load_recipe(kind, "teacher-embedded", wrong, table="none")
