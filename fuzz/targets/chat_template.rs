//! A chat template. Input: the template and then, after a zero, the user's message.
//!
//! Rendering ends in bounded time, and with one printable error if it fails. It is reached as `run` reaches it: by
//! generating a token with a small model.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use physarium::{Cancel, GenerateRequest, Prompt, Sampling, generate};
use physarium_fuzz::{CONFIG, scratch, write_model, write_seeds};
use serde_json::json;

const TEMPLATE: &str = "chat_template.jinja";
/// Longer than the bounds of a template take, on a busy machine.
const MOST: Duration = Duration::from_secs(8);

static MODEL: OnceLock<PathBuf> = OnceLock::new();

fn model() -> PathBuf {
    let dir = scratch("chat_template");
    write_model(&dir);
    // Prompts of any length, up to what the fuel of a template gives.
    let config = CONFIG.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 256");
    fs::write(dir.join("config.json"), config).expect("a config is written");
    let vocabulary: serde_json::Map<_, _> = ["<unk>", "<s>", "</s>", "a", "b", "user", "It", "s"]
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("a tokenizer is written");
    let config = r#"{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false}"#;
    fs::write(dir.join("tokenizer_config.json"), config).expect("a config is written");
    dir
}

fn seeds() {
    let chatml = "{% for message in messages %}<|im_start|>{{ message['role'] + '\\n' + message['content'] | trim \
                  }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}\0hi";
    let llama = "{{- bos_token }}{%- if tools is not none %}{{ tools | tojson(indent=4) }}{%- endif %}{%- set d = \
                 strftime_now('%d %b %Y') %}{%- if not d is defined %}{{ raise_exception('x') }}{%- endif -%}\
                 {{ messages[0].content.split('a')[-1] ~ d[:2] }}\0a b";
    let macros = "{% macro m(x, n=2) %}{% generation %}{{ x | join(', ') }}{% endgeneration %}{% if n %}{{ m([x], \
                  n - 1) }}{% endif %}{% endmacro %}{% set ns = namespace(i=0) %}{% for k, v in {'a': 1}.items() %}\
                  {% set ns.i = ns.i + v %}{% continue %}{% endfor %}{{ m(range(3) | list) ~ ns.i }}\0x";
    let all = [("chatml", chatml), ("llama", llama), ("macros", macros), ("plain", "text\0")];
    write_seeds(&all.map(|(name, text)| (name, text.as_bytes().to_vec())));
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let dir = MODEL.get_or_init(model);
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let template = parts.next().unwrap_or_default();
    let Ok(message) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    fs::write(dir.join(TEMPLATE), template).expect("the template is written");
    let request = GenerateRequest {
        model: dir,
        prompt: Prompt::Chat(message),
        max_tokens: 1,
        sampling: Sampling::default(),
        threads: 1,
    };
    let begun = Instant::now();
    let result = generate(&request, &Cancel::default(), &mut |_| Ok(()));
    assert!(begun.elapsed() < MOST, "{:?}", begun.elapsed());
    match result {
        Ok(generated) => assert!(generated.prompt_tokens < 256),
        Err(e) => {
            let message = e.to_string();
            assert!(!message.chars().any(|c| c.is_control() && c != '\n'), "{message:?}");
            assert!(message.len() < 10_000, "a message of {} bytes", message.len());
        }
    }
});
