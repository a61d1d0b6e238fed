"""Hugging Face's BertForMaskedLM of the student's shape under PyTorch, as a process that trains when it is told to.

It is a process of its own so that two frameworks' thread pools do not meet, and it sleeps while the other side is timed. Its head works on
masked positions only; its attention and its Adam are PyTorch's fused ones. It reads one JSON command per line from standard input and
answers with one JSON line: ``load`` (configuration and parameters under Hugging Face names), ``loss`` (of a batch, without dropout, and
the norm of its gradient), ``train`` (so many updates over given batches; seconds of each).
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from bort.settings import OptimizerSettings, PretrainingSettings


class Peer:
    """The model and its optimiser."""

    def __init__(self, config: dict[str, Any], parameters: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        known = {name: value for name, value in config.items() if name != "decoder_layer_norm_eps"}
        self.model = BertForMaskedLM(BertConfig(**known))
        missing, unexpected = self.model.load_state_dict(load_file(parameters), strict=False)
        if unexpected or any("decoder" not in name and "position_ids" not in name for name in missing):
            raise ValueError(f"parameters do not fit: missing {missing}, unexpected {unexpected}")
        self.model.tie_weights()
        settings = OptimizerSettings()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=PretrainingSettings.lr, eps=settings.adam_epsilon, weight_decay=settings.weight_decay, fused=True
        )
        self.max_gradient_norm = settings.max_gradient_norm

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of the used slots."""
        hidden = self.model.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        rows = torch.arange(len(hidden))[:, None].expand_as(batch["positions"])
        used = batch["weights"] > 0
        logits = self.model.cls(hidden[rows[used], batch["positions"][used]])
        return torch.nn.functional.cross_entropy(logits, batch["labels"][used])

    def train(self, batch: dict[str, torch.Tensor]) -> float:
        """One update; its seconds."""
        start = time.perf_counter()
        self.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def read_batches(path: str) -> list[dict[str, torch.Tensor]]:
    """Batches of a file that :func:`bort.bench.pretrain.write_batches` made."""
    with np.load(path) as arrays:
        count = 1 + max(int(name.split("/")[0]) for name in arrays.files)
        batches = [
            {name: torch.from_numpy(arrays[f"{number}/{name}"]) for name in ("input_ids", "valid_length")} for number in range(count)
        ]
        for number, batch in enumerate(batches):
            batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < batch.pop("valid_length")[:, None]).long()
            for name in ("positions", "labels", "weights"):
                array = torch.from_numpy(arrays[f"{number}/masked_{name}"])
                batch[name] = array if name == "weights" else array.long()
    return batches


def main() -> None:
    """Answer commands until standard input ends."""
    peer: Peer | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "load":
            peer = Peer(command["config"], command["parameters"], command["threads"])
            answer = {"torch": torch.__version__, "attention": peer.model.config._attn_implementation}
        elif peer is not None:
            batches = read_batches(command["batches"])
            if command["do"] == "loss":
                peer.model.eval()
                loss = peer.loss(batches[0])
                loss.backward()
                norm = torch.nn.utils.get_total_norm([p.grad for p in peer.model.parameters() if p.grad is not None])
                answer = {"loss": loss.item(), "gradient_norm": norm.item()}
                peer.optimizer.zero_grad()
            else:
                peer.model.train()
                answer = {"seconds": [peer.train(batch) for batch in batches]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
