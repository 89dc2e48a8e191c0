"""Makes everything in demo/ that is not written by hand: the texts, the tokenizer and the model.

In:   only the constants here and in corpus.py; all randomness is seeded.
Out:  demo/heldout.txt, demo/calibration.txt, demo/model/*, and the field `training` of
      demo/metrics.json (measure.py adds the rest).
Time: about 24.5 minutes on one core of a 2-core virtual machine (AMD EPYC, AVX2).

    python3 demo/recipe/train.py [--out DIR] [--steps N] [--threads N]

The model is transformers' LlamaForCausalLM, trained in float32 with AdamW for one pass over the
training windows and rounded to BF16 once, when it is saved.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import corpus

VOCAB = 512
BATCH = 8  # windows in a step
PEAK_LR, LAST_LR, WARMUP, WEIGHT_DECAY = 3e-3, 1e-4, 100, 0.1
SEED = 1

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.05,
    "intermediate_size": 352,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.6",
    "use_cache": True,
    "vocab_size": VOCAB,
}

GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "transformers_version": "4.57.6",
}

TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "model_max_length": 512,
    "tokenizer_class": "PreTrainedTokenizerFast",
}


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def make_tokenizer(docs: list[str]) -> Tokenizer:
    """A byte-level BPE: <s>, </s>, the 256 bytes and as many merges as `VOCAB` has room for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(docs, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then cosine decay from `PEAK_LR` to `LAST_LR`."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return LAST_LR + (PEAK_LR - LAST_LR) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices and none for the vectors of norms."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95))


def train(model: LlamaForCausalLM, rows: torch.Tensor, steps: int) -> float:
    """One pass over the first `steps * BATCH` of the shuffled rows; the mean last loss."""
    rows = rows[torch.randperm(len(rows))]
    optimizer = make_optimizer(model)
    recent, begin = [], time.monotonic()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batch = rows[step * BATCH : (step + 1) * BATCH]
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-99:], loss.item()]
        if step % 100 == 99:
            minutes = (time.monotonic() - begin) / 60
            mean = sum(recent) / len(recent)
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {minutes:.1f} min", flush=True)
    return sum(recent) / len(recent)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Saves the tensors in BF16, sorted by name, in two shards of similar size, with an index."""
    tensors = {n: t.detach().to(torch.bfloat16).contiguous() for n, t in model.state_dict().items()}
    sizes = {name: tensors[name].nbytes for name in sorted(tensors)}
    total, before, shards, index = sum(sizes.values()), 0, [{}, {}], {}
    for name, size in sizes.items():
        number = 0 if before + size / 2 <= total / 2 else 1
        shards[number][name] = tensors[name]
        index[name] = f"model-{number + 1:05}-of-00002.safetensors"
        before += size
    for number, shard in enumerate(shards):
        path = folder / f"model-{number + 1:05}-of-00002.safetensors"
        save_file(shard, path, metadata={"format": "pt"})
        path.chmod(0o644)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": index},
    )


def save_texts(out: Path, heldout: list[str], calibration: list[str]) -> None:
    """Saves the two texts not used in training, one blank line between stories."""
    for name, parts in [("heldout.txt", heldout), ("calibration.txt", calibration)]:
        (out / name).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--steps", type=int, help="default: one pass over the training windows")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    folder = args.out / "model"
    folder.mkdir(parents=True, exist_ok=True)

    stories, heldout, calibration = corpus.texts()
    save_texts(args.out, heldout, calibration)
    docs = corpus.documents(stories)
    tokenizer = make_tokenizer(docs)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "generation_config.json", GENERATION_CONFIG)
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)

    rows = corpus.training_windows(tokenizer, docs)
    steps = min(args.steps or len(rows), len(rows) // BATCH)
    print(f"{len(stories)} stories, {rows.numel()} training tokens, {steps} steps", flush=True)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).float()
    begin = time.monotonic()
    loss = train(model, rows, steps)
    save_model(model, folder)
    training = {
        "stories": len(stories),
        "tokens": steps * BATCH * corpus.WINDOW,
        "steps": steps,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "last_100_steps_nll_nats": round(loss, 4),
    }
    write_json(args.out / "metrics.json", {"training": training})


if __name__ == "__main__":
    main()
