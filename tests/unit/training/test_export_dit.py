"""Exported transformers: in either layout the engine reads back what was written."""

from pathlib import Path

import pytest
import torch

from visavis.engine.dit.checkpoint import ORIGINAL_INDEX
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.weights import DIT_FILE, load_dit
from visavis.training.export_dit import Layout, write_dit
from visavis.training.recipes import MODELS


@pytest.mark.parametrize("layout", ["own", "original"])
def test_the_engine_reads_back_what_was_exported(tmp_path: Path, layout: Layout) -> None:
    torch.manual_seed(0)
    model = FlashTalkDiT(MODELS["smoke"])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    write_dit(model, tmp_path, layout)
    again = load_dit(MODELS["smoke"], tmp_path, torch.device("cpu"), torch.float32)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(
            again.state_dict()[name].float(), tensor.to(torch.bfloat16).float(), rtol=0, atol=0
        )


def test_the_original_layout_replaces_the_other(tmp_path: Path) -> None:
    first, second = FlashTalkDiT(MODELS["smoke"]), FlashTalkDiT(MODELS["smoke"])
    torch.nn.init.ones_(second.head.projection.weight)
    write_dit(first, tmp_path)
    write_dit(second, tmp_path, "original")
    assert not (tmp_path / DIT_FILE).exists()
    assert (tmp_path / ORIGINAL_INDEX).exists()
    again = load_dit(MODELS["smoke"], tmp_path, torch.device("cpu"), torch.float32)
    assert again.head.projection.weight.eq(1).all()
