"""Evaluates the saved model and two baselines on the held-out text.

In:   demo/model, demo/heldout.txt; the training tokens are regenerated from their seed.
Out:  demo/metrics.json (the field `training` is kept), and a table on standard output; with
      --sample, a generated story instead.
Time: about half a minute on one core; ten seconds with --sample.

    python3 demo/recipe/measure.py [--demo DIR] [--sample]

Protocol: the whole held-out text is encoded without special tokens and cut into pieces of 255
tokens (the last one may be shorter). Each piece follows one <s>, which makes a window of at most
256 tokens. Every token of the text is predicted exactly once, from the tokens before it in its
window; the negative log-likelihoods (nats) are averaged over all tokens. The model is loaded
from its BF16 files and run in float32. The bigram model predicts each token of the same windows
from the one before it, (count(a, b) + k) / (count(a) + 512 k); the unigram model uses no context,
(count(b) + k) / (all + 512 k). Their counts are those of the training windows; k is the
one of `KS` that is best on the held-out text itself, which favours the baselines.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import corpus

KS = [10.0**e for e in range(-8, 3)]
PROTOCOL = (
    "heldout.txt encoded whole without special tokens, pieces of 255 tokens each after one <s>, "
    "every token scored once, mean NLL in nats; BF16 files run in float32; bigram and unigram: "
    "add-k counts of the training windows, same tokens, best k on heldout.txt"
)


def pieces(ids: list[int]) -> list[torch.Tensor]:
    """The windows of the protocol: <s> and up to 255 tokens."""
    body = corpus.WINDOW - 1
    return [torch.tensor([0, *ids[at : at + body]]) for at in range(0, len(ids), body)]


@torch.no_grad()
def model_nll(model, rows: list[torch.Tensor]) -> float:
    """Sum of the model's negative log-likelihoods over all tokens except the leading <s>."""
    total = 0.0
    for row in rows:
        logits = model(input_ids=row[None, :-1], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits.double(), row[1:], reduction="sum")
        total += loss.item()
    return total


def bigram_nll(counts: torch.Tensor, rows: list[torch.Tensor], k: float) -> float:
    """The same sum under the add-k bigram model; `counts[a, b]` counts b after a."""
    probs = (counts + k) / (counts.sum(1, keepdim=True) + k * counts.shape[1])
    return -sum(probs[row[:-1], row[1:]].log().sum().item() for row in rows)


def unigram_nll(counts: torch.Tensor, rows: list[torch.Tensor], k: float) -> float:
    """The same sum under the add-k unigram model."""
    single = counts.sum(0)
    probs = (single + k) / (single.sum() + k * len(single))
    return -sum(probs[row[1:]].log().sum().item() for row in rows)


def pair_counts(rows: torch.Tensor, vocab: int) -> torch.Tensor:
    """How often each token follows each other token within the training windows."""
    pairs = rows[:, :-1] * vocab + rows[:, 1:]
    return torch.bincount(pairs.flatten(), minlength=vocab * vocab).view(vocab, vocab).double()


def stored_tensors(folder: Path) -> tuple[int, int]:
    """Number of tensors and of parameters in the shards."""
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    tensors = parameters = 0
    for shard in sorted(set(index["weight_map"].values())):
        with safe_open(folder / shard, "pt") as file:
            for name in file.keys():
                tensors += 1
                parameters += math.prod(file.get_slice(name).get_shape())
    assert index["metadata"]["total_size"] == 2 * parameters
    return tensors, parameters


def measure(demo: Path, model, tokenizer) -> dict:
    """All numbers in the table, unrounded."""
    train, heldout, calibration = corpus.texts()
    text = (demo / "heldout.txt").read_text(encoding="utf-8")
    assert text == "\n\n".join(heldout) + "\n", "heldout.txt is not what the recipe makes"
    other = (demo / "calibration.txt").read_text(encoding="utf-8")
    assert other == "\n\n".join(calibration) + "\n", "calibration.txt is not what the recipe makes"
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    rows, n, vocab = pieces(ids), len(ids), model.config.vocab_size
    docs = corpus.documents(train)
    counts = pair_counts(corpus.training_windows(tokenizer.backend_tokenizer, docs), vocab)
    nll = model_nll(model, rows)
    bigram, bigram_k = min((bigram_nll(counts, rows, k), k) for k in KS)
    unigram, unigram_k = min((unigram_nll(counts, rows, k), k) for k in KS)
    tensors, parameters = stored_tensors(demo / "model")
    size = len(text.encode())
    return {
        "parameters": parameters,
        "tensors": tensors,
        "n_bytes": size,
        "n_tokens": n,
        "heldout_nll_nats": nll / n,
        "heldout_perplexity": math.exp(nll / n),
        "heldout_bits_per_byte": nll / math.log(2) / size,
        "bigram_nll_nats": bigram / n,
        "bigram_perplexity": math.exp(bigram / n),
        "bigram_bits_per_byte": bigram / math.log(2) / size,
        "bigram_k": bigram_k,
        "unigram_nll_nats": unigram / n,
        "unigram_perplexity": math.exp(unigram / n),
        "unigram_bits_per_byte": unigram / math.log(2) / size,
        "unigram_k": unigram_k,
        "protocol": PROTOCOL,
    }


def sample(model, tokenizer) -> str:
    """The greedy continuation of a fixed opening, up to the end of the story."""
    inputs = tokenizer("One morning", return_tensors="pt")
    out = model.generate(input_ids=inputs.input_ids, do_sample=False, max_new_tokens=240)
    return tokenizer.decode(out[0], skip_special_tokens=True).split("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--sample", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(args.demo / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.demo / "model")
    if args.sample:
        print(sample(model, tokenizer))
        return
    metrics = args.demo / "metrics.json"
    training = json.loads(metrics.read_text(encoding="utf-8"))["training"]
    result = {"training": training}
    for name, value in measure(args.demo, model, tokenizer).items():
        rounded = isinstance(value, float) and not name.endswith("_k")
        result[name] = round(value, 5) if rounded else value
        print(f"{name:24} {result[name]}")
    metrics.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
