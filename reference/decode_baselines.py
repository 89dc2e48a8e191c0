#!/usr/bin/env python3
"""Single-stream CPU decode speed of a Hugging Face checkpoint in BF16: transformers and llama.cpp.

    python decode_baselines.py MODEL [--tokens 32] [--prompt-tokens 8] [--threads 2] [--work DIR]
    python decode_baselines.py MODEL --check

MODEL is a directory with config.json and safetensors files, one or several, of model_type
"llama" or "qwen2". Both engines get the same prompt ids, then decode greedily one token
at a time, batch 1. A step is timed from token id in to the next token id out; the median of
--tokens steps is printed, after 4 warm-up steps that are not counted. Each engine runs in its own
process, so that neither competes with the other's threads or memory.

llama.cpp reads a BF16 GGUF, converted from the checkpoint into DIR (default physarium-gguf in the temporary directory)
and reused while config and weight files are unchanged. It contains no vocabulary: input and output
are token ids only.

Standard output is a line for each engine, "NAME VERSION MS", or "NAME absent" if it cannot be
imported. --check measures no time: it prints the 16 token ids that each engine decodes after a
fixed sentence. Reasons, and llama.cpp's CPU features, go to standard error.

Needs: torch, transformers, llama-cpp-python, gguf, numpy; --check also tokenizers.
"""
import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

WARMUP = 4
CHECK_TEXT = "The capital of France is"
CHECK_TOKENS = 16

LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def weight_files(model):
    index = model / "model.safetensors.index.json"
    if index.exists():
        return [model / f for f in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return [model / "model.safetensors"]


def stored_tensors(file):
    """Yields name, dtype and array of each tensor; BF16 as its bits in uint16."""
    import numpy as np

    kinds = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}
    with open(file, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
    data = np.memmap(file, np.uint8, "r", offset=8 + size)
    header.pop("__metadata__", None)
    for name, t in header.items():
        if t["dtype"] not in kinds:
            raise ValueError(f"{file}: {name} is {t['dtype']}, not BF16, F16 or F32")
        begin, end = t["data_offsets"]
        yield name, t["dtype"], data[begin:end].view(kinds[t["dtype"]]).reshape(t["shape"])


def to_f32(dtype, a):
    import numpy as np

    return (a.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else a.astype(np.float32)


def to_bf16_bits(dtype, a):
    """The bits of a BF16 tensor unchanged; others rounded to nearest, ties to even."""
    import numpy as np

    if dtype == "BF16":
        return a
    bits = a.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def gguf_name(name):
    """llama.cpp's name for a tensor; None for tensors that it computes itself."""
    base, suffix = name.rsplit(".", 1)
    if base in OTHER_NAMES:
        return f"{OTHER_NAMES[base]}.{suffix}"
    if base.endswith("rotary_emb"):
        return None
    prefix, layer, part = base.removeprefix("model.").split(".", 2)
    if prefix != "layers" or part not in LAYER_NAMES:
        raise ValueError(f"unknown tensor {name}")
    return f"blk.{layer}.{LAYER_NAMES[part]}.{suffix}"


def pair_rotary_rows(a, heads):
    """llama.cpp rotates adjacent rows of a "llama" head; the checkpoint's pairs are half a head apart."""
    return a.reshape(heads, 2, -1, *a.shape[1:]).swapaxes(1, 2).reshape(a.shape)


def write_gguf(model, cfg, path):
    import gguf

    arch = cfg["model_type"]
    if arch not in ("llama", "qwen2"):
        raise ValueError(f"model_type {arch} is not supported")
    rope = cfg.get("rope_parameters") or cfg.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError("scaled rotary embeddings are not supported")
    heads = cfg["num_attention_heads"]
    kv_heads = cfg.get("num_key_value_heads") or heads
    head_dim = cfg.get("head_dim") or cfg["hidden_size"] // heads

    w = gguf.GGUFWriter(path, arch)
    w.add_name(model.name)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    w.add_block_count(cfg["num_hidden_layers"])
    w.add_context_length(cfg["max_position_embeddings"])
    w.add_embedding_length(cfg["hidden_size"])
    w.add_feed_forward_length(cfg["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(rope.get("rope_theta") or cfg.get("rope_theta") or 10000.0)
    w.add_layer_norm_rms_eps(cfg["rms_norm_eps"])
    w.add_vocab_size(cfg["vocab_size"])
    w.add_tokenizer_model("no_vocab")

    def converted():
        for file in weight_files(model):
            for name, dtype, a in stored_tensors(file):
                if name == "lm_head.weight" and cfg.get("tie_word_embeddings"):
                    continue
                if target := gguf_name(name):
                    yield name, target, dtype, a

    # The file begins with all names and shapes, so a second pass writes the values, one tensor at a time.
    for _, target, _, a in converted():
        if a.ndim == 2:
            bf16 = gguf.GGMLQuantizationType.BF16
            w.add_tensor_info(target, a.shape, a.dtype, 2 * a.size, raw_dtype=bf16)
        else:
            f32 = gguf.GGMLQuantizationType.F32
            w.add_tensor_info(target, a.shape, a.dtype, 4 * a.size, raw_dtype=f32)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, _, dtype, a in converted():
        a = to_bf16_bits(dtype, a) if a.ndim == 2 else to_f32(dtype, a)
        if arch == "llama" and ".q_proj." in name:
            a = pair_rotary_rows(a, heads)
        elif arch == "llama" and ".k_proj." in name:
            a = pair_rotary_rows(a, kv_heads)
        w.write_tensor_data(a)
    w.close()


def gguf_file(model, work):
    """The model's GGUF in the work directory, converted if none exists for exactly these files."""
    config = (model / "config.json").read_bytes()
    key = hashlib.sha256(config)
    for file in weight_files(model):
        stat = file.stat()
        key.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    path = work / f"{model.name}-{key.hexdigest()[:12]}.gguf"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            write_gguf(model, json.loads(config), part)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def decode(step, prompt, count):
    """Feeds the prompt, then `count` ids one by one; returns the chosen ids and the ms of each step."""
    ids, times = [step(prompt)], []
    for _ in range(count):
        begin = time.perf_counter()
        ids.append(step([ids[-1]]))
        times.append(1e3 * (time.perf_counter() - begin))
    return ids, times


def run_transformers(model, work, threads, prompt, count):
    import torch
    import transformers

    torch.set_num_threads(threads)
    lm = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    cache = None

    def step(ids):
        nonlocal cache
        out = lm(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        return int(out.logits[0, -1].argmax())

    with torch.inference_mode():
        return transformers.__version__, *decode(step, prompt, count)


def run_llama_cpp(model, work, threads, prompt, count):
    import llama_cpp as lc
    import numpy as np

    path = gguf_file(model, work)
    errors = lc.llama_log_callback(
        lambda level, text, _: level == 4 and sys.stderr.write(text.decode(errors="replace")))
    lc.llama_log_set(errors, None)
    lc.llama_backend_init()
    print(lc.llama_print_system_info().decode(), file=sys.stderr)
    lm = lc.llama_model_load_from_file(str(path).encode(), lc.llama_model_default_params())
    if not lm:
        raise RuntimeError(f"llama.cpp cannot load {path}")
    params = lc.llama_context_default_params()
    params.n_ctx = max(512, len(prompt) + count)
    params.n_batch = max(512, len(prompt))
    params.n_threads = params.n_threads_batch = threads
    ctx = lc.llama_init_from_model(lm, params)
    if not ctx:
        raise RuntimeError(f"llama.cpp makes no context for {path}")
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(lm))

    def step(ids):
        tokens = (lc.llama_token * len(ids))(*ids)
        if lc.llama_decode(ctx, lc.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError("llama_decode failed")
        logits = lc.llama_get_logits_ith(ctx, -1)
        return int(np.ctypeslib.as_array(logits, (vocab,)).argmax())

    result = decode(step, prompt, count)
    lc.llama_free(ctx)
    lc.llama_model_free(lm)
    return lc.__version__, *result


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path, metavar="MODEL")
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--prompt-tokens", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "physarium-gguf", metavar="DIR")
    p.add_argument("--check", action="store_true")
    args = p.parse_args()
    if min(args.tokens, args.prompt_tokens, args.threads) < 1:
        p.error("--tokens, --prompt-tokens and --threads are at least 1")
    if not (args.model / "config.json").is_file():
        p.error(f"{args.model} has no config.json")

    if args.check:
        from tokenizers import Tokenizer

        prompt = Tokenizer.from_file(str(args.model / "tokenizer.json")).encode(CHECK_TEXT).ids
        count = CHECK_TOKENS - 1
    else:
        prompt = list(range(100, 100 + args.prompt_tokens))
        count = WARMUP + args.tokens
    for name, run in ("transformers", run_transformers), ("llama.cpp", run_llama_cpp):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            call = process.submit(run, args.model.resolve(), args.work, args.threads, prompt, count)
            try:
                version, ids, times = call.result()
            except ImportError as e:
                print(f"{name}: {e}", file=sys.stderr)
                print(f"{name} absent", flush=True)
                continue
        if args.check:
            print(name, version, ids, flush=True)
        else:
            print(f"{name} {version} {statistics.median(times[WARMUP:]):.3f}", flush=True)


if __name__ == "__main__":
    main()
