"""What Transformers makes of an exported folder, as a process of its own, since PyTorch and Horovod in one process crash.

python transformers_outputs.py FOLDER INPUTS.npz OUTPUTS.npz SAVED: inputs are ``input_ids`` and ``attention_mask``; outputs are the last
hidden states and the logits; the model and the tokenizer are saved again into SAVED; a line of JSON on standard output tells the rest.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import transformers


def main() -> None:
    """Load, run, save."""
    folder, inputs, outputs, saved = sys.argv[1:]
    (architecture,) = transformers.AutoConfig.from_pretrained(folder).architectures
    auto = {
        "BertForMaskedLM": transformers.AutoModelForMaskedLM,
        "BertForSequenceClassification": transformers.AutoModelForSequenceClassification,
        "BertModel": transformers.AutoModel,
    }[architecture]
    model, loading = auto.from_pretrained(folder, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with np.load(inputs) as arrays:
        batch = {name: torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        found = model.eval()(**batch, output_hidden_states=True)
        # Of the head's LayerNorm as Bort was trained with it.
        if architecture == "BertForMaskedLM":
            model.cls.predictions.transform.LayerNorm.eps = 1e-12
        exact = model(**batch)
    arrays = {"hidden": found.hidden_states[-1].numpy()}
    if architecture != "BertModel":
        arrays |= {"logits": found.logits.numpy(), "exact_logits": exact.logits.numpy()}
    np.savez(outputs, **arrays)
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    texts = json.loads(sys.stdin.readline())
    told = {
        "class": type(model).__name__,
        "missing": sorted(loading["missing_keys"]),
        "unexpected": sorted(loading["unexpected_keys"]),
        "labels": [model.config.id2label[number] for number in range(model.config.num_labels)],
        "ids": [tokenizer(*pair)["input_ids"] for pair in texts],
        "mask": tokenizer.mask_token_id,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
