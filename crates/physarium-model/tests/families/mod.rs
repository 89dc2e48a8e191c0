//! The golden models (`reference/decoder_golden.py`), at least one of each family.

/// Their directories in `tests/golden`.
pub const MODELS: [&str; 9] = [
    "llama",
    "llama3-rope",
    "mistral",
    "mistral-linear",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gemma3",
    "gemma3-linear",
];
